"""The process that evaluates a state of the store: `python -m pretrain_exp.eval.state job.json`.

    state --framework.as_hf--> temporary Hugging Face folder --eval.worker--> evals/<state>/<fingerprint>/

The folder is verified against the framework's own log-probabilities before anything is scored, and is gone afterwards.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.eval.job import EvalJob, EvalTask
from pretrain_exp.eval.worker import main as evaluate
from pretrain_exp.framework.base import Checkpoint
from pretrain_exp.kinds import check_kind
from pretrain_exp.store.claims import ClaimLost, demand_claim
from pretrain_exp.store.states import write_json


def main(path: Path) -> int:
    """The exit status: 0 where every evaluation succeeded."""
    values = json.loads(path.read_text())
    live = Path(values["live"])
    try:
        with Checkpoint.of(check_kind(values["framework"], "framework"), Path(values["state"])).as_hf(live) as folder:
            return _evaluate(values, folder, live)
    except (UserError, Problems) as error:
        return _failed(live, error.render())


def _failed(live: Path, message: str) -> int:
    """Writes error.json, unless another process has the job by now; returns the exit status."""
    try:
        demand_claim(os.environ)
    except ClaimLost as error:
        print(error, file=sys.stderr)
    else:
        write_json(live / "error.json", {"kind": "user", "message": message})
    return 1


def _evaluate(values: dict[str, Any], folder: Path, live: Path) -> int:
    tasks = tuple(EvalTask(**task) for task in values["evaluations"])
    job = EvalJob(
        model=str(folder),
        evaluations=tasks,
        device=values["device"],
        dtype=values["dtype"],
        generation=values["generation"],
        items=values["items"],
        held_out=values["held_out"],
        progress=str(live / "progress.json"),
        log=str(live / "log.txt"),
        threads=values["threads"],
        shards=values["shards"],
    )
    job.write(live / "evaluate.json")
    return evaluate([str(live / "evaluate.json")])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

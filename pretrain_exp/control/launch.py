"""Goes before the command of a training job whose plan is not known yet: plans first, then becomes that command.

    launch.py JOB --python PYTHON -- COMMAND...

One process: it plans (plan_slice.py, in `python`), then runs COMMAND in its own place. As one of several ranks of
torchrun only the first plans; the others wait until it has. Standard library only: it runs in the framework's Python.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pretrain_exp.framework.worker import start
from pretrain_exp.framework.worker.launch import OF_A_RANK
from pretrain_exp.store.states import write_json

START = str(Path(start.__file__))
RESOLVED = "resolved.json"  # beside job.json: the job with its plan and the keys of its states
_PLANNED = "planned.json"  # by which attempt it was written, for the other ranks
_POLL_SECONDS = 0.5


def wrapped(job: Path, interpreter: str, command: Sequence[str]) -> tuple[str, ...]:
    """The command, run by `interpreter`, that plans the job of this job.json in this Python and then runs `command`."""
    return (interpreter, START, "pretrain_exp.control.launch", str(job), "--python", sys.executable, "--", *command)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--python", required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    attempt = os.environ.get("TORCHELASTIC_RUN_ID", "")
    planned = options.job.with_name(_PLANNED)
    if os.environ.get("RANK", "0") == "0":
        environment = {name: value for name, value in os.environ.items() if name not in OF_A_RANK}
        plan = [options.python, "-m", "pretrain_exp.control.plan_slice", str(options.job)]
        done = subprocess.run(plan, env=environment, check=False)
        if done.returncode:
            return done.returncode if done.returncode > 0 else 128 - done.returncode
        write_json(planned, {"attempt": attempt})
    else:
        while not _is_planned(planned, attempt):  # torchrun ends this process where the first rank fails
            time.sleep(_POLL_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(options.command[0], options.command)
    return 127


def _is_planned(path: Path, attempt: str) -> bool:
    try:
        return bool(json.loads(path.read_text())["attempt"] == attempt)
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())

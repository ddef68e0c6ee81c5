"""What the report says of a study that has not come to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.executor.base import Job
from pretrain_exp.store.process import describe_process
from pretrain_exp.study.unfinished import unfinished

MISSING = "1 of its 2 jobs are missing: train treated seed 0"
CASES: dict[str, tuple[dict[str, Any], str | None]] = {
    "ended": ({"status": "done"}, None),
    "ended with a failure": ({"status": "failed"}, None),
    "gathered": ({"status": "running", "gathered": True}, None),
    "interrupted": ({"status": "interrupted"}, f"the study was interrupted; {MISSING}"),
    "refused": ({"status": "refused"}, f"the study was refused; {MISSING}"),
    "in a queue": ({"status": "running", "controller": None}, f"the study has not ended; {MISSING}"),
    "running": ({"status": "running", "controller": describe_process()}, f"the study has not ended; {MISSING}"),
    "dead": (
        {"status": "running", "controller": {**describe_process(), "started": -1}},
        f"the study has not ended, and its process is gone; {MISSING}",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_missing(name: str, tmp_path: Path) -> None:
    study, says = CASES[name]
    made = tmp_path / "made"
    made.touch()
    jobs = [
        Job(key, kind, title, tmp_path / key, (), {}, frozenset(), makes=(path,)).record()
        for key, kind, title, path in (
            ("a", "train", "train control seed 0", made),
            ("b", "train", "train treated seed 0", tmp_path / "none"),
            ("c", "report", "report", tmp_path / "none"),
        )
    ]
    assert unfinished({**study, "jobs": jobs}) == ([] if says is None else [says])

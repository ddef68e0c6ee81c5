"""The report says which results of its checkpoints are not in it: those that no study names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.study.further import further_results


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def study(root: Path, name: str, evaluations: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """Members of a study of two states, after it was noted in the store."""
    folder = root / name
    member = {
        "plan": None,
        "arms": {"control": {"loop": None, "states": {"1": "s1", "2": "s2"}, "evaluations": evaluations}},
    }
    write(folder / "member.json", member)
    write(folder / "study.json", {"store": str(root / "store"), "members": [str(folder)]})
    write(root / "store" / "studies" / f"{name}.json", {"folder": str(folder)})
    return [member]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"s2/f1": "choice"}, []),
        ({"s2/f1": "choice", "s2/g1": "theirs"}, []),  # what another study asked of a state that both have
        ({"s2/f1": "choice", "s3/x": "lm_eval"}, []),  # of another state
        ({"s2/f1": "choice", "s1/f1": "choice"}, ["choice was scored later, by `pretrain-exp evaluate`, of 1 "]),
        ({"s1/x": "lm_eval", "s2/x": "lm_eval", "s2/y": "lm_eval", "s2/z": "olmes"}, ["lm_eval was", "olmes was"]),
    ],
)
def test_what_no_study_names_is_said(tmp_path: Path, results: dict[str, str], expected: list[str]) -> None:
    members = study(tmp_path, "mine", {"2": {"choice": "f1"}})
    study(tmp_path, "other", {"2": {"theirs": "g1"}})
    study(tmp_path, "deleted", {"2": {"theirs": "x"}})
    (tmp_path / "deleted" / "member.json").unlink()
    for place, name in results.items():
        write(tmp_path / "store" / "evals" / place / "eval.json", {"evaluation": {"name": name}})
    found = further_results(members, tmp_path / "store")
    assert len(found) == len(expected)
    assert all(said.startswith(words) for said, words in zip(found, expected, strict=True))
    if len(expected) == 2:
        assert "of 2 checkpoints" in found[0]

"""Results of a study's checkpoints that no study names: what `pretrain-exp evaluate` added to them later.

A report is of the evaluations that its study was asked for, so that what is adjusted for and answered does not change
with what somebody scores afterwards. What else there is, is said, with the way to have it in the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.study.registry import all_studies, read_members, read_study

Named = tuple[str, str]  # key of a state, fingerprint of a result


def further_results(members: Sequence[Mapping[str, Any]], store: Path) -> list[str]:
    """A sentence for each name under which checkpoints of these members were scored beside what studies name."""
    states = {key for member in members for record in member["arms"].values() for key in record["states"].values()}
    named = _named(members)
    paths = {(key, path.parent.name): path for key in states for path in (store / "evals" / key).glob("*/eval.json")}
    if paths.keys() <= named:
        return []
    for folder in all_studies(store):
        try:
            named |= _named(read_members(read_study(folder)))
        except UserError:  # a study of which a member was deleted names nothing more
            continue
    scored: dict[str, set[str]] = {}
    for (key, fingerprint), path in paths.items():
        if (key, fingerprint) not in named:
            scored.setdefault(json.loads(path.read_text())["evaluation"]["name"], set()).add(key)
    return [_sentence(name, len(keys)) for name, keys in sorted(scored.items())]


def _named(members: Iterable[Mapping[str, Any]]) -> set[Named]:
    return {
        (record["states"][step], fingerprint)
        for member in members
        for record in member["arms"].values()
        for step, evaluations in record["evaluations"].items()
        for fingerprint in evaluations.values()
    }


def _sentence(name: str, checkpoints: int) -> str:
    return (
        f"{name} was scored later, by `pretrain-exp evaluate`, of {checkpoints} checkpoints, and is in no table here: "
        "to have it here, type the study's own command with the same evaluation in its eval=[...], which trains "
        "nothing and scores nothing twice; to see it alone, type the `pretrain-exp evaluate` again"
    )

"""`pretrain-exp sync`: fills W&B and TensorBoard from a study's files, one run an arm, and only with what is new.

What the report found (its numbers, tables and pictures) stands with the treated runs.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from pretrain_exp.control.table import control_metrics
from pretrain_exp.errors import UserError
from pretrain_exp.paths import conf_dir
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import state_dir
from pretrain_exp.study.registry import read_members, read_study
from pretrain_exp.study.results import states_on_way
from pretrain_exp.tracking.config import TrackingConfig
from pretrain_exp.tracking.sync import Contents, sinks_of, sync


def chosen_tracking(name: str) -> TrackingConfig:
    """What a file of conf/tracking holds. UserError for one that is not there."""
    folder = conf_dir() / "tracking"
    if not (folder / f"{name}.yaml").is_file():
        choices = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise UserError("no such choice", key="tracking", value=name, fix=f"choices: {choices}")
    return TrackingConfig.model_validate(yaml.safe_load((folder / f"{name}.yaml").read_text()))


def sync_study(folder: Path, choice: str | None) -> None:
    """Mirrors a study where `tracking=<choice>` says, None: where it says itself; without news it says that."""
    tracking = own_tracking(read_study(folder)) if choice is None else chosen_tracking(choice)
    if not (tracking.wandb.enabled or tracking.tensorboard.enabled):
        print("tracking=none: nothing is mirrored; tracking=tensorboard, offline or wandb names where to")
    elif not mirror_study(folder, tracking):
        print("nothing new to mirror: all that could be sent was sent before")


def own_tracking(study: dict[str, Any]) -> TrackingConfig:
    """As the study's configuration says."""
    return TrackingConfig.model_validate(read_members(study)[0]["config"].get("tracking", {}))


def mirror_study(folder: Path, tracking: TrackingConfig | None = None, console: Console | None = None) -> int:
    """Mirrors every arm of every member, by default where the study says; returns how many lines were sent."""
    console = console or Console(stderr=True)
    study, sent = read_study(folder), Counter[str]()
    store = Path(study["store"])
    report = folder / "report"
    pictures = {path.stem: path for path in sorted((report / "figures").glob("*.png"))}
    tables = {path.stem: path for path in (*sorted(report.glob("*.csv")), *sorted(report.glob("tables/*.csv")))}
    findings = json.loads(path.read_text()) if (path := report / "tracked.json").is_file() else {}
    members = read_members(study)
    tracking = tracking or own_tracking(study)
    sinks = sinks_of(tracking)  # once: a server that cannot be reached is asked once
    for number, member in enumerate(members):
        for arm, record in member["arms"].items():
            parts = [tracking.wandb.name or study["title"], arm, member["label"], f"seed {member['seed']}"]
            contents = Contents(
                name=" ".join(part for part in parts if part),
                group=f"{folder.absolute().parent.name}-{folder.absolute().name}",
                config=member["config"],
                metrics=_metrics(store, record["last"]),
                evaluations=[
                    *_evaluations(store, record),
                    *control_metrics(store, record),
                    *([{"step": member["last_step"], **findings}] if findings and arm == "treated" else ()),
                ],
                tables=tables if arm == "treated" else {},
                pictures=pictures if arm == "treated" else {},
            )
            # of a state that members share, each has a run of its own: they score other items
            mirrors = store / "mirrors" / f"{digest(str(folder.absolute()))}-{number}-{arm}-{record['last']}"
            for one in sync(mirrors, sinks, contents):
                sent[one.destination] += one.rows + one.files
    for destination, lines in sent.items():
        console.print(f"mirrored {lines:,} lines to {destination} ({store / 'mirrors'})", style="dim", highlight=False)
    return sum(sent.values())


def _metrics(store: Path, last: str) -> list[Path]:
    paths = [state_dir(store, key) / "metrics.jsonl" for key in states_on_way(store, last)]
    return [path for path in paths if path.is_file()]


def _evaluations(store: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The aggregates of every evaluated step, computed from the items when they were scored."""
    rows = []
    for step, evaluations in record["evaluations"].items():
        row: dict[str, Any] = {"step": int(step)}
        for name, fingerprint in evaluations.items():
            path = store / "evals" / record["states"][step] / fingerprint / "eval.json"
            if path.is_file():
                for task, values in json.loads(path.read_text())["summary"].items():
                    row |= {f"eval/{name}/{task}/{metric}": value for metric, value in values.items()}
        if len(row) > 1:
            rows.append(row)
    return rows

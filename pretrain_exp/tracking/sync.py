"""Mirrors a run into other logs: metrics.jsonl rows, evaluation results, tables and pictures, each sent once.

    Contents (files that stand) --sync--> sinks (W&B, TensorBoard)
             sync_state.json <-- what each destination has got, so that the next call sends only what is new

A mirror is never worth a run: what goes wrong in a sink is reported, and the files stay the truth. Where rows that were
sent have changed since (a later attempt went over them), the mirrors are filled again from the start, under a new id.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pretrain_exp.store.claims import claimed
from pretrain_exp.store.states import write_json
from pretrain_exp.tracking.config import TrackingConfig
from pretrain_exp.tracking.metrics import RESERVED, Row, read_metrics

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 1
STATE = "sync_state.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is mirrored of one run. The names of tables and pictures are those they get in the mirror."""

    name: str  # of the run: experiment, arm and seed
    group: str | None = None  # of the runs that belong together: the study
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Path] = ()  # metrics.jsonl files that continue each other
    evaluations: Sequence[Row] = ()  # {"step": 100, "eval/<evaluation>/<task>/<metric>": 0.4}, in any order
    tables: Mapping[str, Path] = field(default_factory=dict)  # Parquet or CSV
    pictures: Mapping[str, Path] = field(default_factory=dict)  # PNG


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a sink is told when it is opened."""

    folder: Path  # where it may keep files
    run_id: str  # the same in every call until the mirrors are filled again
    name: str
    group: str | None
    config: Mapping[str, Any]
    step: int  # the last step of the run
    part: int  # how many calls have filled this destination before
    line: int  # how many lines (rows, tables, pictures) it holds


class Sink(Protocol):
    """A log of another kind. Each row, table and picture is one line of it."""

    title: str  # as messages call it
    destination: str  # what is remembered as sent is remembered for this

    def errors(self) -> tuple[type[Exception], ...]:
        """What can go wrong in it, through no fault of this code."""
        ...

    def fallback(self) -> Sink | None:
        """What to try when it has failed, itself in another mode included; None if there is nothing."""
        ...

    def open(self, start: Start) -> None: ...
    def log_rows(self, rows: Iterable[Row]) -> None: ...
    def log_table(self, name: str, table: pa.Table) -> None: ...
    def log_image(self, name: str, path: Path) -> None: ...
    def close(self) -> None: ...


@dataclass
class Sent:
    """What a destination holds, as sync_state.json remembers it."""

    parts: int = 0
    lines: int = 0
    rows: int = 0
    digest: str = ""  # of those rows
    evaluations: list[str] = field(default_factory=list)  # digests
    files: dict[str, str] = field(default_factory=dict)  # name -> digest, of tables and pictures


@dataclass(frozen=True)
class Synced:
    """What one call sent to one destination."""

    destination: str
    rows: int
    files: int


def sinks_of(config: TrackingConfig) -> list[Sink]:
    """The sinks that a configuration asks for."""
    from pretrain_exp.tracking.tensorboard_sink import TensorboardSink
    from pretrain_exp.tracking.wandb_sink import WandbSink

    sinks: list[Sink] = [WandbSink(config.wandb)] if config.wandb.enabled else []
    return sinks + ([TensorboardSink()] if config.tensorboard.enabled else [])


def sync(run_folder: Path, sinks: Sequence[Sink], contents: Contents) -> list[Synced]:
    """Sends to each sink what it has not got yet; returns what was sent where.

    run_folder holds sync_state.json and the files of the sinks. A sink that fails is reported and left as it was (its
    fallback is tried); what it has not got goes out with the next call. Of two calls at once the second waits.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    with claimed(run_folder, "sync"):
        return _sync(run_folder, sinks, contents)


def _sync(run_folder: Path, sinks: Sequence[Sink], contents: Contents) -> list[Synced]:
    rows = read_metrics(contents.metrics)
    state = _read_state(run_folder)
    if any(sent.digest != digest(rows[: sent.rows]) for sent in state.sent.values() if sent.rows):
        log.warning("%s: rows that were mirrored have changed since; the mirrors are filled again", contents.name)
        state = State()
    out: list[Synced] = []
    for first in sinks:
        sink: Sink | None = first
        while sink is not None:
            before = state.sent.get(sink.destination, Sent())
            new = _new(contents, rows, before)  # our own files: what is wrong with them is no sink's failure
            if not new.lines:
                break
            try:
                _send(sink, _start(run_folder, state.run_id, contents, rows, before), new)
            except sink.errors() as error:
                log.warning("%s: %s: %s: %s", contents.name, sink.title, type(error).__name__, _first_line(error))
                sink = sink.fallback()
                continue
            state.sent[sink.destination] = _after(before, rows, new)
            _write_state(run_folder, state)
            out.append(Synced(sink.destination, len(new.rows) + len(new.evaluations), new.files))
            break
    return out


def digest(value: Sequence[Row] | Row) -> str:
    """Of rows: their steps and values, not when and in which attempt they were written."""
    rows = [value] if isinstance(value, Mapping) else value
    names = [{name: row[name] for name in row if name not in RESERVED or name == "step"} for row in rows]
    return hashlib.blake2b(json.dumps(names, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass
class State:
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    sent: dict[str, Sent] = field(default_factory=dict)


def _read_state(folder: Path) -> State:
    path = folder / STATE
    if not path.is_file():
        return State()
    found = json.loads(path.read_text())
    if found["schema"] != SCHEMA:
        log.warning("%s: written by another version; the mirrors are filled again", path)
        return State()
    return State(found["run_id"], {name: Sent(**sent) for name, sent in found["sent"].items()})


def _write_state(folder: Path, state: State) -> None:
    write_json(folder / STATE, {"schema": SCHEMA, **asdict(state)})


@dataclass(frozen=True)
class _New:
    """What a destination has not got yet. evaluations: by digest; digests: of every table and picture there is."""

    rows: Sequence[Row]
    evaluations: Mapping[str, Row]
    tables: Mapping[str, pa.Table]
    pictures: Mapping[str, Path]
    digests: Mapping[str, str]

    @property
    def files(self) -> int:
        return len(self.tables) + len(self.pictures)

    @property
    def lines(self) -> int:
        return len(self.rows) + len(self.evaluations) + self.files


def _new(contents: Contents, rows: Sequence[Row], sent: Sent) -> _New:
    evaluations = {digest(row): row for row in contents.evaluations}
    digests = {f"table/{name}": _file_digest(path) for name, path in contents.tables.items()}
    digests |= {f"picture/{name}": _file_digest(path) for name, path in contents.pictures.items()}
    changed = {name for name in digests if sent.files.get(name) != digests[name]}
    return _New(
        rows=rows[sent.rows :],
        evaluations={key: row for key, row in evaluations.items() if key not in sent.evaluations},
        tables={name: _read_table(path) for name, path in contents.tables.items() if f"table/{name}" in changed},
        pictures={name: path for name, path in contents.pictures.items() if f"picture/{name}" in changed},
        digests=digests,
    )


def _start(folder: Path, run_id: str, contents: Contents, rows: Sequence[Row], sent: Sent) -> Start:
    steps = [int(row["step"]) for row in [*rows, *contents.evaluations]]
    return Start(
        folder=folder,
        run_id=run_id,
        name=contents.name,
        group=contents.group,
        config=contents.config,
        step=max(steps, default=0),
        part=sent.parts,
        line=sent.lines,
    )


def _send(sink: Sink, start: Start, new: _New) -> None:
    sink.open(start)
    try:
        sink.log_rows(new.rows)
        sink.log_rows(sorted(new.evaluations.values(), key=lambda row: row["step"]))
        for name, table in new.tables.items():
            sink.log_table(name, table)
        for name, path in new.pictures.items():
            sink.log_image(name, path)
    finally:
        sink.close()


def _after(sent: Sent, rows: Sequence[Row], new: _New) -> Sent:
    return Sent(
        parts=sent.parts + 1,
        lines=sent.lines + new.lines,
        rows=len(rows),
        digest=digest(rows),
        evaluations=[*sent.evaluations, *new.evaluations],
        files={**sent.files, **new.digests},
    )


def _read_table(path: Path) -> pa.Table:
    if path.suffix == ".csv":
        import pyarrow.csv

        return pyarrow.csv.read_csv(path)
    import pyarrow.parquet as pq

    return pq.read_table(path)


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

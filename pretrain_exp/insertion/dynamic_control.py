"""dynamic_control: a closed loop. A controller is shown the model before every segment and plans the next one's texts.

    every 1000 steps:  model --probes--> controller --> the next n texts of the pool, at random places of the segment

In: texts and probes, of files or of another kind's items; a controller (control/). Out: before anything is trained only
the probes, as items that are scored and never planted, and beside them the texts that may come; then, one segment after
the other, its edits. Copies are counted over the whole run, and each draws its places by its own number: no segment
repeats another's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.control.base import Controller, Decision
from pretrain_exp.control.probes import Probe, read_probes
from pretrain_exp.control.room import Demand, check_room
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, keyed, ranked
from pretrain_exp.items.content import content_id
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits
from pretrain_exp.plan.rows import field as field_of
from pretrain_exp.plan.rows import read_rows


@dataclass(frozen=True)
class Material:
    """What a loop plants, in the order in which it does; what its controller is shown; what is scored only."""

    texts: tuple[Entry, ...]
    probes: tuple[Probe, ...]
    held_out: tuple[EditItem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DynamicControl(Planting):
    """Plants what a controller decides; see conf/insertion/dynamic_control.yaml."""

    every: int
    controller: dict[str, Any]
    file: str | None = None
    key: str = "text"
    probes: str | None = None
    prompt_key: str = "prompt"
    target_key: str = "target"
    items: dict[str, Any] | None = None
    kind: Controller = field(init=False, repr=False, compare=False)
    inner: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse("mode", ["range", "explicit"], "each segment is planted at random places", "mode: random")
        if self.density != "uniform":
            problem = "the controller decides when texts are read"
            raise UserError(problem, key="density", value=self.density, fix="leave it at uniform")
        if self.every < 1:
            raise UserError("must be at least 1 step", key="every", value=self.every)
        kind = check_kind(self.controller, "controller")
        if not isinstance(kind, Controller):
            fix = "derive your class from pretrain_exp.control.base.Controller, or use a script"
            raise UserError("is no controller", key="controller._target_", value=self.controller["_target_"], fix=fix)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "inner", None if self.items is None else check_kind(self.items, "items"))
        if self.items is not None and (self.file is not None or self.probes is not None):
            raise UserError("gives texts and probes itself", key="items", fix="set file and probes to null")
        if kind.needs_probes and self.items is None and self.probes is None:
            fix = "give a file of {prompt, target} rows, or `items`"
            raise UserError("this controller follows probes, and there are none", key="probes", value=None, fix=fix)
        if kind.most() is not None and self.items is None and self.file is None:
            raise UserError("there are no texts to plant", key="file", value=None, fix="give a file, or `items`")

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        own = [("file", self.file), ("probes", self.probes)]
        inner: list[tuple[str, str]] = getattr(self.inner, "files", list)()
        found = [(name, path) for name, path in own if path is not None]
        return found + [(f"items.{name}", path) for name, path in inner] + self._controllers_files()

    def describe(self) -> str:
        """What is read, for the question of a report."""
        return f"as many texts of {self._source()} as its controller plans every {self.every:,} steps"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """What is known before anything is trained: the probes, never planted, and the texts that may come.

        UserErrors carry the full key.
        UserError too where the largest number of texts that the controller may ask for finds no place in a segment.
        """
        material = self.material(context)
        made = self._planted_once(material.texts, context)
        demand = Demand.of(context, self.every, self.kind.most(), material.texts, made)
        check_room([demand])
        head = f"a closed loop of {demand.segments:,} segments of {self.every:,} steps; {len(material.texts):,} texts"
        notes = [f"{head}, {len(material.probes):,} probes; {demand.describe()}", *(made.notes if made else ())]
        none = np.zeros(0, dtype=np.int32)
        items = [*self._probe_items(material, context, dose=0), *material.held_out]
        pool = [made.items[i] for i in np.unique(made.item).tolist()] if made else []
        return Edits(context.name, items, none, none, span=self.span(context), notes=notes, to_come=pool)

    @keyed
    def slice_edits(
        self, context: InsertionContext, decision: Decision, place: int, span: tuple[int, int]
    ) -> tuple[Edits, int]:
        """The edits of one segment, positions [span), and the place in the pool where the next one goes on.

        place: where this one begins. UserErrors carry the full key.
        """
        material = self.material(context)
        if decision.count and not material.texts:
            raise UserError("its controller asks for texts of the pool, which has none", key="file", value=None)
        if decision.count < 0:
            raise UserError(f"its controller asks for {decision.count} texts", key="controller")
        size = max(1, len(material.texts))
        entries = [material.texts[(place + i) % size] for i in range(decision.count)]
        entries += [
            Entry(id=content_id(text), origin=f"text {i} of the controller", text=text, group=context.name)
            for i, text in enumerate(decision.texts, 1)
        ]
        following = (place + decision.count) % size
        probes = self._probe_items(material, context, dose=len(entries))
        if not entries:
            none = np.zeros(0, dtype=np.int32)
            return Edits(context.name, probes, none, none, span=span), following
        made = build_edits(context, self, entries)
        return replace(made, items=[*made.items, *probes], span=span, notes=[]), following

    @keyed
    def demand(self, context: InsertionContext) -> Demand:
        """What it may plant at most, for room beside other insertions. UserErrors carry the full key."""
        texts = self.material(context).texts
        return Demand.of(context, self.every, self.kind.most(), texts, self._planted_once(texts, context))

    def asked(self, decision: Decision) -> int:
        """Texts that a decision plants, those that come round again counted each time."""
        return decision.count + len(decision.texts)

    def material(self, context: InsertionContext) -> Material:
        """Texts and probes. UserError, under a field of this kind, for what cannot be read."""
        if self.items is not None:
            return self._material_of_items(context)
        texts = []
        for row in read_rows(self.file) if self.file is not None else ():
            text, origin = field_of(row, self.key, str(self.file), "key"), f"row {row[0]} of {self.file}"
            if not isinstance(text, str) or not text:
                raise UserError(f"{origin}: {self.key!r} must be a text that is not empty", key="key", value=text)
            texts.append(Entry(id=content_id(text), origin=origin, text=text, group=context.name))
        probes = read_probes(self.probes, self.prompt_key, self.target_key) if self.probes is not None else []
        return Material(tuple(texts), tuple(probes))

    def fingerprint(self, context: InsertionContext) -> dict[str, Any]:
        """All of this kind that decides what the loop does, in JSON values; files by their content."""
        from pretrain_exp.eval.job import digest_file

        material = self.material(context)
        files = dict(self._controllers_files())
        paths = {name.partition(".")[2] for name in files}
        fields = {name: value for name, value in self.controller.items() if name not in paths}
        return {
            "controller": json.loads(json.dumps(fields)),  # numbers as keys are texts in a job's file
            "version": self.kind.version,
            "files": {name: digest_file(Path(path)) for name, path in files.items()},
            "texts": content_id(*(_identity(entry) for entry in material.texts)),
            "probes": [probe.id for probe in material.probes],
            "planting": [self.too_long, self.on_full, self.eos_rule],
        }

    def located(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of this kind with absolute paths, for another process. node: as it was given."""
        found = {key: dict(value) if isinstance(value, Mapping) else value for key, value in node.items()}
        for name, path in self.files():
            outer, _, inner = name.partition(".")
            (found[outer] if inner else found)[inner or outer] = str(Path(path).absolute())
        return found

    def _controllers_files(self) -> list[tuple[str, str]]:
        return [(f"controller.{name}", path) for name, path in self.kind.files()]

    def _source(self) -> str:
        if self.items is not None:
            return str(self.items["_target_"]).rpartition(".")[2]
        return Path(self.file).name if self.file is not None else "its controller"

    def _material_of_items(self, context: InsertionContext) -> Material:
        """The items of another kind. What it would plant is the pool, in an order drawn by hash; its holdouts stay
        holdouts, and so do the probes that ask for them."""
        planted: dict[str, Entry] = {}
        probes: list[Probe] = []
        held_out: list[EditItem] = []
        for item in self.inner.edits(replace(context, name=f"{context.name}.items")).items:
            found = Probe.of_item(item.id, item.payload) if item.probe else None
            if not item.dose:
                held_out.append(item)
            elif found is not None:
                probes.append(found)
            elif not item.probe:
                origin = f"item {item.id} of {self._source()}"
                planted[item.id] = Entry(item.id, origin, item.text, item.tokens, group=context.name)
            else:
                problem = f"{self._source()} has probes that are no prompt and target, which a loop cannot follow"
                raise UserError(problem, key="items", value=item.id, fix="knowledge, or texts and probes of a file")
        if not planted or (self.kind.needs_probes and not probes):
            what = "texts" if not planted else "probes with a prompt and a target"
            raise UserError(f"{self._source()} gives no {what}", key="items")
        texts = list(planted.values())
        texts = [texts[i] for i in ranked(list(planted), context, "pool")]
        return Material(tuple(texts), tuple(probes), tuple(held_out))

    def _planted_once(self, texts: Sequence[Entry], context: InsertionContext) -> Edits | None:
        """The edits that plant the whole pool once; None where there is none."""
        return build_edits(context, self, texts) if texts else None

    def _probe_items(self, material: Material, context: InsertionContext, dose: int) -> list[EditItem]:
        """dose: how many texts are planted."""
        tokens = context.encode([probe.text for probe in material.probes]) if material.probes else []
        return [
            EditItem(probe.id, run, probe.text, context.name, dose, probe.payload, probe=True)
            for probe, run in zip(material.probes, tokens, strict=True)
        ]


def _identity(entry: Entry) -> str:
    return entry.id if entry.tokens is None else f"{entry.id} {row_digest(entry.tokens).hex()}"


def loops_of(insertions: Mapping[str, Any]) -> dict[str, DynamicControl]:
    """The closed loops among the insertions of a run, by name. Problems where their segments differ in length."""
    found = {name: kind for name, kind in insertions.items() if isinstance(kind, DynamicControl)}
    lengths = {kind.every for kind in found.values()}
    if len(lengths) > 1:
        raise Problems(
            [
                UserError("loops of one run share their segments", key=f"insertion.{name}.every", value=kind.every)
                for name, kind in found.items()
            ]
        )
    return found

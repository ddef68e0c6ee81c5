"""canaries: texts that carry a run of odd tokens, members and non-members of one distribution.

    group rare/8      64 carriers, each with 8 rare tokens after it     dealt to doses 0, 1, 4, 16 by hash
    group rare/32     ...                                               dose 0: non-members, scored and never planted
    group plain       64 carriers alone

In: texts and pools of tokens (items/canaries.py). Out: edits; the payload says which tokens are the canary, `span`
[first, stop) of the tokens as planted; and for each kind a probe that holds the pool its canaries are drawn from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, keyed
from pretrain_exp.insertion.doses import deal, levels, times
from pretrain_exp.items.canaries import (
    CANARY,
    POOL,
    CanaryKind,
    canary,
    expected_least,
    rarest,
    token_counts,
)
from pretrain_exp.items.content import content_id
from pretrain_exp.items.passages import passage_files, passages
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits

_EOS_ROOM = 2


@dataclass(frozen=True, kw_only=True)
class Canaries(Planting):
    """Plants canaries; see conf/insertion/canaries.yaml."""

    file: str | None = None
    key: str = "text"
    kinds: list[CanaryKind] = field(default_factory=lambda: ["plain", "rare", "random"])
    lengths: list[int] = field(default_factory=lambda: [1, 8, 32])
    items: int = 64
    repetitions: int | list[int] = field(default_factory=lambda: [0, 1, 4, 16])
    fraction: float | None = None
    carrier_tokens: int = 64
    pool_share: float = 0.1
    checkpoint: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse("mode", ["explicit"], "canaries have no positions", "random or range")
        cut = "carriers are cut to fit, canaries never"
        self.refuse("too_long", ["split", "truncate", "skip"], cut, "leave it at error")
        self.need_distinct("kinds", "lengths")
        for name in ("lengths", "items", "carrier_tokens"):
            value = getattr(self, name)
            if (min(value) if isinstance(value, list) else value) < 1:
                raise UserError("must be 1 or more", key=name, value=value)
        if not 0 < self.pool_share <= 1:
            raise UserError("a share lies above 0, up to 1", key="pool_share", value=self.pool_share, fix="write 0.1")
        if ("unlikely" in self.kinds) != (self.checkpoint is not None):
            problem = "kind unlikely needs a model, and only it does"
            fix = "give the folder or hub name of a checkpoint together with kind unlikely"
            raise UserError(problem, key="checkpoint", value=self.checkpoint, fix=fix)
        levels(self.repetitions, self.fraction)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        local = self.checkpoint is not None and self.checkpoint.startswith(("/", "."))
        return [("file", path) for path in passage_files(self.file)] + (
            [("checkpoint", str(self.checkpoint))] if local else []
        )

    def describe(self) -> str:
        """What is read, for the question of a report."""
        return f"a canary {times(self.repetitions)}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all conditions. UserErrors carry the full key, insertion.<name>.<field>."""
        conditions = [(kind, n) for kind in self.kinds for n in ([0] if kind == "plain" else self.lengths)]
        carriers = self._carriers(context, conditions)
        pools = self._pools(context, carriers)
        entries: list[Entry] = []
        conditions_of: dict[str, tuple[CanaryKind, int]] = {}
        for at, (kind, length) in enumerate(conditions):
            runs = []
            for number in range(self.items):
                run = carriers[at * self.items + number][: context.sequence_length - length - _EOS_ROOM]
                if length:
                    run = np.append(run, canary(pools[kind], length, self.seed, kind, length, number))
                runs.append(run)
            ids = [content_id("canary", kind, row_digest(run).hex()) for run in runs]
            doses = deal(ids, self.repetitions, self.fraction, context)
            group = f"{kind}/{length}" if length else kind
            conditions_of |= dict.fromkeys(ids, (kind, length))
            entries += [
                Entry(id=each, origin=f"canary {i} of {group}", tokens=run, group=group, repetitions=dose)
                for i, (each, run, dose) in enumerate(zip(ids, runs, doses, strict=True))
            ]
        edits = build_edits(context, self, entries, field="items")
        items = [_marked(item, *conditions_of[item.id], context.eos_token_id) for item in edits.items]
        return replace(edits, items=items + [_pool_item(kind, pool) for kind, pool in pools.items()])

    def _carriers(self, context: InsertionContext, conditions: list[tuple[CanaryKind, int]]) -> list[np.ndarray]:
        """A text of its own for each canary, those of a condition always the same ones, cut to carrier_tokens."""
        longest, room = max(n for _, n in conditions), context.sequence_length - _EOS_ROOM
        if longest >= room:
            problem = f"a sequence of {context.sequence_length} tokens holds no canary of {longest} after a text"
            raise UserError(problem, key="lengths", value=self.lengths, fix="use shorter canaries")
        texts = passages(self.file, self.key, "carriers")
        wanted = len(conditions) * self.items
        if len(texts) < wanted:
            problem = f"{wanted:,} texts are needed, one for each canary, and there are {len(texts):,}"
            fix = "lower items, use fewer kinds and lengths, or give a larger file"
            raise UserError(problem, key="items", value=self.items, fix=fix)
        ranked = sorted(texts, key=lambda text: content_id("rank", str(self.seed), text))[:wanted]
        size = min(self.carrier_tokens, room - longest)  # of one before the longest canary
        runs = [np.asarray(run, dtype=np.uint32)[: self.carrier_tokens] for run in context.encode(ranked)]
        distinct = {row_digest(run[:size]).hex() for run in runs if len(run)}
        if len(distinct) < wanted:
            problem = f"cut to {size} tokens, {wanted - len(distinct):,} carriers are empty or alike"
            raise UserError(problem, key="carrier_tokens", value=self.carrier_tokens, fix="take more tokens")
        return runs

    def _pools(self, context: InsertionContext, carriers: list[np.ndarray]) -> dict[str, np.ndarray]:
        kinds = [kind for kind in self.kinds if kind != "plain"]
        if not kinds:
            return {}
        types, counts = token_counts(context.data, context.slots, context.eos_token_id, self.seed)
        if len(types) < 2:
            raise UserError("the data hold a single kind of token", key="kinds", value=list(self.kinds))
        pools: dict[str, np.ndarray] = {}
        for kind in kinds:
            if kind == "rare":
                pools[kind] = rarest(types, counts, self.pool_share, self.seed)
            elif kind == "random":
                pools[kind] = types
            else:
                assert self.checkpoint is not None
                pools[kind] = expected_least(
                    self.checkpoint, carriers, types, self.pool_share, self.seed, context.encode
                )
        return pools


def _marked(item: EditItem, kind: str, length: int, eos: int) -> EditItem:
    """The item with the payload that says where its canary stands, EOS around the text counted."""
    stop = len(item.tokens) - int(item.tokens[-1] == eos)
    fields = {"kind": CANARY, "type": kind} | ({"span": [stop - length, stop]} if length else {})
    return replace(item, payload=json.dumps(fields, separators=(",", ":")))


def _pool_item(kind: str, pool: np.ndarray) -> EditItem:
    payload = json.dumps({"kind": POOL, "type": kind}, separators=(",", ":"))
    return EditItem(f"pool/{kind}", pool, group="pool", payload=payload, probe=True)

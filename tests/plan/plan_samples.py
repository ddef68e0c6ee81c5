"""Small plans for the tests: items whose tokens tell who they are, streams that are range(n)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.plan.digest import READS_DTYPE, row_digest
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan

S = 32
PHASES = Phases([Phase(0, 4, S)])
WINDOW = Window(10, 60)
SPAN = (PHASES.position_of_step(10), PHASES.position_of_step(60))  # 6,400 tokens, 200 sequences


def edits(
    name: str,
    lengths: Sequence[int],
    copies: int | Sequence[int] = 1,
    span: tuple[int, int] = SPAN,
    positions: Sequence[int] | None = None,
    on_full: str = "error",
) -> Edits:
    """Items of these lengths, `copies` of each (0: a holdout); no two items or insertions share a token."""
    counts = [copies] * len(lengths) if isinstance(copies, int) else list(copies)
    first = 100_000 + 50_000 * (sum(name.encode()) % 997)
    items = [
        EditItem(
            f"{name}{i}", np.arange(first + 100 * i, first + 100 * i + length, dtype=np.uint32), f"text {i}", "g", dose
        )
        for i, (length, dose) in enumerate(zip(lengths, counts, strict=True))
    ]
    item = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    copy = np.concatenate([np.arange(count, dtype=np.int32) for count in counts] + [np.zeros(0, np.int32)])
    if positions is not None:
        return Edits(name, items, item, copy, "explicit", position=np.array(positions, dtype=np.int64))
    return Edits(name, items, item, copy, "random", span, on_full=on_full)  # type: ignore[arg-type]


def stream(folder: Path, num_tokens: int, parts: int = 2) -> TokenFiles:
    """range(num_tokens) in files, the first of uint16 behind a header of 6 bytes."""
    cuts = np.linspace(0, num_tokens, parts + 1).astype(int)
    files = []
    for i, (low, high) in enumerate(pairwise(cuts)):
        dtype = "uint16" if i == 0 and high < 1 << 16 else "uint32"
        path = folder / f"{i}.bin"
        path.write_bytes(b"header" * (i == 0) + np.arange(low, high).astype(dtype).tobytes())
        files.append(TokenFile(str(path), dtype, 6 * (i == 0), int(high - low), f"digest{i}", path.name))
    return TokenFiles(tuple(files), eos_token_id=0)


def train(order: ShuffledOrder, plan: Plan | None, phases: Phases, steps: range, ranks: int = 1) -> list[np.ndarray]:
    """What workers would log, one array a rank: the rows of each step after the overlay."""
    logs: list[list[tuple[int, int, int, np.void]]] = [[] for _ in range(ranks)]
    for step in steps:
        for row, slot in enumerate(phases.slots(step)):
            tokens = order.read(slot)
            if plan is not None:
                tokens = plan.overlay.apply(slot, tokens, order.read)
            logs[row % ranks].append((step, row, slot, np.void(row_digest(tokens))))
    return [np.array(log, dtype=READS_DTYPE) for log in logs]

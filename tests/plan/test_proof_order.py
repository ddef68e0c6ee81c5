"""The proof's own data orders against those that runs read by: every kind, several epochs, files of all lengths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_exp.data.olmo_order import OlmoCoreOrder, OlmoOrder
from pretrain_exp.data.order import DataOrder, ShuffledOrder
from pretrain_exp.data.token_files import NotFetched, TokenFile, TokenFiles
from pretrain_exp.data.window_order import WindowOrder
from pretrain_exp.errors import UserError
from pretrain_exp.plan.proof_order import PlainOrder

S, BATCH = 4, 3
KINDS: dict[str, Callable[[TokenFiles, int], DataOrder]] = {
    "shuffled": lambda files, seed: ShuffledOrder(files, S, seed),
    "as it stands": lambda files, seed: ShuffledOrder(files, S, None),
    "olmo2": lambda files, seed: OlmoOrder(files, S, BATCH, seed),
    "olmo_core": lambda files, seed: OlmoCoreOrder(files, S, BATCH, seed),
    "olmo_core in chunks": lambda files, seed: OlmoCoreOrder(files, S, BATCH, seed, max_target_sequence_length=2 * S),
    "window of shuffled": lambda files, seed: WindowOrder(ShuffledOrder(files, S, seed), 5, 19, seed + 1),
    "window of olmo2": lambda files, seed: WindowOrder(OlmoOrder(files, S, BATCH, seed), 3, 40, seed + 1),
    "window of a window": lambda files, seed: WindowOrder(
        WindowOrder(OlmoCoreOrder(files, S, BATCH, seed), 0, 9, seed), 6, 21, seed
    ),
}


def stream(folder: Path, lengths: list[int]) -> TokenFiles:
    """range(sum(lengths)) in files."""
    files, start = [], 0
    for i, length in enumerate(lengths):
        path = folder / f"{i}.bin"
        np.arange(start, start + length, dtype="<u4").tofile(path)
        files.append(TokenFile(str(path), "uint32", 0, length, f"d{i}", f"f{i}"))
        start += length
    return TokenFiles(tuple(files), 0)


@pytest.mark.parametrize("kind", KINDS)
@given(
    lengths=st.lists(st.integers(0, 60), max_size=5).map(lambda lengths: [41, *lengths, 3]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12, deadline=None)
def test_every_kind_as_it_is_read(
    kind: str, lengths: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    order = KINDS[kind](stream(tmp_path_factory.mktemp("files"), lengths), seed)
    slots = np.arange(5 * order.num_sequences // 2 + 45)
    found = PlainOrder(json.loads(json.dumps(order.to_json()))).rows(slots[::-1])[::-1]
    assert found.tolist() == [order.read(int(slot)).tolist() for slot in slots]


def test_the_official_orders_as_their_formulas_say(tmp_path: Path) -> None:
    """Written out by hand for one epoch after the first: files of 3, 0 and 5 sequences of 4, in batches of 3."""
    files = stream(tmp_path, [14, 3, 21])
    begins = np.array([0, 4, 8, *(17 + 4 * i for i in range(5))])  # the remainders 12-13, 14-16 and 37 are never read
    for kind, epoch_seed in (("olmo2", 7 + 1), ("olmo_core", 7 + 2)):
        shuffled = np.arange(8, dtype=np.uint32)
        np.random.Generator(np.random.PCG64(epoch_seed)).shuffle(shuffled)
        expected = begins[shuffled][:6]  # two whole batches
        rows = PlainOrder(KINDS[kind](files, 7).to_json()).rows(np.arange(6, 12))
        assert rows[:, 0].tolist() == expected.tolist(), kind


def test_what_has_not_come_is_never_proved(tmp_path: Path) -> None:
    """Zeros of a hole would agree with a worker that read the same zeros."""
    files = stream(tmp_path, [40])
    listed = tmp_path / "spans.json"
    listed.write_text(json.dumps({"spans": [[16, 24, "d"], [24, 40, "d"], [0, 8, "d"], [100, 160, "d"]]}))
    sparse = TokenFiles((TokenFile(**{**files.to_json()["files"][0], "coverage": str(listed)}),), 0)
    order = ShuffledOrder(sparse, S, None)
    plain = PlainOrder(order.to_json())
    held = [slot for slot in range(10) if (16 * slot >= 16 and 16 * slot + 16 <= 40) or 16 * slot + 16 > 112]
    assert held == [1, 7, 8, 9]
    assert plain.rows(np.array(held))[:, 0].tolist() == [4, 28, 32, 36]
    for slot in set(range(10)) - set(held):
        with pytest.raises(UserError, match="has not come"):
            plain.rows(np.array([slot]))
        with pytest.raises(NotFetched):
            order.read(slot)
    listed.unlink()  # the rest came
    assert len(PlainOrder(order.to_json()).rows(np.arange(10))) == 10

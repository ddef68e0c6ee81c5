"""The overlay against a plain dict of lists; its digests; what it refuses."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_exp.errors import UserError
from pretrain_exp.plan.overlay import Overlay, noise_values
from pretrain_exp.plan.overlay_writer import Ops, write_overlay

S = 16
POOL = np.arange(1000, 1200, dtype=np.uint32)


def base(slot: int) -> np.ndarray:
    return (np.arange(S) + S * slot).astype(np.uint32)


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[int, int, int, int, int, int]]:
    """(slot, column, length, kind, ref, source column), disjoint inside each slot; slots near and far."""
    rows = []
    for slot in draw(st.lists(st.integers(0, 40) | st.integers(0, 10**12), unique=True, max_size=12)):
        at = 0
        while at < S and draw(st.booleans()):
            column = draw(st.integers(at, S - 1))
            length = draw(st.integers(1, S - column))
            kind = draw(st.integers(0, 1))
            ref = draw(st.integers(0, len(POOL) - length)) if kind == 0 else draw(st.integers(0, 99))
            rows.append((slot, column, length, kind, ref, draw(st.integers(0, S - length))))
            at = column + length
    return rows


def to_ops(rows: list[tuple[int, int, int, int, int, int]]) -> Ops:
    table = np.array(rows, dtype=np.int64).reshape(-1, 6)
    return Ops(*table.T, np.zeros(len(table), dtype=np.float32))


def opened(folder: Path, rows: list, pool: np.ndarray = POOL, name: str = "overlay") -> Overlay:
    write_overlay(folder / name, to_ops(rows), pool, S)
    return Overlay.open(folder / name)


@settings(max_examples=60, deadline=None)
@given(operations(), st.randoms(use_true_random=False))
def test_apply_equals_a_dict_of_lists(rows: list, random) -> None:
    random.shuffle(rows)
    naive: dict[int, list] = {}
    for row in rows:
        naive.setdefault(row[0], []).append(row[1:])
    with TemporaryDirectory() as folder:
        overlay = opened(Path(folder), rows)
        assert len(overlay) == len(rows)
        slots = {slot + d for slot in naive for d in (-1, 0, 1)} | {0, 7, 10**12 + 5}
        for slot in slots:
            tokens = base(slot) if slot >= 0 else np.zeros(S, np.uint32)
            before, expected = tokens.copy(), tokens.copy()
            for column, length, kind, ref, source in naive.get(slot, []):
                piece = POOL[ref : ref + length] if kind == 0 else base(ref)[source : source + length]
                expected[column : column + length] = piece
            result = overlay.apply(slot, tokens, base)
            assert result.tolist() == expected.tolist()
            assert (result is tokens) == (slot not in naive) == (not overlay.touches(slot))
            assert tokens.tolist() == before.tolist()  # the row itself is never written to
        assert overlay.first_slot() == (min(naive) if naive else None)
        assert overlay.last_slot() == (max(naive) if naive else None)


@settings(max_examples=40, deadline=None)
@given(operations(), operations(), st.integers(0, 60), st.integers(1, 50))
def test_prefix_digest_is_the_edits_before_a_slot_and_nothing_else(one: list, two: list, cut: int, pad: int) -> None:
    """Another pool, another tail: the same digest. Another edit before the slot: another digest."""
    mixed = [row for row in one if row[0] < cut] + [row for row in two if row[0] >= cut]
    moved = [(*row[:4], row[4] + (pad if row[3] == 0 else 0), row[5]) for row in mixed]
    with TemporaryDirectory() as name:
        folder = Path(name)
        a, b = opened(folder, one, name="a"), opened(folder, moved, np.append(np.zeros(pad, np.uint32), POOL), "b")
        assert a.prefix_digest(cut) == b.prefix_digest(cut)
        everything = 10**13
        same = sorted(one) == sorted(mixed)
        effects = [_effects(rows) for rows in (one, mixed)]
        assert (a.prefix_digest(everything) == b.prefix_digest(everything)) == (same or effects[0] == effects[1])


def _effects(rows: list) -> list:
    return sorted((*row[:4], *((row[4], 0) if row[3] == 0 else row[4:])) for row in rows)


@pytest.mark.parametrize(("kind", "field"), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 2), (1, 4), (1, 5)])
def test_prefix_digest_sees_every_field(tmp_path: Path, kind: int, field: int) -> None:
    row = [5, 3, 4, kind, 10, 2]
    changed = list(row)
    changed[field] += 1
    one, two = opened(tmp_path, [row], name="a"), opened(tmp_path, [changed], name="b")
    assert one.prefix_digest(7) != two.prefix_digest(7)
    assert one.prefix_digest(5) == two.prefix_digest(5) == opened(tmp_path, [], name="c").prefix_digest(99) == ""


def test_equal_tokens_at_other_places_of_the_pool_are_equal(tmp_path: Path) -> None:
    pool = np.tile(np.arange(4, dtype=np.uint32), 2)
    one, two = (opened(tmp_path, [(1, 0, 4, 0, ref, -1)], pool, f"o{ref}") for ref in (0, 4))
    assert one.prefix_digest(2) == two.prefix_digest(2)


def test_many_operations_in_one_bucket(tmp_path: Path) -> None:
    rows = [(10**12 + slot, 2, 3, 0, slot, -1) for slot in range(100)] + [(0, 0, 1, 0, 0, -1)]
    overlay = opened(tmp_path, rows)
    for slot in range(100):
        assert overlay.apply(10**12 + slot, base(0))[2:5].tolist() == [1000 + slot, 1001 + slot, 1002 + slot]


def test_noise_is_listed_and_leaves_tokens_alone(tmp_path: Path) -> None:
    ops = Ops.concatenate(
        [
            Ops.noise(np.array([3]), np.array([2]), np.array([8]), np.array([0.5], np.float32)),
            Ops.tokens(np.array([3]), np.array([4]), np.array([2]), np.array([0])),  # noise may lie over planted text
        ]
    )
    write_overlay(tmp_path / "o", ops, POOL, S, seed=7)
    overlay = Overlay.open(tmp_path / "o")
    assert overlay.noise(3) == [(2, 8, 0.5)]
    assert overlay.noise(2) == []
    assert overlay.seed == 7
    assert np.flatnonzero(overlay.apply(3, base(3)) != base(3)).tolist() == [4, 5]


def test_noise_depends_on_seed_and_scale(tmp_path: Path) -> None:
    digests = set()
    for i, (seed, sigma) in enumerate([(0, 0.5), (1, 0.5), (0, 0.25), (0, 0.5)]):
        ops = Ops.noise(np.array([3]), np.array([2]), np.array([8]), np.array([sigma], np.float32))
        write_overlay(tmp_path / str(i), ops, POOL, S, seed)
        digests.add(Overlay.open(tmp_path / str(i)).prefix_digest(4))
    assert len(digests) == 3


def test_noise_values_are_normal_and_a_function_of_their_key() -> None:
    from scipy import stats

    values = noise_values(1, 2, 3, 101, 99)
    assert values.shape == (101, 99)
    assert values.dtype == np.float32
    assert np.array_equal(values, noise_values(1, 2, 3, 101, 99))
    assert stats.kstest(values.ravel(), "norm").pvalue > 0.01
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert abs(np.corrcoef(values.ravel(), noise_values(*other, 101, 99).ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0, 14, 3, 0, 0, -1), "inside their slots of 16"),
        ((0, -1, 3, 0, 0, -1), "inside their slots"),
        ((-1, 0, 3, 0, 0, -1), "inside their slots"),
        ((0, 0, 0, 0, 0, -1), "shortest 0"),
        ((0, 0, 3, 0, 198, -1), "outside the pool of 200"),
        ((0, 0, 3, 0, -1, -1), "outside the pool"),
        ((9, 4, 3, 0, 0, -1), "1 operations overlap another, the first in slot 9 at column 4"),
    ],
)
def test_wrong_operations_are_refused(tmp_path: Path, row: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_overlay(tmp_path / "o", to_ops([row, (9, 3, 2, 0, 0, -1)]), POOL, S)
    assert list(tmp_path.iterdir()) == []


def test_apply_refuses_what_it_cannot_edit(tmp_path: Path) -> None:
    overlay = opened(tmp_path, [(1, 0, 4, 1, 5, 2), (2, 8, 8, 0, 0, -1)])
    with pytest.raises(ValueError, match="slot 1 takes tokens from slot 5: `read` is needed"):
        overlay.apply(1, base(1))
    with pytest.raises(ValueError, match="need 32 bits"):
        overlay.apply(2, base(2).astype(np.uint16))
    with pytest.raises(ValueError, match="ends at column 16, the row has 12 tokens"):
        overlay.apply(2, base(2)[:12])


def test_an_overlay_is_never_overwritten(tmp_path: Path) -> None:
    opened(tmp_path, [])
    with pytest.raises(FileExistsError):
        opened(tmp_path, [])


def test_a_loader_process_opens_the_files_itself(tmp_path: Path) -> None:
    overlay = opened(tmp_path, [(1, 0, 4, 0, 5, 0)])
    sent = pickle.dumps(overlay)
    assert len(sent) - len(str(overlay.folder)) < 500
    assert pickle.loads(sent).apply(1, base(1)).tolist() == overlay.apply(1, base(1)).tolist()


def test_another_schema_is_named(tmp_path: Path) -> None:
    folder = opened(tmp_path, []).folder
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"schema": 99}))
    with pytest.raises(UserError, match="schema 99, this version reads schema 1"):
        Overlay.open(folder)
    with pytest.raises(UserError, match="no overlay in this folder"):
        Overlay.open(tmp_path)


def test_reading_an_overlay_needs_numpy_only() -> None:
    """A worker of another environment imports these; what is heavy, or the orchestrator's alone, stays out."""
    code = (
        "import sys, pretrain_exp.plan.overlay, pretrain_exp.plan.digest; "
        "own = {name.split('.')[0] for name in sys.modules}; "
        "print(sorted(own & {'pyarrow', 'scipy', 'torch', 'pydantic', 'hydra', 'pandas', 'rich'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

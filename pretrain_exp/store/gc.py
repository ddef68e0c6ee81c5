"""`pretrain-exp gc`: releases weights that no study needs any more.

Only the weights go (`checkpoint/`); a state's record, metrics and log of what was read stay, so nothing is trained
again for them and every proof can still be made. Never released: the last state of an arm (its weights exist nowhere
else), a checkpoint that a study asked for (`training.checkpoint_interval`, `additional_checkpoint_steps`,
`hub.steps`) or scores, any state of a study that has not ended, and a state that no study of this store names. So what
goes are the states where runs branched.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pretrain_exp.store.states import RELEASED, can_start, read_record, state_dir
from pretrain_exp.study.registry import read_members, read_study


def collect(store: Path, studies: Sequence[Path], *, apply: bool) -> list[str]:
    """Lists (and with `apply` releases) the weights that can go; returns their keys."""
    named: set[str] = set()
    kept: set[str] = set()
    for folder in studies:
        study = read_study(folder)
        for member in read_members(study):
            for arm in member["arms"].values():
                way = _way(store, arm["last"])
                named |= way
                # jobs of a study that has not ended may start from any state on its ways
                kept |= {arm["last"], *arm["keep"]} if study.get("ended") else way | set(arm["states"].values())
    released = sorted(key for key in named - kept if can_start(store, key))
    total = 0
    for key in released:
        size = _size(state_dir(store, key) / "checkpoint")
        total += size
        print(
            f"{'released' if apply else 'would release'} {key}, step {read_record(store, key)['step']}, {_human(size)}"
        )
        if apply:
            _release(state_dir(store, key))
    print(f"{len(released)} of {len(named)} states, {_human(total)}" + ("" if apply else "; --apply releases them"))
    return released


def _way(store: Path, last: str) -> set[str]:
    """The keys of all states on the way to `last`, by the parents that their records name."""
    found: set[str] = set()
    key: str | None = last
    while key is not None and (state_dir(store, key) / "state.json").is_file():
        found.add(key)
        key = read_record(store, key)["parent"]
    return found


def _release(folder: Path) -> None:
    """Marks first, then deletes: a state without its marker always has its weights."""
    (folder / RELEASED).write_text("weights released; record and logs kept\n")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"

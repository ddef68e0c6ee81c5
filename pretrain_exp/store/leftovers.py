"""What writers left that were killed: files and folders that were being filled, to be moved into place when whole.

    plans/.<name>.<mark>   loops/*/*/.<name>.<mark>   data/**/.<name>.<mark>   staging/<name>-<mark>
    data/tokens/<key>.parts where <key> is there       (the parts of what is still to be packed are gone on with)
    loops/*/plans/.<name>.released

The mark tells which process writes there (`store.process.mark`). Nobody can own what a process began that is gone from
this machine. Of another machine's, or of a name without a mark, nothing is known: it counts as left when nothing in it
has changed for a day. Were its writer only asleep, it would fail when it wakes; what it has published stays.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from pretrain_exp.control.loop import RELEASED
from pretrain_exp.store.process import marker_lives

_IDLE_SECONDS = 86400.0
_TEMPORARY = re.compile(r"[.-][0-9a-f]{8}(-\d+-\d+-[0-9a-f]{8})?$")


def leftovers(store: Path) -> list[Path]:
    """The files and folders of a store that no living writer can own, by path; none of them lies in another."""
    places = "plans/.*", "loops/*/*/.*", "data/**/.*", "staging/*"
    found = [path for place in places for path in store.glob(place) if _TEMPORARY.search(path.name) and _is_left(path)]
    found += [path for path in store.glob("data/tokens/*.parts") if (path.with_suffix("") / "meta.json").is_file()]
    found += store.glob(f"loops/*/plans/.*{RELEASED}")
    return [path for path in sorted(found) if not any(parent in found for parent in path.parents)]


def _is_left(path: Path) -> bool:
    lives = marker_lives(path.name)
    return time.time() - _changed(path) > _IDLE_SECONDS if lives is None else not lives


def _changed(path: Path) -> float:
    """When anything in it changed last. What is gone by now was moved into place: just now."""
    try:
        return max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:
        return time.time()

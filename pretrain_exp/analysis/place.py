"""Where a number of a study belongs: what the rows of all findings have in common, and how its variant is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

MOST_PAIRED = 4  # variants of which every two are compared
_RANGE = re.compile(r"\{start:([\d.e+-]+),end:([\d.e+-]+),unit:(share|steps|tokens)\}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """panel: the variant, "" if there is one; insertion: what was planted; evaluation, task: what was asked.

    group: "" for all items of the dose, "removed" where texts were removed and these stand for the insertion.
    """

    panel: str
    insertion: str
    evaluation: str
    task: str
    metric: str
    dose: int
    group: str = ""


def compared(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What is called "b − a" -> (a, b): every two of these variants in their order; of many each with the first."""
    pairs = list(combinations(labels, 2)) if len(labels) <= MOST_PAIRED else [(labels[0], b) for b in labels[1:]]
    return {f"{b} − {a}": (a, b) for a, b in pairs}


def short_variant(label: str) -> str:
    """ "range=steps 0 to 9" of "insertion.second.range={start:0,end:9,unit:steps}".

    The last part of each key, where that tells keys apart; a range as one would say it.
    """
    keys = re.findall(r"(?:^|, )([\w@/.]+)=", label)
    last = [key.rpartition(".")[2] for key in keys]
    for key, name in zip(keys, last, strict=True):
        if last.count(name) == 1:
            label = label.replace(f"{key}=", f"{name}=")
    return _RANGE.sub(lambda found: _said(*found.groups()), label)


def _said(start: str, end: str, unit: str) -> str:
    if unit == "share":
        return f"{100 * float(start):.4g} to {100 * float(end):.4g} % of the run"
    return f"{unit} {start} to {end}"

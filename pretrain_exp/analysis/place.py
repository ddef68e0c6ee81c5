"""Where a number of a study belongs: what the rows of all findings have in common."""

from __future__ import annotations

from dataclasses import dataclass


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

"""`scan_holdouts`: what a plan holds out, looked for in the data that the run reads; findings for its report out.

items of dose 0 --search--> every sequence of the run, before edits   (read once, kept by content)
                --search--> the sequences that edits put in the place of others
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretrain_exp.data.order import DataOrder
from pretrain_exp.insertion.scan import scan, searched
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.holdouts import Holdouts, stream_findings
from pretrain_exp.plan.overlay import BASE

VERSION = 1  # of the search; raised when it finds something else


def scanned_holdouts(
    plan: Plan, order: DataOrder, slots: range, eos_token_id: int, cache: Path | None
) -> list[dict[str, str]]:
    """One finding an insertion that holds items out; none where nothing does. slots: of the run."""
    holdouts = Holdouts.of(plan.stored_items(), eos_token_id)
    if not len(holdouts):
        return []
    found = scan(order, slots, ["holdouts", VERSION, holdouts.identity], holdouts.search, cache)
    findings = stream_findings(holdouts, found, plan.overlay, len(slots))
    arrays = plan.overlay.arrays
    sources = np.unique(np.asarray(arrays["ref"])[np.asarray(arrays["kind"]) == BASE])
    if len(sources):
        put = searched(order, sources, holdouts.search)
        where = f"the {len(sources):,} sequences that edits put in the place of others"
        findings += stream_findings(holdouts, put, None, len(sources), where)
    return findings

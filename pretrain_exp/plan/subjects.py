"""What doses are of where items are its parts: facts in several texts, documents in parts. An audit in, counts added.

fact  dose 5    text 0 three times, text 1 twice     by item: one at dose 3, one at dose 2     by subject: one at 5
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.plan.edits import Edits, Subjects


def with_subjects(audit: dict[str, Any], requests: Sequence[Edits], ledger: pa.Table) -> dict[str, Any]:
    """The audit with the subjects of insertions that have them: counts by dose, as those of items are."""
    insertions = dict(audit["insertions"])
    for request in requests:
        if request.subjects is not None:
            name = request.insertion
            mine = ledger.filter(pc.and_(pc.equal(ledger["insertion"], name), pc.equal(ledger["status"], "planted")))
            told = {"name": request.subjects.name, "doses": _doses(request.subjects, mine)}
            insertions[name] = {**insertions[name], "subjects": told}
    return {**audit, "insertions": insertions}


def _doses(subjects: Subjects, rows: pa.Table) -> dict[str, dict[str, int]]:
    found = {str(dose): {"items": 0, "edits": 0, "tokens": 0} for dose in sorted({d for _, d in subjects.of.values()})}
    for _, dose in set(subjects.of.values()):
        found[str(dose)]["items"] += 1
    for row in rows.group_by("item").aggregate([("length", "count"), ("length", "sum")]).to_pylist():
        counts = found[str(subjects.of[row["item"]][1])]
        counts["edits"] += row["length_count"]
        counts["tokens"] += row["length_sum"]
    return found

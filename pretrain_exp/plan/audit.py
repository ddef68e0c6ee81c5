"""The audit of a plan: recomputed from ledger and items, not from how they were made.

Checks: every item has exactly the dose that was asked; no two edits overlap; all lie in the window, where step, row
and column say; no holdout is planted; random positions are uniform over all valid starts of their range (chi-square
over 20 bins, Kolmogorov-Smirnov). Out: a dict for audit.json, with `ok` and findings with numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.data.phases import Phases
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import Edits, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.items import Items, runs_of
from pretrain_exp.plan.ledger import codes, items_of_rows
from pretrain_exp.plan.stretches import stretches

BINS = 20
_ALARM = 1e-3  # per plan: uniform positions raise a false warning once in a thousand plans
_FEW = 100  # positions below which no test is made: 20 bins of 5
_OF_REQUESTS = ("insertion", "placement", "uniformity")  # findings that rows and items alone do not show
CHECKS = "doses, overlaps, window, step, row and column, holdouts, uniformity of 100 random positions or more"
"""What is checked, in the words of reports and exports; findings say what was seen."""

Findings = list[dict[str, str]]


def audit_plan(
    ledger: pa.Table, items: Items, phases: Phases, window: Window, requests: Sequence[Edits] = (), rounds: int = 0,
    packed: int = 0, below: Plan | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The audit as plain values. `ok` is False where a finding has level `error`; warnings and notes leave it.

    requests: what was asked, for the ranges of random edits; without them positions are not tested for uniformity.
    below: the plan that these requests were laid upon, whose own tests stay as they are.
    """
    findings: Findings = []
    rows = _Rows(ledger)
    first, stop = phases.position_of_step(window.first_step), phases.position_of_step(window.last_step)
    _check_window(rows, phases, first, stop, findings)
    _check_overlaps(rows, findings)
    insertions = _doses(ledger, items, findings)
    _check_holdout(ledger, items, findings)
    if below is not None:
        findings += [each for each in below.audit["findings"] if each["check"] in _OF_REQUESTS]
        for name, values in below.audit["insertions"].items():
            insertions[name] = {**values, **insertions.get(name, {})}
    earlier = None if below is None else below.ledger()["position"].to_numpy()
    for name, values in _uniformity(rows, requests, earlier, phases, findings).items():
        insertions.setdefault(name, {}).update(values)
    for request in requests:
        findings += [
            {"level": "note", "check": "insertion", "message": f"{request.insertion}: {note}"} for note in request.notes
        ]
    if packed:
        text = f"{packed:,} edits found no place in {rounds:,} draws and were packed; their neighbours moved"
        findings.append({"level": "note", "check": "placement", "message": text})
    noise, total = int(rows.length[rows.noise].sum()), stop - first
    tokens = int(rows.length.sum()) - noise
    skipped, hooks = (pc.sum(pc.equal(ledger["status"], each)).as_py() or 0 for each in ("skipped", "hook"))
    return {
        "ok": not any(finding["level"] == "error" for finding in findings),
        "findings": findings,
        "edits": len(rows.position),
        "skipped": skipped,
        "hooks": hooks,
        "tokens": tokens,
        "noise_tokens": noise,
        "window_tokens": total,
        "share": tokens / total if total else 0.0,
        "first_step": int(rows.step.min()) if len(rows.step) else None,
        "last_step": int(rows.step.max()) if len(rows.step) else None,
        "rounds": rounds,
        "packed": packed,
        "insertions": insertions,
    }


class _Rows:
    """The planted rows of a ledger as arrays, sorted by position."""

    def __init__(self, ledger: pa.Table) -> None:
        status, values = codes(ledger["status"])
        self.keep = np.flatnonzero(np.array([value == "planted" for value in values], dtype=bool)[status])
        self.position, self.length, self.step, self.row, self.column = (
            ledger[name].to_numpy()[self.keep] for name in ("position", "length", "step", "row", "column")
        )
        self.insertion, self.names = codes(ledger["insertion"])
        self.insertion = self.insertion[self.keep]
        kind, kinds = codes(ledger["kind"])
        self.noise = np.array([each == "noise" for each in kinds], dtype=bool)[kind[self.keep]]
        self._ledger = ledger

    def names_of(self, which: np.ndarray) -> list[tuple[str, int]]:
        """(item, copy) of these rows."""
        chosen = self._ledger.select(["item", "copy"]).take(pa.array(self.keep[which]))
        return list(zip(chosen["item"].to_pylist(), chosen["copy"].to_pylist(), strict=True))


def _error(findings: Findings, check: str, message: str, level: str = "error") -> None:
    findings.append({"level": level, "check": check, "message": message})


def _check_window(rows: _Rows, phases: Phases, first: int, stop: int, findings: Findings) -> None:
    outside = (rows.position < first) | (rows.position + rows.length > stop)
    if outside.any():
        span = f"positions {first:,} to {stop:,}"
        _error(findings, "window", f"{int(outside.sum()):,} of {len(outside):,} edits lie outside the window, {span}")
        return
    slot, column = phases.locate(rows.position)
    step, row = phases.step_row(slot)
    wrong = (step != rows.step) | (row != rows.row) | (column != rows.column)
    if wrong.any():
        _error(findings, "address", f"{int(wrong.sum()):,} rows name another step, row or column than their position")


def _check_overlaps(rows: _Rows, findings: Findings) -> None:
    order = np.argsort(rows.position, kind="stable")
    position, stop = rows.position[order], (rows.position + rows.length)[order]
    overlaps = np.flatnonzero(stop[:-1] > position[1:])
    if len(overlaps):
        i = int(overlaps[0])
        where = f"the first at position {position[i + 1]:,}"
        _error(findings, "overlap", f"{len(overlaps):,} edits begin inside the edit before them, {where}")


def _doses(ledger: pa.Table, items: Items, findings: Findings) -> dict[str, Any]:
    """Realised against asked dose of every item; counts by insertion and dose."""
    size = items.num_rows
    table = items.columns("insertion", "item", "dose", "probe")
    row_item = items_of_rows(ledger, table)
    copy = ledger["copy"].to_numpy().astype(np.int64)
    status, values = codes(ledger["status"])
    if (row_item < 0).any():
        strangers = ledger.select(["insertion", "item"]).filter(pa.array(row_item < 0))
        count = strangers.group_by(["insertion", "item"]).aggregate([]).num_rows
        _error(findings, "items", f"{count:,} items of the ledger are not in the table of items")
    was_planted = np.array([value != "skipped" for value in values], dtype=bool)[status] & (row_item >= 0)
    # a placebo may hold several rows of one copy: copies are counted, not rows
    span = int(copy.max(initial=0)) + 1
    copies = np.unique(row_item[was_planted] * span + copy[was_planted]) // span
    realised = np.bincount(copies, minlength=size)
    left_out = np.bincount(row_item[~was_planted & (row_item >= 0)], minlength=size)
    asked = table["dose"].to_numpy().astype(np.int64)
    probe = table["probe"].to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((realised + left_out != asked) & ~probe)
    if realised[probe].any():
        text = f"{int((realised[probe] > 0).sum()):,} probes are planted, which are only scored"
        _error(findings, "dose", text)
    if len(wrong):
        i = int(wrong[0])
        example = f"item {table['item'][i]} of {table['insertion'][i]} has {realised[i]} of {asked[i]} copies"
        _error(findings, "dose", f"{len(wrong):,} of {size:,} items do not have the dose that was asked: {example}")
    if left_out.any():
        text = f"{int(left_out.sum()):,} copies of {int((left_out > 0).sum()):,} items were skipped, being too long"
        _error(findings, "skipped", text, level="warning")
    tokens = np.bincount(
        row_item[was_planted], weights=ledger["length"].to_numpy()[was_planted].astype(np.float64), minlength=size
    )
    owner, names = codes(table["insertion"])
    out: dict[str, Any] = {}
    for name in sorted(names):
        every = owner == names.index(name)
        mine = every & ~probe
        doses = {
            str(dose): {
                "items": int((mine & (asked == dose)).sum()),
                "edits": int(realised[mine & (asked == dose)].sum()),
                "tokens": int(tokens[mine & (asked == dose)].sum()),
            }
            for dose in np.unique(asked[mine]).tolist()
        }
        out[name] = {
            "items": int(mine.sum()),
            "holdout": int((mine & (asked == 0)).sum()),
            "edits": int(realised[mine].sum()),
            "skipped": int(left_out[mine].sum()),
            "tokens": int(tokens[mine].sum()),
            "doses": doses,
        }
        if every.sum() > mine.sum():
            out[name]["probes"] = int(every.sum() - mine.sum())
    return out


def _check_holdout(ledger: pa.Table, items: Items, findings: Findings) -> None:
    """No item of dose 0 is planted, by its own insertion (an error) or by another (a warning)."""
    held: list[tuple[str, str]] = []
    for batch in items.batches("insertion", "dose", "probe", "tokens"):
        chosen = batch.filter(pc.and_not(pc.equal(batch["dose"], 0), batch["probe"]))
        named = zip(chosen["insertion"].to_pylist(), runs_of(chosen), strict=True)
        held += [(name, row_digest(run).hex()) for name, run in named if len(run)]
    digests = pa.array([digest for _, digest in held], pa.string())
    plain = pc.less(ledger["source_slot"], 0)  # references to other text have digests of another kind
    rows = ledger.select(["digest", "insertion"]).filter(pc.and_(plain, pc.is_in(ledger["digest"], value_set=digests)))
    by_digest: dict[str, set[str]] = {}
    for row in rows.group_by(["digest", "insertion"]).aggregate([]).to_pylist():
        by_digest.setdefault(row["digest"], set()).add(row["insertion"])
    found = Counter((mine, other) for mine, digest in held for other in by_digest.get(digest, ()))
    for (mine, other), count in sorted(found.items()):
        text = f"{count:,} holdout items of {mine} are planted by {other}"
        _error(findings, "holdout", text, level="error" if mine == other else "warning")


def _uniformity(
    rows: _Rows, requests: Sequence[Edits], earlier: np.ndarray | None, phases: Phases, findings: Findings
) -> dict[str, dict[str, Any]]:
    """Fill of each range; whether the positions of random edits are uniform over all valid starts of their range.

    earlier: positions of rows that these requests did not ask for.
    """
    out: dict[str, dict[str, Any]] = {}
    tested = sum(request.mode == "random" and len(request) >= _FEW for request in requests)
    new = np.ones(len(rows.position), bool) if earlier is None else ~np.isin(rows.position, earlier)
    for request in requests:
        values: dict[str, Any] = {"mode": request.mode}
        out[request.insertion] = values
        if request.mode != "random":
            continue
        values |= _fill(rows, request, phases)
        if request.insertion not in rows.names:
            continue
        mine = new & (rows.insertion == rows.names.index(request.insertion))
        share = _shares(rows, np.flatnonzero(mine), request, phases)
        if (share < 0).any():
            _error(
                findings, "range", f"{int((share < 0).sum()):,} edits of {request.insertion} lie outside their range"
            )
        elif len(share) >= _FEW:
            values["uniformity"] = tests = uniformity_tests(share)
            worst = min(tests["chi_square_p"], tests["ks_p"])
            if worst < _ALARM / (2 * tested):
                what = f"the {len(share):,} positions of {request.insertion} are not uniform over their range"
                _error(findings, "uniformity", f"{what}: p = {worst:.2g}", level="warning")
    return out


def _fill(rows: _Rows, request: Edits, phases: Phases) -> dict[str, Any]:
    """Span, capacity in tokens and fill of the positions in which the edits of a request may lie."""
    spans, _ = request.ranges()
    first, stop = min(span[0] for span in spans), max(span[1] for span in spans)
    inside = np.maximum(np.minimum(rows.position + rows.length, stop) - np.maximum(rows.position, first), 0)
    capacity = stretches((first, stop), phases).tokens
    return {"span": [first, stop], "capacity": capacity, "fill": int(inside.sum()) / capacity if capacity else 0.0}


def _shares(rows: _Rows, mine: np.ndarray, request: Edits, phases: Phases) -> np.ndarray:
    """How far each edit (mine: indices of rows) lies among all valid starts of its range, 0 to 1; -1 outside of it."""
    spans, which = request.ranges()
    if len(spans) > 1:
        names = [request.items[i].id for i in request.item.tolist()]
        asked = dict(zip(zip(names, request.copy.tolist(), strict=True), which.tolist(), strict=True))
        which = np.array([asked.get(name, 0) for name in rows.names_of(mine)], dtype=np.int64)
    else:
        which = np.zeros(len(mine), dtype=np.int64)
    position, length = rows.position[mine], rows.length[mine]
    share = np.full(len(mine), -1.0)
    for i, span in enumerate(spans):
        cut = stretches(span, phases)
        here = np.flatnonzero((which == i) & (position >= span[0]) & (position + length <= span[1]))
        share[here] = (cut.index(position[here], length[here]) + 0.5) / cut.starts(length[here])
    return share


def uniformity_tests(share: np.ndarray) -> dict[str, float]:
    """Chi-square over 20 bins and one-sample Kolmogorov-Smirnov (asymptotic p) of values that should be U(0, 1)."""
    from scipy import special

    n = len(share)
    counts = np.histogram(share, bins=BINS, range=(0.0, 1.0))[0]
    chi_square = float(((counts - n / BINS) ** 2).sum() / (n / BINS))
    ordered, grid = np.sort(share), np.arange(n + 1) / n
    distance = float(max((grid[1:] - ordered).max(), (ordered - grid[:-1]).max()))
    return {
        "n": n,
        "bins": BINS,
        "chi_square": chi_square,
        "chi_square_p": float(special.chdtrc(BINS - 1, chi_square)),
        "ks": distance,
        "ks_p": float(special.kolmogorov(np.sqrt(n) * distance)),
    }

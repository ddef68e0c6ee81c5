"""What cannot be concluded, and what must be known before the numbers are read: a study in, remarks out.

error:   the numbers answer another question than the one asked (no control, data other than planned)
warning: the numbers say less than they seem to
note:    worth knowing
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pretrain_exp.analysis.design import Design
from pretrain_exp.analysis.fading import FEWEST, Scant
from pretrain_exp.analysis.metrics import metric_rank
from pretrain_exp.analysis.place import short_variant
from pretrain_exp.analysis.study import StudyData

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Remark:
    severity: str
    text: str


def limits(study: StudyData, design: Design, scant: Scant) -> list[Remark]:
    """The remarks, the worst first. scant: see fading.py."""
    found = [*_integrity(study), *_arms(design), *_seeds(study, design), *_coverage(study, design), *_fading(scant)]
    found += _folded(design)
    return sorted(found, key=lambda remark: SEVERITIES.index(remark.severity))


def count(proof: Mapping[str, Any], what: str) -> int:
    """How many mismatches, missing or duplicate rows: `num_<what>`, else the number or the list under <what>."""
    value = proof.get(f"num_{what}", proof.get(what))
    return int(value) if isinstance(value, (int, float)) else len(value or ())


def where(entry: Mapping[str, Any]) -> str:
    """'treated, seed 0, repetitions=4' of a proof or an audit."""
    parts = [
        str(entry.get("arm", "")),
        f"seed {entry['seed']}" if "seed" in entry else "",
        str(entry.get("member", "")),
    ]
    return ", ".join(part for part in parts if part)


def _integrity(study: StudyData) -> Iterator[Remark]:
    for sentence in study.status:
        yield Remark("error", str(sentence))
    for proof in study.proofs:
        if not proof["ok"]:
            found = ", ".join(f"{count(proof, key):,} {key}" for key in ("mismatches", "missing", "duplicate"))
            said = "; ".join([f"{found} rows", *proof.get("ledger_errors", ())])
            yield Remark("error", f"What was read is not what was planned ({where(proof)}): {said}.")
    if not study.proofs:
        yield Remark("warning", "No proof of what was read: the batches were not held against the plan.")
    for audit in study.audits:
        if not audit["ok"]:
            yield Remark("error", f"The audit of the plan failed ({where(audit)}): see what was changed.")
        for finding in _of_holdouts(audit):
            if finding["level"] == "warning":
                yield Remark("warning", f"Holdout items were read ({where(audit)}): {finding['message']}.")
    if any(_of_holdouts(audit) and not audit.get("searched") for audit in study.audits):
        text = (
            "Holdout items were sought in the planted texts, not in the data themselves: scan_holdouts=true seeks them."
        )
        yield Remark("note", text)
    for sentence in study.notes:
        yield Remark("note", f"{sentence}.")
    skipped = study.ledger.filter(pc.equal(study.ledger["status"], "skipped"))
    if len(skipped):
        yield Remark("warning", f"Planned edits skipped by policy: {len(skipped):,}; the ledger says which.")


def _of_holdouts(audit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The audit's findings on whether holdout items are read."""
    findings = audit.get("findings") or ()
    return [each for each in findings if isinstance(each, Mapping) and each.get("check") == "holdout"]


def _arms(design: Design) -> Iterator[Remark]:
    treated, control = design.scores.units("treated"), design.scores.units("control")
    if not treated and not design.doses.insertions and len(control) > 1:
        yield Remark("note", "No run has edits: what the runs differ by is noise, which any effect must exceed.")
    elif not treated:
        yield Remark("error", "No treated run was scored: there is no effect to report.")
    elif not control:
        yield Remark(
            "error",
            "No control: nothing tells an effect of the planted items from what this training does anyway. "
            "The only comparison is with holdout items of the same run.",
        )
    elif alone := [unit for unit in treated if design.scores.run_of("control", unit) is None]:
        yield Remark("warning", f"Treated runs without a control, in no effect: {len(alone)} of {len(treated)}.")
    if treated:
        yield from _without_holdout(design)
    if treated and not design.scores.units("placebo"):
        yield Remark("note", "No placebo arm: an effect of having other text replaced is part of the effect shown.")


def _without_holdout(design: Design) -> Iterator[Remark]:
    doses: dict[str, set[int]] = {}
    for unit, insertion in design.doses.dose:
        doses.setdefault(insertion, set()).update(design.doses.of(unit, insertion))
    everywhere = all(0 not in found for found in doses.values())
    without = sorted(insertion for insertion, found in doses.items() if found and 0 not in found)
    if doses and (everywhere or without):
        of = "" if everywhere else f" of {', '.join(without)}"
        yield Remark(
            "warning", f"No holdout items (dose 0){of}: whether an effect reaches items never read cannot be said."
        )


def _seeds(study: StudyData, design: Design) -> Iterator[Remark]:
    seeds = sorted({unit.seed for unit in design.scores.units("treated")})
    if not seeds:
        return
    varying = [name for name in ("placement", "order", "init") if len(set(study.varies.get(name, ()))) > 1]
    if len(seeds) == 1:
        yield Remark(
            "warning",
            f"One seed ({seeds[0]}): no between-run interval can be given. Intervals and p values speak about other "
            "items scored by these same runs; another training run may differ by more.",
        )
        return
    if study.varies and not varying:
        yield Remark("warning", "No seed varies between the runs: their spread is not run-to-run variance.")
    elif varying == ["placement"]:
        yield Remark(
            "warning",
            "Only the placement varies: intervals are over placements of the edits in one data order from one initial "
            f"model; run-to-run variance of training is not in them.{_official_order(study)}",
        )
    elif varying:
        rest = [name for name in ("placement", "order", "init") if name in study.varies and name not in varying]
        held = f"; held fixed: {' and '.join(rest)}" if rest else ""
        yield Remark("note", f"Intervals over seeds are over {' and '.join(varying)}{held}.")
    if _one_control(design):
        yield Remark(
            "warning", "One control run serves all seeds: its own chance is in every effect and not in the intervals."
        )
    if len(seeds) == 2:
        yield Remark(
            "note", "Two seeds: the t interval has one degree of freedom and is about 6.5 times as wide as with many."
        )


def _official_order(study: StudyData) -> str:
    """What can be done where the order brings a seed of its own, so that seed.order is none of the study's seeds."""
    if "order" in study.varies:
        return ""
    return " The order is the official one; training.permute_window=true varies it among these steps by seed.order."


def _one_control(design: Design) -> bool:
    """Whether all seeds of a variant are held against one control, given once or the same scores under every seed."""
    for panel in design.panels:
        runs = {unit.seed: run for unit in panel.units if (run := design.scores.run_of("control", unit)) is not None}
        if len(runs) > 1 and len({design.scores.originals[run] for run in runs.values()}) == 1:
            return True
    return False


def _coverage(study: StudyData, design: Design) -> Iterator[Remark]:
    if invalid := sum(design.scores.invalid.values()):
        yield Remark("warning", f"Scores that are not finite, left out: {invalid:,}.")
    for insertion, (missing, wanted) in design.doses.unscored.items():
        if missing == wanted:
            yield Remark("warning", f"Nothing of {insertion} was scored: none of its {wanted:,} items or probes.")
        else:
            yield Remark("note", f"Of {insertion}, {missing:,} of {wanted:,} items or probes were not scored.")
    if design.doses.shared:
        yield Remark(
            "warning", f"Items in two insertions: {design.doses.shared:,}; the effect of each holds the other's."
        )
    yield from _ungrouped(design)
    yield from _unpaired(design)
    if len(design.panels) > 1:
        names = ", ".join(short_variant(panel.label) or "(unnamed)" for panel in design.panels)
        yield Remark("note", f"{len(design.panels)} variants are analysed apart and then compared: {names}.")
    if any(len({unit.member for unit in panel.units}) > 1 for panel in design.panels):
        yield Remark("note", "Variants that differ in their doses alone are analysed together as one dose-response.")
    if study.varies and len(study.results) == 0:
        yield Remark("error", "No evaluation gave a result.")


def _fading(scant: Scant) -> Iterator[Remark]:
    for insertion, (effects, distances) in scant.items():
        if effects < FEWEST[0] or distances < FEWEST[1]:
            yield Remark(
                "note",
                f"How the effect of {insertion} fades is not shown: it needs {FEWEST[0]} scores of items after their "
                f"last reading in each seed, at {FEWEST[1]} distances from it; there are {effects:,}, at "
                f"{distances:,}. Add evaluation.steps after the last reading.",
            )


def _folded(design: Design) -> Iterator[Remark]:
    """Where the metrics are that are not shown first."""
    shown, rest = {(insertion, series.metric) for _, insertion, series in design.shown()}, dict[str, set[str]]()
    for _, insertion, series in design.measured():
        if (insertion, series.metric) not in shown:
            rest.setdefault(insertion, set()).add(series.metric)
    same: dict[tuple[str, ...], list[str]] = {}
    for insertion, metrics in rest.items():
        same.setdefault(tuple(sorted(metrics, key=metric_rank)), []).append(insertion)
    for names, insertions in same.items():
        yield Remark(
            "note",
            f"Effects of {', '.join(insertions)} in {', '.join(names)} stand in the folded tables of the page, in "
            "effects.csv and in results.parquet; bootstrap, spread, fading, codes and agreement of scales are of the "
            "metrics that are shown first.",
        )


def _ungrouped(design: Design) -> Iterator[Remark]:
    most: dict[str, int] = {}
    for panel, insertion, series in design.measured():
        most[insertion] = max(most.get(insertion, 0), design.ungrouped(panel, insertion, series))
    for insertion, n in most.items():
        if n:
            yield Remark("note", f"Of {insertion}, {n:,} items have no group, where others have: in no row of a group.")


def _unpaired(design: Design) -> Iterator[Remark]:
    lost = 0
    for panel in design.panels:
        for unit in panel.units:
            for series in design.scores.series:
                treated, control = (design.at_end(series, unit, arm) for arm in ("treated", "control"))
                if treated is not None and control is not None:
                    lost += int((np.isnan(treated) != np.isnan(control)).sum())
                elif treated is not None and design.scores.run_of("control", unit):
                    lost += int((~np.isnan(treated)).sum())
    if lost:
        yield Remark("warning", f"Scores without a partner in the control at the same step, in no effect: {lost:,}.")

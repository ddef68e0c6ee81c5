"""The report as one page: analysis and pictures in, self-contained HTML out (nothing is loaded from elsewhere)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.exposures import of_facts
from pretrain_exp.analysis.limits import where
from pretrain_exp.analysis.scores import ASIDE
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.plan.audit import CHECKS
from pretrain_exp.report.agreement_table import agreement_table
from pretrain_exp.report.control_figures import control_tables
from pretrain_exp.report.finding_tables import finding_tables
from pretrain_exp.report.matrix_tables import dependence_table, floor_table
from pretrain_exp.report.pictures import Saved, slug
from pretrain_exp.report.response_table import response_table
from pretrain_exp.report.study_tables import changed_table, pairs_table, power_table, proof_table
from pretrain_exp.report.tables import Table, effect_tables, side_effect_table

FINDINGS = {
    "membership": "Membership",
    "facts": "Planted facts",
    "control": "Closed loops",
    "forgetting": "Forgetting",
    "learned": "When items were learned",
    "watermark": "Trace of planted noise",
}
EXAMPLES_OPEN = 3  # examples of planted text shown at once; the others are folded


def render(study: StudyData, analysis: Analysis, pictures: Sequence[Saved]) -> str:
    """The page. Everything that comes from data is escaped; pictures are set in as SVG."""
    loader = PackageLoader("pretrain_exp.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    effects, scores = list(effect_tables(analysis)), analysis.design.scores
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        study=study,
        answers=analysis.answers,
        remarks=analysis.remarks,
        facts=facts(study, analysis),
        style=style,
        script=script,
        examples_open=EXAMPLES_OPEN,
        pictures=_by_section(pictures),
        hero=_hero(pictures, analysis),
        findings=_sections(pictures, study, analysis),
        data_tables=sorted(analysis.findings.tables()),
        effects=[t for t in effects if not t.folded] + _present(agreement_table(analysis.agreements, scores)),
        more_effects=[t for t in effects if t.folded],
        changed=changed_table(study),
        side_effects=side_effect_table(analysis),
        response=response_table(analysis),
        dependence=[dependence_table(matrix, scores) for matrix in analysis.matrices],
        floor=floor_table(analysis.floors, scores),
        power=power_table(analysis),
        proof=proof_table(study),
        checks=CHECKS,
        audits=[(where(audit), bool(audit["ok"]), _findings(audit)) for audit in study.audits],
        cost=pairs_table("Cost", study.cost),
        reproduce=_present(
            pairs_table("Seeds", {name: ", ".join(map(str, values)) for name, values in study.varies.items()}),
            pairs_table("Fingerprints", study.fingerprints),
            pairs_table("Versions", study.versions),
        ),
    )


def facts(study: StudyData, analysis: Analysis) -> list[tuple[str, str]]:
    """The size of the study in a few words."""
    scores = analysis.design.scores
    arms = {arm: len(scores.units(arm)) for arm in ("treated", "control", "placebo")}
    seeds = sorted({unit.seed for unit in scores.units("treated") or scores.units("control")})
    found = [("seeds", ", ".join(map(str, seeds)) if len(seeds) <= 6 else str(len(seeds)))]
    found.append(("runs scored", ", ".join(f"{n} {arm}" for arm, n in arms.items() if n)))
    asked = study.items.filter(pc.not_equal(study.items["group"], ASIDE))  # pools are only drawn from
    items = pc.count_distinct(of_facts(asked)["item"]).as_py()
    if items:
        found.append(("items", f"{items:,}"))
    planted = pc.sum(pc.equal(study.ledger["status"], "planted")).as_py()
    if planted:
        found.append(("edits", f"{planted:,}"))
    if study.proofs:
        good = sum(bool(proof["ok"]) for proof in study.proofs)
        found.append(("read as planned", f"{good} of {len(study.proofs)} runs"))
    return found


def _hero(pictures: Sequence[Saved], analysis: Analysis) -> Saved | None:
    """The picture that stands below the answer: of variants, else of the metric and the place that answer."""
    drawn = [p for p in pictures if p.picture.section in ("variants", "dose_response", "noise")]
    row = analysis.headline
    if row is None or not drawn:
        return drawn[0] if drawn else None
    return max(drawn, key=lambda p: _fits(p, row))


def _fits(saved: Saved, row: Estimate) -> tuple[bool, int]:
    """Whether it compares variants, and how many parts of its name tell of this row; the first of equals counts."""
    name = saved.picture.name
    parts = (row.insertion, row.evaluation, row.task, row.panel)
    fitting = (name.startswith(f"dose_response-{row.metric}"), *(slug(part) in name for part in parts))
    return saved.picture.section == "variants", sum(fitting)


def _sections(
    pictures: Sequence[Saved], study: StudyData, analysis: Analysis
) -> list[tuple[str, str, list[Saved], list[Table]]]:
    """(id, heading, pictures, tables) of the findings that this study has."""
    tables, drawn = finding_tables(analysis) | {"control": control_tables(study.control)}, _by_section(pictures)
    found = [(name, heading, drawn[name], tables.get(name, [])) for name, heading in FINDINGS.items()]
    return [section for section in found if section[2] or section[3]]


def _by_section(pictures: Sequence[Saved]) -> dict[str, list[Saved]]:
    sections: dict[str, list[Saved]] = {
        name: []
        for name in ("variants", "dose_response", "effects", "dependence", "noise", "changed", "training", *FINDINGS)
    }
    for saved in pictures:
        sections[saved.picture.section].append(saved)
    return sections


def _findings(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(level, message) of each finding, given as a mapping or as a plain sentence."""
    found: Iterable[Any] = audit.get("findings") or ()
    return [
        (str(f.get("level", "note")), str(f.get("message", f))) if isinstance(f, Mapping) else ("note", str(f))
        for f in found
    ]


def _present(*tables: Table | None) -> list[Table]:
    return [table for table in tables if table is not None]

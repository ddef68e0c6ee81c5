"""The preview of a plan: its audit in, what `pretrain-exp plan` prints out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pretrain_exp.plan.folder import Plan

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def preview(plan: Plan, densities: Mapping[str, str] | None = None) -> list[RenderableType]:
    """Edits by insertion and dose, ranges and how full they are, tokens and share changed, steps, and the audit.

    densities: of the insertions that have one, by name.
    """
    audit = plan.audit
    parts: list[RenderableType] = [_summary(plan)]
    if audit["insertions"]:
        parts += [_doses([("", audit["insertions"])]), _ranges([("", audit["insertions"])], [densities or {}])]
    return [*parts, *audit_lines(plan)]


def previews(plans: Sequence[Plan], names: Sequence[str], densities: Sequence[Mapping[str, str]]) -> list[Table]:
    """The same of several plans, findings aside: a row for each where they differ, doses that are alike once.

    names: what each plan is of; densities: as in `preview`. Plans are numbered from 0.
    """
    table = Table(title="plans", title_justify="left")
    for column in ("", "of", "plan", "steps with edits"):
        table.add_column(column, overflow="fold")
    for column in ("edits", "tokens", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, (plan, name) in enumerate(zip(plans, names, strict=True)):
        audit = plan.audit
        steps = f"{audit['first_step']:,} to {audit['last_step']:,}" if audit["edits"] else "none"
        counts = (f"{audit['edits']:,}", f"{audit['tokens']:,}", _share(audit["share"]))
        table.add_row(str(number), escape(name), plan.fingerprint[:8], steps, *counts)
    whose: dict[str, list[int]] = {}
    for number, plan in enumerate(plans):
        whose.setdefault(repr(_dose_rows(plan.audit["insertions"])), []).append(number)
    alike = [(", ".join(map(str, some)), plans[some[0]].audit["insertions"]) for some in whose.values()]
    if len(alike) == 1:
        alike = [("", alike[0][1])]
    return [
        table,
        _doses(alike),
        _ranges([(str(number), plan.audit["insertions"]) for number, plan in enumerate(plans)], densities),
    ]


def _summary(plan: Plan) -> Table:
    audit, window = plan.audit, plan.window
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("plan", f"{plan.fingerprint}  (arm {escape(plan.arm)}, seed {plan.seed})")
    table.add_row("run", f"steps {window.first_step:,} to {window.last_step:,}, {audit['window_tokens']:,} tokens")
    if audit["edits"]:
        table.add_row("edits", f"{audit['edits']:,} in steps {audit['first_step']:,} to {audit['last_step']:,}")
    else:
        table.add_row("edits", "none")
    table.add_row("changed", f"{audit['tokens']:,} tokens, {_share(audit['share'])} of the run")
    for name, what in _beside(audit):
        table.add_row(name, what)
    return table


def _beside(audit: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a plan does other than to plant tokens."""
    if audit["noise_tokens"]:
        yield "noise", f"on the embeddings of {audit['noise_tokens']:,} tokens, which stay"
    if audit["hooks"]:
        yield "hooks", f"{audit['hooks']:,} steps whose gradient gets noise"
    if audit["skipped"]:
        yield "skipped", f"{audit['skipped']:,} copies"


def beside_lines(plan: Plan) -> list[Text]:
    """A line for each thing that a plan does other than to plant tokens."""
    return [Text(f"{name}: {what}") for name, what in _beside(plan.audit)]


def _dose_rows(insertions: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, values in insertions.items():
        told = values.get("subjects", values)
        shown = f"{name} ({told['name']})" if "subjects" in values else name
        for dose, counts in sorted(told.get("doses", {}).items(), key=lambda pair: int(pair[0])):
            label = f"{dose} (holdout)" if dose == "0" else dose
            rows.append([escape(shown), label, *(f"{counts[each]:,}" for each in ("items", "edits", "tokens"))])
    return rows


def _doses(audited: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    """audited: which plans, "" where there is no other, and the insertions of their audit."""
    table = Table(title="edits by insertion and dose", title_justify="left")
    marks = _marked(table, audited)
    table.add_column("insertion")
    for name in ("dose", "items", "edits", "tokens"):
        table.add_column(name, justify="right")
    for mark, insertions in audited:
        for row in _dose_rows(insertions):
            table.add_row(*([mark] if marks else []), *row)
    return table


def _ranges(audited: Sequence[tuple[str, dict[str, Any]]], densities: Sequence[Mapping[str, str]]) -> Table:
    table = Table(title="where", title_justify="left")
    marks = _marked(table, audited)
    for name in ("insertion", "mode, density", "positions"):
        table.add_column(name, overflow="fold")
    for name in ("capacity", "fill", "chi-square p", "KS p"):
        table.add_column(name, justify="right")
    for (mark, insertions), density in zip(audited, densities, strict=True):
        for name, values in insertions.items():
            table.add_row(*([mark] if marks else []), escape(name), *_range(values, density.get(name, "")))
    return table


def _range(values: dict[str, Any], density: str) -> list[str]:
    if values.get("mode") != "random":
        return [values.get("mode", "other text"), "", "", "", "", ""]
    tests = values.get("uniformity", {})
    p_values = (f"{tests[each]:.3f}" if tests else "too few" for each in ("chi_square_p", "ks_p"))
    first, stop = values["span"]
    mode = f"random, {escape(density)}" if density else "random"
    return [mode, f"{first:,} to {stop:,}", f"{values['capacity']:,}", f"{values['fill']:.4f}", *p_values]


def _marked(table: Table, audited: Sequence[tuple[str, dict[str, Any]]]) -> bool:
    """A column for which plans a row is of, where it is not of all."""
    marks = any(mark for mark, _ in audited)
    if marks:
        table.add_column("of plan", overflow="fold")
    return marks


def finding_lines(findings: Iterable[Mapping[str, str]]) -> list[Text]:
    """A line each."""
    return [Text(f"  {each['level']}: {each['message']}", _STYLES[each["level"]]) for each in findings]


def audit_lines(plan: Plan) -> list[Text]:
    """The verdict of the audit, and what it found."""
    verdict = Text("audit: passed", "green") if plan.audit["ok"] else Text("audit: failed", "bold red")
    return [verdict, *finding_lines(plan.audit["findings"])]


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"

"""The preview of a plan: its audit in, what `pretrain-exp plan` prints out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pretrain_exp.plan.folder import Plan

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def preview(plan: Plan) -> list[RenderableType]:
    """Edits by insertion and dose, ranges and how full they are, tokens and share changed, steps, and the audit."""
    audit = plan.audit
    parts: list[RenderableType] = [_summary(plan)]
    if audit["insertions"]:
        parts += [_doses(audit["insertions"]), _ranges(audit["insertions"])]
    return [*parts, *_findings(audit)]


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
    if audit["noise_tokens"]:
        table.add_row("noise", f"on the embeddings of {audit['noise_tokens']:,} tokens, which stay")
    if audit["hooks"]:
        table.add_row("hooks", f"{audit['hooks']:,} steps whose gradient gets noise")
    if audit["skipped"]:
        table.add_row("skipped", f"{audit['skipped']:,} copies")
    return table


def _doses(insertions: dict[str, Any]) -> Table:
    table = Table(title="edits by insertion and dose", title_justify="left")
    table.add_column("insertion")
    for name in ("dose", "items", "edits", "tokens"):
        table.add_column(name, justify="right")
    for name, values in insertions.items():
        told = values.get("subjects", values)
        shown = f"{name} ({told['name']})" if "subjects" in values else name
        for dose, counts in sorted(told.get("doses", {}).items(), key=lambda pair: int(pair[0])):
            label = f"{dose} (holdout)" if dose == "0" else dose
            table.add_row(escape(shown), label, *(f"{counts[each]:,}" for each in ("items", "edits", "tokens")))
    return table


def _ranges(insertions: dict[str, Any]) -> Table:
    table = Table(title="where", title_justify="left")
    for name in ("insertion", "mode", "positions"):
        table.add_column(name)
    for name in ("capacity", "fill", "chi-square p", "KS p"):
        table.add_column(name, justify="right")
    for name, values in insertions.items():
        if values.get("mode") != "random":
            table.add_row(escape(name), values.get("mode", "other text"), "", "", "", "", "")
            continue
        tests = values.get("uniformity", {})
        p_values = (f"{tests[each]:.3f}" if tests else "too few" for each in ("chi_square_p", "ks_p"))
        first, stop = values["span"]
        span = f"{first:,} to {stop:,}"
        table.add_row(escape(name), "random", span, f"{values['capacity']:,}", f"{values['fill']:.4f}", *p_values)
    return table


def finding_lines(findings: Iterable[Mapping[str, str]]) -> list[Text]:
    """A line each."""
    return [Text(f"  {each['level']}: {each['message']}", _STYLES[each["level"]]) for each in findings]


def _findings(audit: dict[str, Any]) -> list[Text]:
    verdict = Text("audit: passed", "green") if audit["ok"] else Text("audit: failed", "bold red")
    return [verdict, *finding_lines(audit["findings"])]


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"

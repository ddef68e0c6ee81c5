"""Several studies side by side: analysed studies and their configurations in, one page out.

    <folder>/comparison.html   headline effects with intervals, configurations' differences, all effects joined
             effects.csv       one row an estimate, all studies
             figures/          <name>.png, <name>.svg, <name>.csv
             summary.json      titles, answers, headlines

Studies are never pooled: each keeps its own interval, and nothing here tests one against another. Rows are joined where
insertion, evaluation and task, metric and unit, group and dose agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.answer import outcome_name
from pretrain_exp.analysis.estimate import Estimate, to_json, to_table
from pretrain_exp.analysis.metrics import Metric, metric_rank
from pretrain_exp.analysis.outcomes import headline
from pretrain_exp.analysis.scores import REMOVED
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.axes import difference_axis, forest, forest_height, times_read, which
from pretrain_exp.report.chosen import main_rows, of_shown_metrics
from pretrain_exp.report.folder import replaced
from pretrain_exp.report.html import facts
from pretrain_exp.report.pictures import VARIANT_COLOURS, Picture, Saved, save, slug
from pretrain_exp.report.tables import DASH, Cell, Column, Table
from pretrain_exp.store.states import write_json

SCHEMA = 1
MOST_VALUE = 80  # characters of a configuration's value that are shown


@dataclass(frozen=True)
class Compared:
    """A study of a comparison. name: what tells it apart; config: of each of its members, as they were composed."""

    name: str
    study: StudyData
    analysis: Analysis
    configs: Sequence[Mapping[str, Any]]


def write_comparison(studies: Sequence[Compared], folder: Path) -> Path:
    """Writes the page of two studies or more and returns its path; an earlier comparison in `folder` is replaced."""
    with replaced(folder) as fresh:
        figures = fresh / "figures"
        figures.mkdir()
        saved = [save(picture, figures) for picture in comparison_pictures(studies)]
        (fresh / "comparison.html").write_text(_render(studies, saved), encoding="utf-8")
        tables = []
        for one in studies:
            table = to_table(one.analysis.estimates)
            tables.append(table.add_column(0, "study", pa.array([one.name] * len(table), pa.string())))
        pa.csv.write_csv(pa.concat_tables(tables), fresh / "effects.csv")
        write_json(fresh / "summary.json", {"schema": SCHEMA, "studies": [_summary(one) for one in studies]})
    return folder / "comparison.html"


def _summary(one: Compared) -> dict[str, Any]:
    row = one.analysis.headline
    return {
        "name": one.name,
        "title": one.study.title,
        "answers": one.analysis.answers,
        "headline": None if row is None else to_json(row),
    }


def _render(studies: Sequence[Compared], saved: Sequence[Saved]) -> str:
    loader = PackageLoader("pretrain_exp.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("report.css", "report.js"))
    return environment.get_template("comparison.html.j2").render(
        studies=[(one, facts(one.study, one.analysis)) for one in studies],
        style=style,
        script=script,
        pictures=saved,
        effects=joined_effects(studies),
        differs=differing(studies),
    )


def headlines(one: Compared) -> list[Estimate]:
    """The rows that answer a study, one for each panel and insertion."""
    places = dict.fromkeys((row.panel, row.insertion) for row in one.analysis.estimates if row.dose is not None)
    found = (headline(one.analysis.estimates, one.analysis.relevance, *place) for place in places)
    return [row for row in found if row is not None]


def comparison_pictures(studies: Sequence[Compared]) -> list[Picture]:
    """One forest of headline effects for each metric that answers a study, and each unit that it has."""
    groups: dict[tuple[str, Metric], list[tuple[Compared, Estimate]]] = {}
    for one in studies:
        for row in headlines(one):
            groups.setdefault((row.metric, one.analysis.design.scores.metric(row.metric)), []).append((one, row))
    names = [name for name, _ in groups]
    return [
        _forest(slug("headline", name, *([m.unit or "raw"] if names.count(name) > 1 else [])), m, mine)
        for (name, m), mine in groups.items()
    ]


def _labels(mine: Sequence[tuple[Compared, Estimate]]) -> list[str]:
    """The study and variant of each row, and what was planted and asked where the rows differ in it."""
    asked = [(row.insertion, outcome_name(row.evaluation, row.task)) for _, row in mine]
    return [
        ", ".join(filter(None, (one.name, row.panel, *which(about, asked), times_read(row.dose or 0, row.group))))
        for (one, row), about in zip(mine, asked, strict=True)
    ]


def _forest(file: str, m: Metric, mine: Sequence[tuple[Compared, Estimate]]) -> Picture:
    labels = _labels(mine)

    def draw(all_axes: Sequence[Axes]) -> None:
        axes = all_axes[0]
        values = [(row.estimate, row.low, row.high) for _, row in mine]
        forest(axes, labels, [(m.label, VARIANT_COLOURS[0], values)], 0.0)
        difference_axis(axes.xaxis, m)
        axes.set_xlabel(f"effect on {m.with_unit()}")

    methods = ", ".join(dict.fromkeys(row.method for _, row in mine))
    data = pa.Table.from_pylist([{"study": one.name, **to_json(row)} for one, row in mine])
    return Picture(
        file, "comparison", f"Effects on {m.label}",
        f"The row that answers each study, with its own 95 % interval: {methods}. Studies are not pooled.",
        data, draw, heights=(forest_height(labels),),
    )  # fmt: skip


def joined_effects(studies: Sequence[Compared]) -> Table:
    """Treated − control of headline metrics, one column a study."""
    by: dict[tuple[str, str, str, Metric, str, int], dict[int, list[Estimate]]] = {}
    for index, one in enumerate(studies):
        rows = [
            row for row in one.analysis.estimates
            if row.contrast == "treated_vs_control" and row.dose is not None and row.scope in ("run", "seeds")
        ]  # fmt: skip
        for row in main_rows(
            of_shown_metrics(rows), lambda r: (r.panel, r.insertion, r.evaluation, r.task, r.metric, r.group, r.dose)
        ):
            asked, m = outcome_name(row.evaluation, row.task), one.analysis.design.scores.metric(row.metric)
            key = row.insertion, asked, row.metric, m, row.group, row.dose or 0
            by.setdefault(key, {}).setdefault(index, []).append(row)
    labels = ("Insertion", "Task", "Metric", "Group")
    own = [i for i, place in enumerate((0, 1, 2, 4)) if place == 2 or len({key[place] for key in by}) > 1]
    columns = [
        *(Column(labels[i], number=False) for i in own), Column("Times read"), *(Column(one.name) for one in studies)
    ]  # fmt: skip
    cells = []
    for key in sorted(by, key=lambda k: (k[0], k[1], metric_rank(k[2]), k[3].unit, *k[4:])):
        insertion, asked, _, m, group, dose = key
        named = (Cell(insertion), Cell(asked), Cell(m.label, m.label, note=m.unit), Cell(group or "all"))
        read = REMOVED if group == REMOVED else "holdout" if dose == 0 else f"{dose:,}"
        line = [*(named[i] for i in own), Cell(read, dose)]
        line += [_effects(by[key].get(index, []), m) for index in range(len(studies))]
        cells.append(line)
    caption = (
        "Treated − control on the same items with the study's own interval; n is of item scores. Several values in a "
        "cell: variants or seeds of that study."
    )
    return Table("Effects side by side", columns, cells, caption)


def _effects(rows: Sequence[Estimate], m: Metric) -> Cell:
    if not rows:
        return Cell(DASH, float("-inf"))
    parts, notes = [], []
    for row in rows:
        where = ", ".join(filter(None, (row.panel, f"seed {row.seed}" if row.scope == "run" and len(rows) > 1 else "")))
        parts.append(f"{where}: {m.difference(row.estimate)}" if where else m.difference(row.estimate))
        notes.append(f"{m.interval(row.low, row.high)}; n = {row.n:,}")
    return Cell("; ".join(parts), rows[0].estimate, note=" | ".join(notes))


def differing(studies: Sequence[Compared]) -> Table | None:
    """The keys of the configurations whose values are not the same in every study; None where there are none."""
    flat = [_values(one.configs) for one in studies]
    keys = sorted({key for each in flat for key in each})
    cells = []
    for key in keys:
        values = [each.get(key, DASH) for each in flat]
        if len(set(values)) > 1:
            cells.append([Cell(key, key), *(Cell(_cut(value), value) for value in values)])
    if not cells:
        return None
    columns = [Column("Key", number=False), *(Column(one.name, number=False) for one in studies)]
    caption = "Values that a study's members differ in stand behind each other. A dash: the key is not there."
    return Table("What differs between their configurations", columns, cells, caption)


def _values(configs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Dotted key -> its values over the members of a study, in order, each once."""
    found: dict[str, list[str]] = {}
    for config in configs:
        for key, value in _flat("", config):
            said = str(value)
            if said not in found.setdefault(key, []):
                found[key].append(said)
    return {key: " | ".join(values) for key, values in found.items()}


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        return [(prefix, value)]
    return [pair for key, one in value.items() for pair in _flat(f"{prefix}.{key}" if prefix else str(key), one)]


def _cut(value: str) -> str:
    return value if len(value) <= MOST_VALUE else value[: MOST_VALUE - 1] + "…"

"""The page: what it must say, that it stands alone, that data cannot break it, and that a browser opens it."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from rich.console import Console
from studies import simulated_study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.study import RESULTS, StudyData
from pretrain_exp.plan.audit import CHECKS
from pretrain_exp.report.html import render
from pretrain_exp.report.tables import effect_tables
from pretrain_exp.report.terminal import print_report
from pretrain_exp.report.write import write_report

SMALL: dict[str, Any] = {"items": 100, "curve_steps": 40}
CASES: dict[str, dict[str, Any]] = {
    "three seeds": {},
    "one seed": {"seeds": (0,)},
    "placebo": {"placebo": True},
    "steps": {"steps": (0, 100, 300), "seeds": (0, 1)},
    "dose sweep": {"members": ("repetitions=1", "repetitions=4", "repetitions=16", "repetitions=64")},
    "condition sweep": {"members": ("lr=0.001", "lr=0.0003"), "sweep": "condition", "seeds": (0, 1)},
    "no control": {"control": False},
    "two doses": {"doses": (0, 4)},
    "no effect": {"effect": 0.0},
    "no curves": {"curve_steps": 0},
}


class Tags(HTMLParser):
    """Every tag with its attributes, and whether tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "hr", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(study: StudyData, folder: Path) -> str:
    return write_report(study, folder / "report").html.read_text()


def bare(study: StudyData) -> str:
    """The page without its pictures."""
    return render(study, analyse(study, resamples=0), [])


def printed(study: StudyData) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - lives as long as the console
    print_report(study, console)
    return console.export_text()


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_study_has_a_whole_page(name: str, tmp_path: Path) -> None:
    study = simulated_study(**(SMALL | CASES[name]))
    analysis = analyse(study)
    text = page(study, tmp_path)
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.seen[0][0] == "html"
    for answer in analysis.answers:
        assert answer.replace("<", "&lt;") in text
    for remark in analysis.remarks:
        assert remark.text in text
    shown = printed(study).replace("\n", " ")
    assert re.sub(r"\s+", " ", analysis.answers[0]) in re.sub(r"\s+", " ", shown)
    assert ">nan<" not in text


def test_what_the_terminal_leaves_to_the_page_is_counted() -> None:
    study = simulated_study(**SMALL)
    analysis = analyse(study, resamples=0)
    said = re.sub(r"\s+", " ", printed(study))
    assert f"On the page as well: {len(list(effect_tables(analysis))) - 2} more tables of effects." in said
    assert f"Audit of the plan: {len(study.audits)} of {len(study.audits)} passed (checked: {CHECKS})." in said


def test_a_script_of_ones_own_is_told_in_the_terminal() -> None:
    study = simulated_study(**SMALL, perplexity=False, seeds=(0,))
    rows = [
        ("script", "mine", f"q{i}", "my_score", float(i + (arm == "treated")), arm, 0, 300, "")
        for arm in ("treated", "control")
        for i in range(4)
    ]
    columns = zip(RESULTS, zip(*rows, strict=True), strict=True)
    own = pa.table([pa.array(values, column.type) for column, values in columns], RESULTS)
    said = printed(dataclasses.replace(study, results=pa.concat_tables([study.results, own])))
    table = said.partition("What was not planted")[2]
    assert "script: mine" in table
    assert "my_score" in table
    assert "script: mine" not in printed(study)


@pytest.mark.parametrize(("number", "less", "tables"), [(2, 1, 2), (3, 2, 3), (5, 1, 2)])
def test_variants_stand_against_each_other_in_the_terminal(number: int, less: int, tables: int) -> None:
    """In the order typed, every two of few; tables of effects of each of few, and a line says what is left."""
    values = ("b", "c", "a", "e", "d")[:number]
    members = [f"density={value}" for value in values]
    study = simulated_study(items=60, curve_steps=0, perplexity=False, seeds=(0, 1), members=members, sweep="condition")
    said = re.sub(r"\s+", " ", printed(study))
    compared = said.partition("Variants against each other: accuracy")[2].partition("Against control")[0]
    assert "density=c density=b 64" in compared
    assert len(set(re.findall(r"density=\w (density=\w) 64 ", compared))) == less
    drawn = re.findall(r"Against control, the same items: accuracy \((density=\w), planted\)", said)
    assert drawn == members[:tables]
    assert f"more tables of effects, of all {number} variants." in said


@pytest.mark.parametrize(("name", "unit"), [("nll", " [nats]"), ("own", "")])
def test_a_loss_is_no_proportion_in_any_table(name: str, unit: str) -> None:
    """In the tables of each seed as in those over seeds."""
    study = simulated_study(**SMALL, seeds=(0, 1))
    names = [name if metric == "margin" else metric for metric in study.results["metric"].to_pylist()]
    at = study.results.column_names.index("metric")
    analysis = analyse(dataclasses.replace(study, results=study.results.set_column(at, "metric", [names])))
    label = analysis.design.scores.metric(name).label
    tables = [table for table in effect_tables(analysis) if table.title.endswith(f": {label}")]
    assert {table.title.startswith("Each seed") for table in tables} == {True, False}
    sizes = {row.estimate for row in analysis.estimates if row.metric == name}
    for table in tables:
        (column,) = (i for i, column in enumerate(table.columns) if column.label == f"Difference{unit}")
        for row in table.rows:
            assert float(row[column].text.replace("−", "-")) == pytest.approx(row[column].sort, abs=0.006)
            assert row[column].sort in sizes


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(simulated_study(**SMALL), tmp_path_factory.mktemp("page"))


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    tags = Tags()
    tags.feed(html)
    for tag, attributes in tags.seen:
        assert not (tag == "script" and "src" in attributes)
        for key in ("src", "href", "xlink:href"):
            target = attributes.get(key) or "#"
            assert target.startswith(("#", "data:", "figures/")), (tag, target)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_ids_of_figures_and_contents_lead_somewhere(html: str) -> None:
    ids = re.findall(r'<(?:figure|section) id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'<a href="#([^"]+)"', html):
        assert target in ids


def test_light_dark_and_paper(html: str) -> None:
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    svg = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svg) == 7
    for drawing in svg:
        assert "var(--ink)" in drawing
        assert "#222222" not in drawing
        assert "viewBox" in drawing
        assert 'role="img"' in drawing


def test_what_comes_from_data_cannot_break_the_page() -> None:
    study = simulated_study(**SMALL)
    evil = "</script><script>alert(1)</script>"
    example = {**study.examples[0], "planted": evil, "before": "<b>", "after": "&amp;"}
    data = dataclasses.replace(
        study, title=evil, question=evil, command=evil, examples=[example], status=[evil], versions={evil: evil}
    )
    text = bare(data)
    assert "alert(1)" in text
    assert "<script>alert(1)" not in text
    assert '<span class="around">&lt;b&gt;</span><mark>&lt;/script&gt;' in text


def test_the_planted_text_stands_in_its_surroundings(html: str) -> None:
    study = simulated_study(**SMALL)
    for example in study.examples[:3]:
        planted = example["planted"].replace("'", "&#39;")
        assert f'{example["before"]}</span><mark>{planted}</mark><span class="around">{example["after"]}' in html


def test_reproduction_is_on_the_page(html: str) -> None:
    study = simulated_study(**SMALL)
    assert f"<pre><code>{study.command}</code></pre>" in html
    for value in [*study.fingerprints.values(), *study.versions.values(), "7,372,800"]:
        assert str(value) in html


@pytest.mark.parametrize("ok", [True, False])
def test_a_failed_proof_is_at_the_top(ok: bool) -> None:
    study = simulated_study(**SMALL)
    proofs = [{**study.proofs[0], "mismatches": 0 if ok else 2, "ok": ok}, *study.proofs[1:]]
    data = dataclasses.replace(study, proofs=proofs)
    text = bare(data)
    head = text[: text.index("<nav")]
    assert ("What was read is not what was planned" in head) is not ok
    assert ("not as planned" in text) is not ok
    assert (f"{5 if not ok else 6} of 6 runs" in printed(data)) is True


def test_a_study_without_scores_still_has_a_page(tmp_path: Path) -> None:
    study = StudyData(title="t", question="q", results=RESULTS.empty_table(), status=["eval/lm_eval failed"])
    text = page(study, tmp_path)
    assert "No answer: no planted item was scored in a treated run." in text
    assert "eval/lm_eval failed" in text


def test_only_perplexity(tmp_path: Path) -> None:
    study = simulated_study(**SMALL)
    results = study.results.filter(pa.compute.equal(study.results["evaluation"], "perplexity"))
    text = page(dataclasses.replace(study, results=results, items=None, ledger=None), tmp_path)
    assert "What was not planted" in text
    assert "Nothing was planted." in text


@pytest.mark.parametrize(
    ("change", "varies", "words"),
    [
        ({"control": False}, None, "No control: nothing tells an effect of the planted items"),
        ({"seeds": (0,)}, None, "One seed (0): no between-run interval can be given."),
        ({}, {"placement": [0, 1, 2], "order": [0], "init": [0]}, "Only the placement varies"),
    ],
)
def test_what_cannot_be_concluded_is_said_before_anything_else(
    change: dict[str, Any], varies: dict[str, list[int]] | None, words: str
) -> None:
    """On the page between the answer and the contents, and in the terminal; not where it does not hold."""
    plain = simulated_study(**SMALL)
    study = simulated_study(**(SMALL | change))
    study = dataclasses.replace(study, varies=varies) if varies else study
    head = bare(study)
    assert words in head[: head.index("<nav")]
    assert words in re.sub(r"\s+", " ", printed(study))
    assert words not in bare(plain)


def test_without_control_it_stands_above_the_answer_in_the_terminal() -> None:
    said = printed(simulated_study(**SMALL, control=False))
    assert said.index("! No control") < said.index("Reading an item")
    page = bare(simulated_study(**SMALL, control=False))
    assert '<li class="error"><b>Error.</b>No control' in page


def test_variants_are_drawn_apart(tmp_path: Path) -> None:
    members = tuple(f"insertion.benchmark_contamination.window=[{i}, {i + 9}]" for i in range(3))
    study = simulated_study(**SMALL, members=members, sweep="condition", seeds=(0, 1))
    figures = write_report(study, tmp_path / "report").figures
    for name, column in (("placement", "variant"), ("variants-acc", "panel")):
        table = pyarrow.csv.read_csv(figures / f"{name}.csv")
        assert set(table[column].to_pylist()) == set(members)
    drawn = (figures / "placement.svg").read_text()
    for member in members:
        assert member.rpartition(".")[2] in drawn  # window=[0, 9]: the part that tells them apart


def test_the_picture_of_variants_shows_a_metric_that_moves(tmp_path: Path) -> None:
    """Accuracy is 0 in both arms of every variant: cross-entropy is drawn."""
    study = simulated_study(**SMALL, members=("lr=1", "lr=2"), sweep="condition", seeds=(0, 1))
    floor = pa.compute.if_else(pa.compute.equal(study.results["metric"], "acc"), 0.0, study.results["value"])
    flat = dataclasses.replace(study, results=study.results.set_column(4, "value", floor))
    figures = write_report(flat, tmp_path / "report").figures
    assert (figures / "variants-gold_ce.png").is_file()
    assert not (figures / "variants-acc.png").exists()

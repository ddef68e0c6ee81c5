"""What answers stands first, what says nothing stands last, and where there is no spread none is claimed."""

from __future__ import annotations

import dataclasses
import io

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from outcome_studies import canaries, facts, table
from rich.console import Console

from pretrain_exp.analysis.analyse import Analysis, analyse
from pretrain_exp.analysis.study import RESULTS, StudyData
from pretrain_exp.report.by_dose_tables import by_dose_tables
from pretrain_exp.report.dose_figures import dose_pictures
from pretrain_exp.report.finding_tables import finding_tables
from pretrain_exp.report.study_tables import changed_table, power_table
from pretrain_exp.report.tables import effect_tables
from pretrain_exp.report.terminal import print_report


@pytest.fixture(scope="module")
def never_right() -> tuple[StudyData, Analysis]:
    """Facts whose probes are never answered: accuracy is 0 in both arms."""
    study = dataclasses.replace(facts(seeds=(0,), facts_a_dose=8), measured_by={"knowledge": ["knowledge"]})
    is_acc = pc.equal(study.results["metric"], "acc")
    value = pc.if_else(is_acc, 0.0, study.results["value"])
    study = dataclasses.replace(study, results=study.results.set_column(4, "value", value))
    return study, analyse(study, resamples=0)


def test_outcomes_that_answer_stand_first_and_those_that_are_0_everywhere_are_folded(
    never_right: tuple[StudyData, Analysis],
) -> None:
    tables = [t for t in effect_tables(never_right[1]) if t.title.startswith("Against control")]
    keys = [t.key for t in tables]
    assert keys[:2] == ["target_logprob", "target_logprob"]
    assert "memorization" in tables[0].title
    assert keys.index("acc") == keys.index("target_prob") + 2, "after all that says something"
    assert all(t.folded for t in tables if t.key == "acc")
    names = [picture.name for picture in dose_pictures(never_right[1]) if picture.section == "dose_response"]
    assert names[0].startswith("dose_response-target_logprob")
    assert "memorization" in names[0]
    assert not any("-acc" in name for name in names)


def test_no_spread_is_no_power(never_right: tuple[StudyData, Analysis]) -> None:
    table = power_table(never_right[1])
    assert table is not None
    by_metric = {row[1].text: [cell.text for cell in row] for row in table.rows}
    assert by_metric["accuracy"][-4:] == ["–", "cannot be estimated", "–", "cannot be estimated"]
    assert by_metric["log-probability of its value"][-3] not in ("–", "cannot be estimated")
    assert not any(cell.text == "0.0" for row in table.rows for cell in row)


def test_log_probability_by_dose_in_the_terminal(never_right: tuple[StudyData, Analysis]) -> None:
    study, analysis = never_right
    (by_dose,) = by_dose_tables(analysis).values()
    assert finding_tables(analysis)["facts"][0] == by_dose
    assert [row[1].text for row in by_dose.rows] == ["holdout", "4", "16"] * 2
    for row in by_dose.rows:
        (effect,) = [
            e for e in analysis.estimates
            if (e.contrast, e.metric, e.task, e.dose)
            == ("treated_vs_control", "target_logprob", row[0].text, row[1].sort)
        ]  # fmt: skip
        assert row[5].sort == effect.estimate
    printed = Console(width=140, file=io.StringIO())
    print_report(study, printed, analysis)
    said = printed.file.getvalue()
    assert by_dose.title in said
    assert "accuracy" not in said[: said.index(by_dose.title)]
    assert "Against control" not in said, "the table by dose says it"


@pytest.mark.parametrize("control", [True, False])
def test_exposure_of_members_and_holdout_by_dose(control: bool) -> None:
    study = canaries(seeds=(0,), a_cell=8, doses=(0, 4, 16), control=control)
    rows = study.results.filter(pc.equal(study.results["metric"], "min_k_pp")).to_pylist()
    exposed = [
        ("exposure", *[row[name] for name in RESULTS.names[1:3]], "exposure", *list(row.values())[4:]) for row in rows
    ]
    results = pa.concat_tables([study.results, table(RESULTS, exposed)])
    found = finding_tables(analyse(dataclasses.replace(study, results=results), resamples=20))
    shown = found["membership"][0]
    assert shown.title.startswith("Exposure of canaries")
    labels = [column.label for column in shown.columns]
    assert ("Beyond holdout" in labels) is control
    assert [label for label in labels if "[bits]" in label] == [
        "Control [bits]" if control else "Holdout [bits]", "Treated [bits]"
    ]  # fmt: skip
    doses = {row[1].text for row in shown.rows}
    assert doses == ({"holdout", "4", "16"} if control else {"4", "16"})


def test_what_was_planted_is_told_by_fact() -> None:
    study = facts(seeds=(0,), facts_a_dose=3)
    shown = changed_table(study)
    assert shown is not None
    assert [[cell.text for cell in row[1:5]] for row in shown.rows] == [
        ["holdout", "3", "1", "0"],
        ["4", "3", "1", "12"],
        ["16", "3", "1", "48"],
    ]


@pytest.mark.parametrize("labels", [("x=b", "x=a"), ("x=a", "x=b")])
def test_variants_stand_in_the_order_typed(labels: tuple[str, str]) -> None:
    one = facts(seeds=(0,), facts_a_dose=8)
    tables = {}
    for name in ("results", "items", "ledger"):
        whole = getattr(one, name)
        at = whole.column_names.index("member")
        named = [whole.set_column(at, "member", pa.array([label] * len(whole), pa.string())) for label in labels]
        tables[name] = pa.concat_tables(named)
    analysis = analyse(dataclasses.replace(one, **tables), resamples=0)
    (by_dose,) = by_dose_tables(analysis).values()
    assert list(dict.fromkeys(row[0].text for row in by_dose.rows)) == list(labels)

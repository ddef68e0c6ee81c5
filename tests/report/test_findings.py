"""Findings of simulated studies with a known truth: what is reported is what was simulated, and nothing elsewhere."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from outcome_studies import STEPS, TOKENS_A_STEP, canaries, facts, fading, noise
from rich.console import Console
from studies import simulated_study

from pretrain_exp.analysis.analyse import Analysis, analyse
from pretrain_exp.analysis.fading import BEYOND
from pretrain_exp.analysis.membership import auc
from pretrain_exp.analysis.separations import MINUS
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.finding_tables import finding_tables
from pretrain_exp.report.html import render
from pretrain_exp.report.terminal import print_report
from pretrain_exp.report.write import write_report

LEAN = {"items": 60, "curve_steps": 0, "perplexity": False}


@pytest.fixture(scope="module")
def attacked() -> Analysis:
    return analyse(canaries(), resamples=200)


def rows(found: list, **where: object) -> list:
    return [row for row in found if all(getattr(row, key) == value for key, value in where.items())]


def test_members_stand_out_by_dose_and_condition(attacked: Analysis) -> None:
    found = attacked.findings.separations
    over = {"metric": "min_k_pp", "seed": None, "measure": "auc"}
    by_dose = [r.estimate for r in rows(found, group="", scores="treated", **over)]
    assert by_dose == sorted(by_dose)
    assert len(by_dose) == 3
    (rare,) = rows(found, group="rare tokens", dose=16, scores="treated", **over)
    (dialogue,) = rows(found, group="dialogue", dose=16, scores="treated", **over)
    assert rare.estimate > dialogue.estimate + 0.05
    for row in rows(found, group="", scores="control", **over):
        assert abs(row.estimate - 0.5) < 0.08
    (paired,) = rows(found, group="", dose=16, scores=MINUS, **over)
    (plain,) = rows(found, group="", dose=16, scores="treated", **over)
    assert paired.estimate > plain.estimate  # the difficulty of a text is taken out
    assert len(rows(found, group="", dose=16, scores="treated", metric="min_k", seed=None)) == 3  # AUC and two TPRs


def test_an_auc_is_that_of_its_own_items(attacked: Analysis) -> None:
    study = canaries()
    table, plan = study.results.to_pandas(), study.items.to_pandas()
    mine = table[(table.metric == "min_k") & (table.arm == "treated") & (table.seed == 1)].merge(
        plan[plan.seed == 1][["item", "dose", "group"]], on="item"
    )
    members, others = (mine[(mine.dose == d) & (mine.group == "dialogue")].value.to_numpy() for d in (4, 0))
    (row,) = rows(
        attacked.findings.separations, metric="min_k", seed=1, group="dialogue", dose=4, scores="treated", measure="auc"
    )
    assert row.estimate == pytest.approx(auc(members, others))
    assert (row.members, row.others, row.resampling_seed) == (len(members), len(others), 1)
    assert row.low < row.estimate < row.high


def test_a_rate_that_too_few_others_can_show_is_flagged(attacked: Analysis) -> None:
    coarse = [r for r in attacked.findings.separations if r.fpr == 0.001 and r.seed is not None]
    assert coarse
    assert all("the smallest rate above 0 is" in row.flag for row in coarse)


@pytest.mark.parametrize("half_life", [100_000.0, 300_000.0])
def test_a_half_life_is_found_again(half_life: float) -> None:
    found = analyse(fading(half_life=half_life), resamples=0).findings
    (row,) = rows(found.fades, curve="exponential", seed=None, metric="ce", dose=1)
    assert row.unit == "tokens"
    assert row.low < half_life < row.high
    points = rows(found.faded, seed=None, metric="ce")
    assert [p.distance for p in points] == sorted(p.distance for p in points)
    for point in points:
        assert point.effect == pytest.approx(-(0.5 ** (point.distance / half_life)), abs=0.12)
        left = (1 - 1e-3 * 0.1) ** (point.distance / TOKENS_A_STEP)
        assert point.weight_left == pytest.approx(left, rel=1e-3)
    assert max(p.distance for p in points) <= STEPS * TOKENS_A_STEP


def test_a_half_life_that_was_not_seen_is_marked() -> None:
    (table, *_) = finding_tables(analyse(fading(half_life=10 * STEPS * TOKENS_A_STEP), resamples=0))["forgetting"]
    beyond = [cell for row in table.rows for cell in row if cell.note == BEYOND]
    assert beyond
    assert all(cell.text.endswith(" †") for cell in beyond)
    assert table.caption.endswith(f"† {BEYOND}.")


def test_a_curve_that_needs_more_states_is_asked_for() -> None:
    remarks = analyse(simulated_study(**(LEAN | {"items": 50}), steps=(0, 300)), resamples=0).remarks
    assert any("How the effect of benchmark_contamination fades is not shown" in remark.text for remark in remarks)


def test_without_a_log_distances_are_steps_and_no_bound_is_given() -> None:
    study = dataclasses.replace(fading(seeds=(0,)), curves=None, weight_decay={})
    found = analyse(study, resamples=0).findings
    assert {row.unit for row in found.fades} == {"steps"}
    assert all(math.isnan(point.weight_left) for point in found.faded)
    (row,) = rows(found.fades, curve="exponential")
    assert row.half_life == pytest.approx(200_000 / TOKENS_A_STEP, rel=0.15)


def test_only_planted_noise_in_the_treated_run_leaves_a_trace() -> None:
    found = analyse(noise(), resamples=0).findings.watermarks
    for row in found:
        if row.seed is None:
            continue
        if row.null_must_hold:
            assert row.ks_p > 0.001
        else:
            assert (row.noise, row.arm) == ("planted", "treated")
            assert row.ks_p < 1e-6
            assert row.high < 0
            assert row.tpr_low > 0.01
    (over,) = rows(found, seed=None, noise="planted", arm="treated")
    assert over.mean == pytest.approx(-0.8, abs=0.15)


def test_codes_and_their_recurrence() -> None:
    study = simulated_study(**(LEAN | {"items": 200}), steps=(0, 100, 200, 300))
    found = analyse(study, resamples=0).findings
    for arm, dose in {(row.arm, row.dose) for row in found.codes}:
        mine = rows(found.codes, arm=arm, dose=dose, seed=0)
        assert sum(row.share for row in mine) == pytest.approx(1)
    learned = {
        dose: sum(r.share for r in rows(found.codes, arm="treated", dose=dose, seed=0) if r.code.startswith("learned"))
        for dose in (0, 64)
    }
    assert learned[64] > learned[0] + 0.3
    assert [row.step for row in found.recurrences] == [0, 100, 200, 300]
    assert {row.runs for row in found.recurrences} == {3}
    assert all(row.again < 0.6 for row in found.recurrences if row.again == row.again)  # noise: another run disagrees
    one = analyse(simulated_study(**LEAN, seeds=(0,), steps=(0, 300)), resamples=0).findings
    assert one.recurrences == []
    assert one.codes


def test_one_evaluated_step_has_no_codes() -> None:
    found = analyse(simulated_study(**LEAN), resamples=0).findings
    assert not found.codes
    assert set(found.tables()) <= {"forgetting", "forgetting_curves"}


@pytest.mark.parametrize(
    ("make", "sections", "tables"),
    [
        (partial(canaries, a_cell=12, doses=(0, 4)), {"membership"}, {"membership"}),
        (fading, {"forgetting"}, {"forgetting", "forgetting_curves"}),
        (noise, {"watermark"}, {"watermark"}),
        (
            partial(facts, facts_a_dose=5),
            {"facts", "forgetting"},
            {"knowledge_traces", "knowledge_effectivity", "knowledge_decay"},
        ),
    ],
)
def test_each_finding_is_on_the_page_in_the_terminal_and_in_files(
    make: Callable[..., StudyData], sections: set[str], tables: set[str], tmp_path: Path
) -> None:
    study = make(seeds=(0, 1))
    paths = write_report(study, tmp_path / "report", analyse(study, resamples=50))
    page = paths.html.read_text()
    shown = finding_tables(paths.analysis)
    assert sections <= set(shown)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - lives as long as the console
    print_report(study, console, paths.analysis)
    printed = console.export_text()
    for section in sections:
        assert f'<section id="{section}">' in page
        assert f'<a href="#{section}">' in page
        drawn = [p.name for p in (tmp_path / "report" / "figures").glob(f"{section}*")]
        assert {name.rpartition(".")[2] for name in drawn} == {"png", "svg", "csv"}
        for table in shown[section]:
            assert table.title.replace("'", "&#39;") in page
            assert table.folded or table.title in printed
            assert all(len(row) == len(table.columns) for row in table.rows)
            assert not any(
                cell.text in ("nan", "None") or "nan" in cell.text.split() for row in table.rows for cell in row
            )
    for name in tables:
        table = pyarrow.csv.read_csv(tmp_path / "report" / "tables" / f"{name}.csv")
        assert len(table) == len(paths.analysis.findings.tables()[name]) > 0
        assert f"tables/{name}.csv" in page


def test_a_study_without_such_data_has_no_such_sections(tmp_path: Path) -> None:
    study = simulated_study(items=20, curve_steps=0, seeds=(0,))
    page = render(study, analyse(study, resamples=0), [])
    for section in ("membership", "facts", "forgetting", "learned", "watermark"):
        assert f'id="{section}"' not in page
    assert "tables/" not in page


def test_a_shift_of_all_scores_moves_no_auc() -> None:
    study = canaries(seeds=(0,))
    value = study.results["value"].to_numpy() + np.where(
        study.results["metric"].to_numpy(zero_copy_only=False) == "min_k", 5, 0
    )
    moved = dataclasses.replace(study, results=study.results.set_column(4, "value", [value]))
    first, second = (
        rows(analyse(one, resamples=0).findings.separations, metric="min_k", measure="auc") for one in (study, moved)
    )
    assert [r.estimate for r in first] == [r.estimate for r in second]
    assert all(math.isnan(r.low) for r in first)  # no resamples were asked for

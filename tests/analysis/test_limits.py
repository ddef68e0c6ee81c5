"""What the report says of itself: every limit is named when it is there, and only then."""

from typing import Any

import pyarrow as pa
import pytest
from tiny import PROOF, design, items, results, study

from pretrain_exp.analysis.fading import Scant
from pretrain_exp.analysis.limits import limits

DOSES = [0, 0, 4, 4]
_FOUND = {"level": "warning", "check": "holdout", "message": "2 of 9 holdout items of a stand whole"}
READ_HOLDOUT = {"arm": "treated", "seed": 1, "ok": True, "findings": [_FOUND]}
RUN = {"treated": [1, 0, 1, 1], "control": [0, 1, 0, 1], "placebo": [1, 0, 0, 1]}


def remarks(
    arms: tuple[str, ...] = ("treated", "control", "placebo"),
    seeds: tuple[int, ...] = (0, 1, 2),
    doses: list[int] = DOSES,
    shared_control: bool = False,
    scant: Scant | None = None,
    **fields: Any,
) -> dict[str, str]:
    """text -> severity of a study that is whole but for what is asked."""
    scores = {
        ("", arm, seed): [float(seed == 1 and not (shared_control and arm == "control")), *RUN[arm][1:]]
        for arm in arms
        for seed in seeds
    }
    varies = {"placement": list(seeds), "order": list(seeds), "init": [0]}
    data = study(results(scores), items({("", s): doses for s in seeds}), **({"varies": varies} | fields))
    return {remark.text: remark.severity for remark in limits(data, design(data), scant or {})}


def test_metrics_that_are_folded_are_named() -> None:
    scores = {("", arm, 0): [float(value) for value in RUN[arm]] for arm in ("treated", "control")}
    table = pa.concat_tables([results(scores, metric) for metric in ("own", "acc_norm", "acc", "tokens")])
    data = study(table, items({("", 0): DOSES}))
    found = [remark.text for remark in limits(data, design(data), {}) if "folded" in remark.text]
    assert len(found) == 1
    assert found[0].startswith("Effects of plant in acc_norm, own stand in the folded tables")


def severity(found: dict[str, str], words: str) -> str | None:
    return next((s for text, s in found.items() if words in text), None)


@pytest.mark.parametrize(
    ("change", "words", "expected"),
    [
        ({"arms": ("treated",)}, "No control", "error"),
        ({"arms": ("control",)}, "No treated run", "error"),
        ({"arms": ("treated", "control")}, "No placebo arm", "note"),
        ({"notes": ["verbatim: 3 texts are too short"]}, "verbatim: 3 texts are too short.", "note"),
        ({"scant": {"plant": (10, 4)}}, "needs 30 scores of items after their last reading in each seed", "note"),
        ({"seeds": (0,)}, "no between-run interval can be given", "warning"),
        ({"seeds": (0, 1)}, "one degree of freedom", "note"),
        ({"varies": {"placement": [0, 1, 2], "order": [0]}}, "Only the placement varies", "warning"),
        ({"varies": {"placement": [0, 1, 2]}}, "The order is the official one", "warning"),
        ({"varies": {"placement": [0], "order": [0]}}, "No seed varies", "warning"),
        ({"shared_control": True}, "One control run serves all seeds", "warning"),
        ({"doses": [4, 4, 4, 4]}, "No holdout items", "warning"),
        ({"proofs": []}, "No proof of what was read", "warning"),
        ({"proofs": [{**PROOF, "mismatches": 3, "ok": False}]}, "treated, seed 0): 3 mismatches", "error"),
        ({"proofs": [{**PROOF, "mismatches": [{}, {}], "ok": False}]}, "2 mismatches", "error"),
        ({"proofs": [{**PROOF, "num_missing": 700, "missing": [(0, 1)], "ok": False}]}, "700 missing", "error"),
        ({"proofs": [{**PROOF, "ledger_errors": ["row 3 is torn"], "ok": False}]}, "rows; row 3 is torn.", "error"),
        (
            {"audits": [{"arm": "treated", "seed": 1, "ok": False}]},
            "audit of the plan failed (treated, seed 1)",
            "error",
        ),
        ({"audits": [READ_HOLDOUT]}, "Holdout items were read (treated, seed 1): 2 of 9", "warning"),
        ({"audits": [READ_HOLDOUT]}, "not in the data themselves: scan_holdouts=true", "note"),
        ({"status": ["lm_eval failed: no such task"]}, "lm_eval failed", "error"),
    ],
)
def test_every_limit_is_named(change: dict[str, Any], words: str, expected: str) -> None:
    assert severity(remarks(**change), words) == expected
    assert severity(remarks(), words) is None


def test_data_that_were_searched_are_not_called_unsearched() -> None:
    assert severity(remarks(audits=[READ_HOLDOUT | {"searched": True}]), "not in the data themselves") is None


def test_holdout_items_are_missed_for_each_insertion_and_a_control_is_not_lent_to_another_variant() -> None:
    scores = {("", arm, seed): RUN[arm] for arm in RUN for seed in (0, 1)}
    planted = [items({("", seed): of for seed in (0, 1)}, insertion=name) for name, of in (("a", DOSES), ("b", [4]))]
    data = study(results(scores), pa.concat_tables(planted))
    found = [remark.text for remark in limits(data, design(data), {})]
    assert any(text.startswith("No holdout items (dose 0) of b: ") for text in found)

    variants = {("lr=1", "control", 0): RUN["control"]} | {(f"lr={k}", "treated", 0): RUN["treated"] for k in (1, 2)}
    data = study(results(variants), items({(f"lr={k}", 0): DOSES for k in (1, 2)}))
    found = [remark.text for remark in limits(data, design(data), {})]
    assert "Treated runs without a control, in no effect: 1 of 2." in found


def test_one_control_for_all_seeds_of_a_variant_is_named_though_another_has_its_own() -> None:
    runs = {(f"lr={k}", "treated", seed): RUN["treated"] for k in (1, 2) for seed in (0, 1)}
    own = {("lr=1", "control", seed): RUN["control"] for seed in (0, 1)} | {("lr=2", "control", 0): RUN["placebo"]}
    planted = items({(f"lr={k}", seed): DOSES for k in (1, 2) for seed in (0, 1)})
    said = [[remark.text for remark in limits(data, design(data), {})]
            for other in (RUN["treated"], RUN["placebo"])
            for data in [study(results(runs | own | {("lr=2", "control", 1): other}), planted)]]  # fmt: skip
    assert [severity(dict.fromkeys(found, "said"), "One control run serves all seeds") for found in said] == [
        "said"
    ] * 2


def test_a_whole_study_says_only_over_what_its_intervals_are() -> None:
    assert remarks() == {"Intervals over seeds are over placement and order; held fixed: init.": "note"}


def test_the_worst_comes_first() -> None:
    found = list(remarks(arms=("treated",), seeds=(0,), status=["x failed"]).values())
    assert found == sorted(found, key=["error", "warning", "note"].index)


def test_skipped_edits_scores_without_partner_and_scores_that_are_not_finite() -> None:
    ledger = pa.table(
        {
            "member": [""], "seed": [0], "insertion": ["plant"], "item": ["i0"], "dose": [4], "step": [0],
            "length": [9], "status": ["skipped"],
        }
    )  # fmt: skip
    scores = results({("", "treated", 0): [1, 0, float("nan"), 1], ("", "control", 0): [1, 0, 1]})
    data = study(scores, items({("", 0): DOSES}), ledger=ledger)
    found = {remark.text: remark.severity for remark in limits(data, design(data), {})}
    assert severity(found, "skipped by policy: 1;") == "warning"
    assert severity(found, "in no effect: 2.") == "warning"
    assert severity(found, "not finite, left out: 1.") == "warning"

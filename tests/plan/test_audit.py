"""The audit: what it says of a sound plan, and every kind of damage that it must find."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.plan.audit import audit_plan
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.items import Items
from pretrain_exp.plan.ledger import LEDGER_SCHEMA
from pretrain_exp.plan.show import preview, previews


def requests() -> list[Edits]:
    return [edits("a", [5, 9, 4], [30, 100, 0]), edits("b", [6], 2, positions=[SPAN[0] + 7, SPAN[1] - 6])]


@pytest.fixture
def tables(tmp_path: Path) -> tuple[pa.Table, Items]:
    # explicit copies get one position each
    plan = compile_plan(requests(), PHASES, WINDOW, 0, "treated", tmp_path)
    return plan.ledger(), plan.stored_items()


def audited(ledger: pa.Table, items: Items) -> dict:
    return audit_plan(ledger, items, PHASES, WINDOW, requests())


def test_a_sound_plan(tables: tuple[pa.Table, Items]) -> None:
    audit = audited(*tables)
    assert audit["ok"]
    assert audit["findings"] == []
    assert (audit["edits"], audit["tokens"], audit["window_tokens"]) == (132, 30 * 5 + 100 * 9 + 12, 6400)
    assert audit["share"] == pytest.approx(1062 / 6400)
    a = audit["insertions"]["a"]
    assert a["doses"]["100"] == {"items": 1, "edits": 100, "tokens": 900}
    assert a["doses"]["0"] == {"items": 1, "edits": 0, "tokens": 0}
    assert (a["holdout"], a["capacity"], a["mode"]) == (1, 6400, "random")
    assert a["fill"] == pytest.approx(1062 / 6400)
    assert 0 < a["uniformity"]["ks_p"] <= 1
    assert audit["insertions"]["b"]["mode"] == "explicit"


Damage = Callable[[list[dict]], None]


def _move(rows: list[dict], i: int, to: int) -> None:
    slot, column = (int(each[0]) for each in PHASES.locate(pa.array([to]).to_numpy()))
    rows[i] |= {"position": to, "step": slot // 4, "row": slot % 4, "column": column}


@pytest.mark.parametrize(
    ("damage", "check", "level"),
    [
        (lambda rows: rows.pop(3), "dose", "error"),
        (lambda rows: rows.append(rows[50] | {"copy": 100}), "dose", "error"),
        (lambda rows: rows.append(rows[3]), "overlap", "error"),
        (lambda rows: _move(rows, 3, rows[2]["position"] + 1), "overlap", "error"),
        (lambda rows: _move(rows, 3, SPAN[1] - 2), "window", "error"),
        (lambda rows: _move(rows, 3, SPAN[0] - 1), "window", "error"),
        (lambda rows: rows[4].update(row=rows[4]["row"] ^ 1), "address", "error"),
        (lambda rows: rows[4].update(step=rows[4]["step"] + 1), "address", "error"),
        (lambda rows: rows[4].update(column=rows[4]["column"] + 1), "address", "error"),
        (lambda rows: rows[4].update(item="stranger"), "items", "error"),
        (lambda rows: [row.update(status="skipped") for row in rows[:2]], "skipped", "warning"),
    ],
)
def test_every_damage_is_found(tables: tuple[pa.Table, Items], damage: Damage, check: str, level: str) -> None:
    ledger, items = tables
    rows = ledger.to_pylist()
    damage(rows)
    audit = audited(pa.Table.from_pylist(rows, LEDGER_SCHEMA), items)
    assert (check, level) in [(finding["check"], finding["level"]) for finding in audit["findings"]]
    assert audit["ok"] == (level != "error")


def test_positions_that_are_not_uniform_are_a_warning(tables: tuple[pa.Table, Items]) -> None:
    asked = [replace(requests()[0], span=(SPAN[0], SPAN[1] + 20_000)), requests()[1]]
    audit = audit_plan(*tables, PHASES, WINDOW, asked)
    assert audit["ok"]
    assert [finding["check"] for finding in audit["findings"]] == ["uniformity"]
    assert "the 130 positions of a are not uniform" in audit["findings"][0]["message"]


def test_an_edit_outside_its_range(tables: tuple[pa.Table, Items]) -> None:
    audit = audit_plan(*tables, PHASES, WINDOW, [replace(requests()[0], span=(SPAN[0] + 640, SPAN[1]))])
    assert [finding["check"] for finding in audit["findings"]] == ["range"]


@pytest.mark.parametrize(("same", "level"), [(True, "error"), (False, "warning")])
def test_a_planted_holdout_is_found(tmp_path: Path, same: bool, level: str) -> None:
    asked = edits("a", [5, 7], [3, 0])
    twin = asked.items[0].tokens
    if same:
        asked = replace(asked, items=[asked.items[0], replace(asked.items[1], tokens=twin)])
        plan = compile_plan([asked], PHASES, WINDOW, 0, "treated", tmp_path)
    else:
        other = replace(edits("b", [5], 0), items=[replace(edits("b", [5], 0).items[0], tokens=twin)])
        plan = compile_plan([asked, other], PHASES, WINDOW, 0, "treated", tmp_path)
    findings = [(each["check"], each["level"]) for each in plan.audit["findings"] if each["level"] != "note"]
    assert findings == [("holdout", level)]
    assert f"1 holdout items of {'a' if same else 'b'} are planted by a" in plan.audit["findings"][0]["message"]


def test_notes_and_packing_are_told(tmp_path: Path) -> None:
    request = replace(
        edits("a", [8] * 380, 1, (SPAN[0], SPAN[0] + 100 * S), on_full="pack"), notes=["two files are one"]
    )
    plan = compile_plan([request], PHASES, WINDOW, 0, "treated", tmp_path)
    messages = [finding["message"] for finding in plan.audit["findings"] if finding["level"] == "note"]
    assert "a: two files are one" in messages
    assert any("found no place in 500 draws and were packed" in message for message in messages)
    assert plan.audit["packed"] > 0


def test_the_preview_prints_the_numbers(tmp_path: Path) -> None:
    from rich.console import Console

    request = replace(requests()[0], notes=["a [note] in brackets"])
    plan = compile_plan([request, requests()[1]], PHASES, WINDOW, 0, "treated", tmp_path)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in preview(plan):
        console.print(part)
    text = console.export_text()
    for expected in ("132 in steps 10 to 59", "1,062 tokens, 16.6 %", "0 (holdout)", "1,280 to 7,680", "audit: passed"):
        assert expected in text
    assert "a [note] in brackets" in text


def test_several_plans_are_shown_by_what_tells_them_apart(tmp_path: Path) -> None:
    from rich.console import Console

    plans = [compile_plan(requests(), PHASES, WINDOW, seed, "treated", tmp_path) for seed in (0, 1)]
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    name = next(iter(plans[0].audit["insertions"]))
    for part in previews(plans, ["even seed 0", "late seed 1"], [{name: "uniform"}, {name: "late"}]):
        console.print(part)
    members, doses, where = re.split("edits by insertion and dose|where", console.export_text())
    assert all(word in members for word in ("even seed 0", "late seed 1", *(plan.fingerprint[:8] for plan in plans)))
    assert "of plan" not in doses  # they are alike
    assert "0 (holdout)" in doses
    assert re.search(r"│ 0 +│ \S+ +│ random, uniform +│", where)
    assert re.search(r"│ 1 +│ \S+ +│ random, late +│", where)
    doubled = [plans[0], compile_plan(requests()[:1], PHASES, WINDOW, 1, "treated", tmp_path)]
    for part in previews(doubled, ["a", "b"], [{}, {}]):
        console.print(part)
    assert console.export_text().count("of plan") == 2  # doses and places differ


def test_the_preview_of_an_empty_plan(tmp_path: Path) -> None:
    plan = compile_plan([], PHASES, WINDOW, 0, "control", tmp_path)
    assert len(preview(plan)) == 2

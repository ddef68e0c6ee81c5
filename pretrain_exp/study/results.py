"""From a study's files to its report: what was scored, planted, read and spent, gathered by the keys in its records.

    member.json -> states on the way of each arm -> metrics, reads;  evals/<state>/<fingerprint>/items.parquet;  plan

Nothing here needs the process that ran the study, so a report can be made again at any time.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from pretrain_exp.analysis.analyse import Analysis
from pretrain_exp.analysis.loops import loops_of, planted, told, with_mean_doses
from pretrain_exp.analysis.study import CURVES, StudyData
from pretrain_exp.control.table import control_rows
from pretrain_exp.data.order import order_from_json
from pretrain_exp.data.phases import Phases
from pretrain_exp.data.tokenizer import Tokenizer, load
from pretrain_exp.plan.folder import Plan
from pretrain_exp.store.states import is_complete, read_record, state_dir, write_json
from pretrain_exp.study.further import further_results
from pretrain_exp.study.measured import measuring
from pretrain_exp.study.registry import read_members, read_study
from pretrain_exp.study.unfinished import unfinished
from pretrain_exp.tracking.metrics import read_metrics

EXAMPLES = 6  # planted texts that a report shows
CONTEXT = 24  # tokens shown on either side of one


def states_on_way(store: Path, last: str) -> list[str]:
    """The keys of the states from the first to `last`, by the parents that their records name."""
    keys = []
    key: str | None = last
    while key is not None and is_complete(store, key):
        keys.append(key)
        key = read_record(store, key)["parent"]
    return keys[::-1]


def load_reads(store: Path, last: str, what: str = "reads") -> list[np.ndarray]:
    """The logs of what was read on the way to a state, one array a rank and saved state; what: reads | noise."""
    folders = [state_dir(store, key) / what for key in states_on_way(store, last)]
    return [np.load(path, allow_pickle=False) for folder in folders for path in sorted(folder.glob("*.npy"))]


def collect(folder: Path) -> StudyData:
    """Everything that the report of a study is made of."""
    study = read_study(folder)
    members = read_members(study)
    store = Path(study["store"])
    proofs = [json.loads(path.read_text()) for path in sorted(folder.glob("proof/*.json"))]
    items, ledger = (_stack([part(member) for member in members]) for part in (_items, _ledger))
    control = control_rows(store, members)
    by_loops = planted(ledger, loops_of(control)) if control and ledger else {}
    return StudyData(
        title=study["title"],
        question=study["question"],
        results=_results(members, store),
        items=with_mean_doses(items, by_loops),
        ledger=ledger,
        curves=_curves(members, store),
        command=study["command"],
        versions=study["versions"],
        fingerprints=_fingerprints(members),
        cost=study["cost"],
        proofs=proofs,
        audits=[_audit(member) for member in members if "treated" in member["arms"]],
        examples=_examples(members[0]) if members else [],
        varies=_varies(members),
        weight_decay=_weight_decay(members),
        status=[*study["failures"], *unfinished(study)],
        notes=[*_notes(members, store), *further_results(members, store), *told(by_loops)],
        measured_by=measuring(members[0]["config"]) if members else {},
        control=control,
    )


@dataclass(frozen=True)
class Reported:
    """A study whose report stands."""

    folder: Path
    html: Path
    study: StudyData
    analysis: Analysis


def report_study(folder: Path, console: Console | None = None) -> Reported:
    """Writes the report of a study and prints its short form."""
    from pretrain_exp.report.terminal import print_report
    from pretrain_exp.report.write import write_report

    data = collect(folder)
    console = console or Console()
    paths = write_report(data, folder / "report")
    print_report(data, console, paths.analysis)
    console.print(f"report: {paths.html}", highlight=False, markup=False, soft_wrap=True)
    return Reported(folder, paths.html, data, paths.analysis)


def _results(members: list[dict[str, Any]], store: Path) -> pa.Table:
    tables = []
    for member in members:
        for arm, record in member["arms"].items():
            for step, evaluations in record["evaluations"].items():
                for name, fingerprint in evaluations.items():
                    path = store / "evals" / record["states"][step] / fingerprint / "items.parquet"
                    if path.is_file():
                        table = pq.read_table(path)
                        labels = {"evaluation": name, "arm": arm, "seed": member["seed"], "step": int(step)}
                        tables.append(_labelled(table, {**labels, "member": member["label"]}))
    if not tables:
        from pretrain_exp.analysis.study import RESULTS

        return RESULTS.empty_table()
    return pa.concat_tables(tables, promote_options="default")


def _notes(members: list[dict[str, Any]], store: Path) -> list[str]:
    """What the evaluations of the last states say of their scores, with the arms where it does not hold for all."""
    arms: dict[str, set[str]] = {}
    for member in members:
        for arm, record in member["arms"].items():
            step = max(record["evaluations"], key=int, default=None)
            for name, fingerprint in record["evaluations"].get(step, {}).items():
                path = store / "evals" / record["states"][step] / fingerprint / "eval.json"
                for note in json.loads(path.read_text())["notes"] if path.is_file() else ():
                    arms.setdefault(f"{name}: {note}", set()).add(arm)
    every = {arm for member in members for arm in member["arms"]}
    return [text if found == every else f"{text} ({', '.join(sorted(found))})" for text, found in arms.items()]


def _items(member: dict[str, Any]) -> pa.Table | None:
    if member["plan"] is None:
        return None
    table = pq.read_table(Path(member["plan"]) / "items.parquet")
    table = table.filter(pc.greater(pc.list_value_length(table["tokens"]), 0))  # the others are planted by reference
    skipped = _skipped(member)
    if skipped:
        pairs = zip(table["insertion"].to_pylist(), table["item"].to_pylist(), strict=True)
        table = table.filter(pa.array([pair not in skipped for pair in pairs]))
    columns = [name for name in table.column_names if name not in ("tokens", "payload")]
    return _labelled(table.select(columns), {"member": member["label"], "seed": member["seed"]})


def _skipped(member: dict[str, Any]) -> set[tuple[str, str]]:
    """(insertion, item) that a declared policy left out in part or whole: their dose is not what was asked for."""
    table = pq.read_table(Path(member["plan"]) / "ledger.parquet", columns=["insertion", "item", "status"])
    table = table.filter(pc.equal(table["status"], "skipped"))
    return set(zip(table["insertion"].to_pylist(), table["item"].to_pylist(), strict=True))


def _ledger(member: dict[str, Any]) -> pa.Table | None:
    if member["plan"] is None:
        return None
    table = pq.read_table(Path(member["plan"]) / "ledger.parquet")
    return _labelled(table, {"member": member["label"], "seed": member["seed"]})


def _labelled(table: pa.Table, labels: dict[str, Any]) -> pa.Table:
    """The table with constant columns; one that is there already is replaced."""
    table = table.drop_columns([name for name in labels if name in table.column_names])
    for name, value in labels.items():
        table = table.append_column(
            name, pa.array([value] * len(table), pa.int64() if isinstance(value, int) else pa.string())
        )
    return table


def _stack(tables: list[pa.Table | None]) -> pa.Table:
    present = [table for table in tables if table is not None]
    return pa.concat_tables(present, promote_options="permissive") if present else None


def _curves(members: list[dict[str, Any]], store: Path) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in CURVES.names}
    for member in members:
        for arm, record in member["arms"].items():
            for row in _metrics_on_way(store, record["last"]):
                for metric, value in row.items():
                    if metric.startswith("train/") and isinstance(value, int | float):
                        values = (member["label"], arm, member["seed"], int(row["step"]), metric, float(value))
                        for name, one in zip(CURVES.names, values, strict=True):
                            columns[name].append(one)
    return pa.table(columns, schema=CURVES)


def _metrics_on_way(store: Path, last: str) -> list[dict[str, float]]:
    """What was logged of each step on the way to a state."""
    paths = [state_dir(store, key) / "metrics.jsonl" for key in states_on_way(store, last)]
    return read_metrics([path for path in paths if path.is_file()])


def _audit(member: dict[str, Any]) -> dict[str, Any]:
    audit = json.loads((Path(member["plan"]) / "audit.json").read_text())
    audit["findings"] += member.get("findings", [])
    skipped = len(_skipped(member))
    if skipped:
        message = f"{skipped} items were too long to be planted and are left out of every comparison by dose"
        audit["findings"].append({"level": "warning", "check": "skipped", "message": message})
    searched = member["config"].get("scan_holdouts", False)
    return {"member": member["label"], "seed": member["seed"], "arm": "treated", "searched": searched, **audit}


def _varies(members: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The values that each named seed takes over the study, where it matters to the run at all."""
    names = sorted({name for member in members for name in member["seeds"]})
    # one that matters to some members alone (of a model from scratch, say) is absent in the others' records
    return {name: sorted({m["seeds"][name] for m in members if name in m["seeds"]}) for name in names}


def _weight_decay(members: list[dict[str, Any]]) -> dict[str, float]:
    """label -> weight decay, by which the report says what decay alone leaves of a weight."""
    found = {m["label"]: m["config"].get("training", {}).get("optimizer", {}).get("weight_decay") for m in members}
    return {label: float(value) for label, value in found.items() if value is not None}


def _fingerprints(members: list[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for member in members:
        name = " ".join(part for part in (member["label"], f"seed {member['seed']}") if part)
        out[f"{name}: plan"] = member["plan_fingerprint"] or "no edits"
        for arm, record in member["arms"].items():
            out[f"{name}: {arm}, last state"] = record["last"]
    return out


def _examples(member: dict[str, Any]) -> list[dict[str, Any]]:
    """Planted texts in their places, as the model read them, the largest doses first."""
    if member["plan"] is None:
        return []
    plan, tokenizer = Plan.open(Path(member["plan"])), load(Path(member["tokenizer"]))
    rows = [row for row in plan.ledger().to_pylist() if row["status"] == "planted" and row["kind"] != "noise"]
    seen: dict[tuple[str, int], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda r: (-r["dose"], r["position"])):
        seen.setdefault((row["insertion"], row["dose"]), row)
    return [_example(member, plan, tokenizer, row) for row in list(seen.values())[:EXAMPLES]]


def _example(member: dict[str, Any], plan: Plan, tokenizer: Tokenizer, row: dict[str, Any]) -> dict[str, Any]:
    order, phases = order_from_json(member["order"]), Phases.from_json(member["phases"])
    slot = int(phases.first_slot(row["step"]) + row["row"])
    tokens = plan.overlay.apply(slot, order.read(slot), order.read)
    start, stop = row["column"], row["column"] + row["length"]
    return {
        "member": member["label"],
        "seed": member["seed"],
        **{name: row[name] for name in ("insertion", "item", "dose", "step", "row", "column")},
        "before": tokenizer.decode(tokens[max(0, start - CONTEXT) : start]),
        "planted": tokenizer.decode(tokens[start:stop]),
        "after": tokenizer.decode(tokens[stop : stop + CONTEXT]),
    }


def prove(folder: Path) -> list[dict[str, Any]]:
    """Holds what every arm read against raw files and ledger; writes proof/<member>-<arm>.json and returns them all."""
    from pretrain_exp.plan.proof import verify_reads
    from pretrain_exp.plan.proof_arms import compare_arms
    from pretrain_exp.plan.proof_hooks import verify_hooks

    study = read_study(folder)
    store = Path(study["store"])
    found = []
    shutil.rmtree(folder / "proof", ignore_errors=True)  # of an earlier configuration of the same folder
    (folder / "proof").mkdir()
    for index, member in enumerate(read_members(study)):
        for arm, record in member["arms"].items():
            label = {"member": member["label"], "seed": member["seed"], "arm": arm}
            if not is_complete(store, record["last"]):
                found.append({**label, "ok": False, "reason": "it was not trained to its end", "rows_checked": 0})
                write_json(folder / "proof" / f"{index}-{arm}.json", found[-1])
                continue
            plan = Path(record["plan"]) if record["plan"] else None
            phases = Phases.from_json(member["phases"])
            steps = range(member["first_step"], member["last_step"])
            reads, noise = (load_reads(store, record["last"], what) for what in ("reads", "noise"))
            result = verify_reads(member["order"], plan, reads, phases, steps, noise)
            result.ledger_errors += verify_hooks(plan, _metrics_on_way(store, record["last"]), steps)
            proof = {**label, "ok": result.ok, **asdict(result)}
            control = member["arms"].get("control", {}).get("last")
            if plan is not None and control is not None and is_complete(store, control):
                arms = compare_arms(reads, load_reads(store, control), Plan.open(plan).ledger(), phases)
                proof |= {"ok": result.ok and arms.ok, "against_control": arms.describe()}
                if not arms.ok:
                    proof["ledger_errors"] = [*proof["ledger_errors"], arms.describe()]
            write_json(folder / "proof" / f"{index}-{arm}.json", proof)
            found.append(proof)
    return found

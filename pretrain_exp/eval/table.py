"""The item table: scores in, one long Parquet table out, and its summary.

    evaluation        task                       item              metric   value
    multiple_choice   olmes:arc_easy/rc_0shot    1f0c5b7a9be03d42  acc      1.0
    multiple_choice   olmes:arc_easy/rc_0shot    1f0c5b7a9be03d42  gold_ce  2.31

Arm, seed and step are columns that whoever collects the tables of many checkpoints adds.
"""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pretrain_exp.eval.base import Score
from pretrain_exp.eval.job import error_path
from pretrain_exp.store.claims import demand_claim
from pretrain_exp.store.states import write_json

SCHEMA = pa.schema(
    [
        pa.field("evaluation", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


def to_table(evaluation: str, scores: Sequence[Score]) -> pa.Table:
    """The item table of one evaluation. Raises ValueError for a repeated score, or one that is not finite."""
    if not scores:
        return SCHEMA.empty_table()
    key, times = Counter(score[:3] for score in scores).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{evaluation} gave {times} scores for {key}")
    if broken := [score for score in scores if not math.isfinite(score.value)]:
        raise ValueError(
            f"{evaluation}: {len(broken)} of {len(scores)} scores are not finite, the first is {broken[0]}"
        )
    tasks, items, metrics, values = zip(*scores, strict=True)
    columns = [[evaluation] * len(scores), tasks, items, metrics, [float(value) for value in values]]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def write_table(path: Path, table: pa.Table) -> None:
    """Written whole or not at all."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)


def write_result(out: Path, table: pa.Table, record: Mapping[str, Any]) -> None:
    """The result folder of an evaluation, items.parquet and eval.json, moved into place when it is complete.

    Raises ClaimLost where another process has the job by now.
    """
    partial, old = (out.with_name(f"{out.name}.{kind}-{uuid.uuid4().hex[:8]}") for kind in ("partial", "old"))
    partial.mkdir(parents=True)
    try:
        write_table(partial / "items.parquet", table)
        write_json(partial / "eval.json", {**record, "n": table.num_rows, "summary": summarize(table)})
        demand_claim(os.environ)
        if out.exists():
            os.rename(out, old)
        os.rename(partial, out)
    finally:
        if partial.exists():
            shutil.rmtree(partial)
    for leftover in out.parent.iterdir():  # of this writer, and of others that were killed
        if leftover.name.startswith((f"{out.name}.partial-", f"{out.name}.old-")):
            shutil.rmtree(leftover)
    error_path(str(out)).unlink(missing_ok=True)


def summarize(table: pa.Table) -> dict[str, dict[str, float]]:
    """Aggregates by task, from the items: {task: {metric: value}}, with the number of items as "items".

    Means over items; where items have nll [nats] and bytes or tokens, bits_per_byte, perplexity and nll (per token) are
    those of the whole text: sums, then the ratio.
    """
    grouped = table.group_by(["task", "metric"], use_threads=False).aggregate([("value", "mean"), ("value", "sum")])
    means: dict[str, dict[str, float]] = {}
    sums: dict[str, dict[str, float]] = {}
    for row in grouped.to_pylist():
        means.setdefault(row["task"], {})[row["metric"]] = row["value_mean"]
        sums.setdefault(row["task"], {})[row["metric"]] = row["value_sum"]
    for task, total in sums.items():
        means[task] |= _of_the_whole(total)
        means[task]["items"] = float(len(pc.unique(table.filter(pc.field("task") == task)["item"])))
    return means


def _of_the_whole(total: Mapping[str, float]) -> dict[str, float]:
    """What a text's sums say about it."""
    whole: dict[str, float] = {}
    if "nll" in total and total.get("bytes"):
        whole |= {"bytes": total["bytes"], "bits_per_byte": total["nll"] / (math.log(2) * total["bytes"])}
    if "nll" in total and total.get("tokens"):
        nats = total["nll"] / total["tokens"]
        whole |= {"tokens": total["tokens"], "nll": nats, "perplexity": math.exp(min(nats, 700.0))}
    return whole

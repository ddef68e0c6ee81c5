"""Losses of texts of all lengths: a ratio of sums, and what lacks a loss or a size."""

import numpy as np
import pyarrow as pa
import pytest
from tiny import items, one, results, study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.estimate import ALL


def test_perplexity_is_a_ratio_of_sums() -> None:
    nll = {("", "treated", 0): [10.0, 300.0, 12.0], ("", "control", 0): [12.0, 270.0, 11.0]}
    sizes = {run: [10.0, 100.0, 10.0] for run in nll}
    where = {"evaluation": "perplexity", "task": "wiki"}
    table = pa.concat_tables(
        [
            results(nll, "nll", **where),
            results(sizes, "tokens", **where),
            results({run: [4 * n for n in size] for run, size in sizes.items()}, "bytes", **where),
        ]
    )
    rows = analyse(study(table)).estimates
    tokens = one(rows, contrast="treated_vs_control", metric="nats_per_token")
    assert tokens.value == pytest.approx(322 / 120)
    assert tokens.reference == pytest.approx(293 / 120)
    assert tokens.estimate == pytest.approx(29 / 120)
    byte = one(rows, contrast="treated_vs_control", metric="bits_per_byte")
    assert byte.estimate == pytest.approx(29 / (480 * np.log(2)))
    assert {row.metric for row in rows} == {"nats_per_token", "bits_per_byte"}


def test_a_seed_without_sizes_is_not_left_out_silently() -> None:
    nll = {("", arm, seed): [10.0, 30.0 + seed] for arm in ("treated", "control") for seed in (0, 1, 2)}
    sizes = {run: [10.0, 20.0] for run in nll if run[2] < 2}
    where = {"evaluation": "perplexity", "task": "wiki"}
    rows = analyse(study(pa.concat_tables([results(nll, "nll", **where), results(sizes, "tokens", **where)]))).estimates
    assert {(row.scope, row.seed) for row in rows} == {("run", 0), ("run", 1), ("seeds", None)}
    assert all("1 of 3 seeds have no tokens" in row.flag for row in rows)


def test_many_domains_are_one_row_and_dilute_no_answer() -> None:
    """Three domains and a benchmark beside planted items: each question is adjusted by itself."""
    rng = np.random.default_rng(0)
    runs = [("", arm, seed) for arm in ("treated", "control") for seed in (0, 1, 2)]
    tables = [results({run: rng.normal(0, 1, 8).tolist() for run in runs}, "own")]
    tables.append(results({run: rng.normal(0, 1, 3).tolist() for run in runs}, "own", evaluation="script", task="s"))
    nll = {task: {run: rng.uniform(10, 20, 8).tolist() for run in runs} for task in "abc"}
    for task, values in nll.items():
        where = {"evaluation": "perplexity", "task": task}
        tables += [results(values, "nll", **where), results(dict.fromkeys(runs, [9.0] * 8), "tokens", **where)]
    names = [[f"{row['task']} {row['item']}" for row in table.to_pylist()] for table in tables[1:]]
    named = [table.set_column(2, "item", pa.array(own)) for table, own in zip(tables[1:], names, strict=True)]
    planned = items({("", seed): [0, 0, 0, 0, 4, 4, 4, 4] for seed in (0, 1, 2)})
    rows = analyse(study(pa.concat_tables([tables[0], *named]), planned), resamples=0).estimates
    mine = [row for row in rows if row.contrast == "treated_vs_control"]
    every = one(mine, task=ALL, scope="seeds")
    treated = [np.mean([nll[task]["", "treated", seed] for task in "abc"]) / 9 for seed in (0, 1, 2)]
    assert (every.n, every.value) == (3 * 3 * 8, pytest.approx(np.mean(treated)))
    sizes = {
        (row.insertion, row.evaluation, row.task == ALL): sum(other.family() == row.family() for other in rows)
        for row in mine if row.scope == "seeds"
    }  # fmt: skip
    assert sizes == {
        ("plant", "multiple_choice", False): 2, ("", "script", False): 1,
        ("", "perplexity", False): 3, ("", "perplexity", True): 1,
    }  # fmt: skip


NAN = float("nan")


@pytest.mark.parametrize(
    ("treated", "sizes", "n", "flag"),
    [
        ({0: [10.0, NAN, 12.0], 1: [10.0, 300.0, 12.0]}, [10.0, 100.0, 10.0], {0: 2, 1: 3, None: 5}, ""),
        ({0: [NAN, NAN, NAN], 1: [10.0, 300.0, 12.0]}, [10.0, 100.0, 10.0], {1: 3}, ""),
        (
            {0: [10.0, 300.0, 12.0], 1: [11.0, 300.0, 12.0]},
            [10.0, 100.0],
            {0: 2, 1: 2, None: 4},
            "1 texts without tokens are left out",
        ),
    ],
)
def test_a_text_without_a_loss_or_a_size_leaves_the_others_their_loss(
    treated: dict[int, list[float]], sizes: list[float], n: dict[int | None, int], flag: str
) -> None:
    nll = {("", "treated", seed): values for seed, values in treated.items()}
    nll |= {("", "control", seed): [12.0, 270.0, 11.0 + seed] for seed in treated}
    where = {"evaluation": "perplexity", "task": "wiki"}
    table = pa.concat_tables([results(nll, "nll", **where), results(dict.fromkeys(nll, sizes), "tokens", **where)])
    found = analyse(study(table))
    assert {row.seed: row.n for row in found.estimates} == n
    assert {row.flag for row in found.estimates} == {flag}
    assert any("not finite, left out" in remark.text for remark in found.remarks) is not bool(flag)

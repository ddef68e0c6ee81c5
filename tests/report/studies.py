"""Simulated studies: doses, seeds, arms and true effects in, a StudyData as a finished experiment would give it out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pretrain_exp.analysis.study import StudyData

DOSES = (0, 1, 4, 16, 64)
SUBJECTS = ("a magnet", "the water cycle", "a plant cell", "friction", "a lunar eclipse", "the food web", "sandstone")
VERBS = ("attracts", "releases", "depends on", "slows", "is caused by", "transfers energy to", "is formed from")
FILLER = "the passage goes on to say that the settlers moved their cattle down the valley before the first snow . "


def simulated_study(
    seeds: Sequence[int] = (0, 1, 2),
    *,
    items: int = 500,
    doses: Sequence[int] = DOSES,
    effect: float = 1.0,
    placebo: bool = False,
    control: bool = True,
    members: Sequence[str] = ("",),
    sweep: str = "dose",
    steps: Sequence[int] = (300,),
    between: float = 0.1,
    perplexity: bool = True,
    curve_steps: int = 300,
    rng_seed: int = 7,
) -> StudyData:
    """`items` items in equal seeded groups at `doses`; true accuracy is logit-linear in log(1 + dose), slope `effect`.

    members: labels of variants; sweep "dose" gives each a non-zero dose of its own, "condition" scales the effect.
    between: standard deviation of a run's own shift, in logits.
    """
    rng = np.random.default_rng(rng_seed)
    names = np.array([f"{index:016x}" for index in range(items)])
    texts = [
        f"Question: Which of these {VERBS[i % 7]} {SUBJECTS[i // 7 % 7]} (case {i})?\nAnswer: {SUBJECTS[(i + 3) % 7]}"
        for i in range(items)
    ]
    difficulty = rng.normal(0, 0.8, items)
    results: list[pa.Table] = []
    planned: list[pa.Table] = []
    ledgers: list[pa.Table] = []
    curves: list[pa.Table] = []
    proofs, audits, examples = [], [], []
    last = max(steps)
    for m, member in enumerate(members):
        own = [0, doses[1 + m % (len(doses) - 1)]] if len(members) > 1 and sweep == "dose" else list(doses)
        slope = effect * (1 - 0.4 * m) if sweep == "condition" else effect
        for seed in seeds:
            order = np.random.default_rng([rng_seed, seed]).permutation(items)
            dose = np.zeros(items, int)
            dose[order] = np.asarray(own)[np.arange(items) % len(own)]
            planned.append(
                pa.table(
                    {
                        "member": [member] * items,
                        "seed": [seed] * items,
                        "insertion": ["benchmark_contamination"] * items,
                        "item": names,
                        "group": [f"dose {d}" for d in dose],
                        "dose": dose,
                        "text": texts,
                    }
                )
            )
            copies = np.repeat(np.arange(items), dose)
            at = rng.integers(0, last, len(copies))
            ledgers.append(
                pa.table(
                    {
                        "member": [member] * len(copies),
                        "seed": [seed] * len(copies),
                        "insertion": ["benchmark_contamination"] * len(copies),
                        "item": names[copies],
                        "dose": dose[copies],
                        "step": at,
                        "length": rng.integers(25, 60, len(copies)),
                        "status": ["planted"] * len(copies),
                    }
                )
            )
            arms = ["treated", *(["control"] if control and m == 0 else []), *(["placebo"] if placebo else [])]
            for arm in arms:
                shift = rng.normal(0, between)
                label = "" if arm == "control" else member
                for step in steps:
                    share = step / last
                    gain = slope * share * np.log1p(dose) if arm == "treated" else 0.0
                    logit = -1.0 + difficulty + shift + gain
                    right = (rng.random(items) < 1 / (1 + np.exp(-logit))).astype(float)
                    ce = np.maximum(0.02, 2.4 - 0.35 * (gain + shift) - 0.2 * difficulty + rng.normal(0, 0.15, items))
                    for metric, value in (
                        ("acc", right),
                        ("gold_ce", ce),
                        ("margin", logit + rng.normal(0, 0.3, items)),
                    ):
                        results.append(
                            _results("multiple_choice", "planted", names, metric, value, arm, seed, step, label)
                        )
                if perplexity:
                    for task, base in (("wikipedia", 3.1), ("stories", 2.7)):
                        tokens = np.random.default_rng([3, len(task)]).integers(80, 400, 60).astype(float)
                        nll = tokens * (base + rng.normal(0, 0.02, 60) + 0.01 * shift)
                        ids = np.array([f"{task}-{i}" for i in range(60)])
                        for metric, value in (("nll", nll), ("tokens", tokens), ("bytes", tokens * 4.2)):
                            results.append(_results("perplexity", task, ids, metric, value, arm, seed, last, label))
                curves.append(_curves(label, arm, seed, curve_steps, rng))
                proofs.append(
                    {
                        "member": label,
                        "seed": seed,
                        "arm": arm,
                        "rows_checked": curve_steps * 16,
                        "mismatches": 0,
                        "missing": 0,
                        "duplicate": 0,
                        "ok": True,
                    }
                )
            audits.append(
                {
                    "member": member,
                    "seed": seed,
                    "arm": "treated",
                    "ok": True,
                    "findings": [
                        f"exact dose: {items} of {items} items",
                        "overlaps: 0",
                        "uniformity over 20 bins: chi-square 17.3 (19 df), p = 0.57; KS p = 0.41",
                        f"tokens modified: 2.9 % ({len(copies) * 42:,} of {curve_steps * 4096:,})",
                    ],
                }
            )
            for dosed in [d for d in own if d][-3:]:
                item = int(np.flatnonzero(dose == dosed)[0])
                examples.append(
                    {
                        "member": member,
                        "seed": seed,
                        "insertion": "benchmark_contamination",
                        "item": names[item],
                        "dose": int(dosed),
                        "step": int(rng.integers(last)),
                        "row": int(rng.integers(16)),
                        "column": int(rng.integers(200)),
                        "before": FILLER * 2,
                        "planted": texts[item],
                        "after": FILLER * 2,
                    }
                )
    return StudyData(
        title="Benchmark contamination, ARC-Easy",
        question="What does reading a benchmark item k times during pretraining do to the accuracy on it?",
        command="python -m pretrain_exp -m seed=" + ",".join(map(str, seeds)),
        versions={
            "pretrain-exp": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "numpy": "2.4.6",
            "transformers": "5.3.0",
        },
        fingerprints={
            "data order": "5f0c3a9e11d24b07",
            "plan, seed 0": "9d2be0c4f7a81356",
            "model": "olmo2, 4 layers of 128",
        },
        cost={"seconds": 356.2, "tokens": 7_372_800, "states trained": 6, "states reused": 2},
        results=pa.concat_tables(results),
        items=pa.concat_tables(planned),
        ledger=pa.concat_tables(ledgers),
        curves=pa.concat_tables(curves),
        proofs=proofs,
        audits=audits,
        examples=examples,
        varies={"placement": list(seeds), "order": list(seeds), "init": [0]},
    )


def _results(
    evaluation: str,
    task: str,
    item: np.ndarray,
    metric: str,
    value: np.ndarray,
    arm: str,
    seed: int,
    step: int,
    member: str,
) -> pa.Table:
    n = len(item)
    return pa.table(
        {
            "evaluation": [evaluation] * n,
            "task": [task] * n,
            "item": item,
            "metric": [metric] * n,
            "value": value.astype(float),
            "arm": [arm] * n,
            "seed": [seed] * n,
            "step": [step] * n,
            "member": [member] * n,
        }
    )


def _curves(member: str, arm: str, seed: int, steps: int, rng: np.random.Generator) -> pa.Table:
    t = np.arange(steps)
    trend = 3.2 + 4.8 * np.exp(-t / (steps / 6)) + np.random.default_rng([11, seed]).normal(0, 0.06, steps)
    loss = trend + rng.normal(0, 0.012, steps) - (0.15 * t / steps if arm == "treated" else 0)
    lr = 3e-3 * np.minimum(1, (t + 1) / 20) * (0.1 + 0.9 * (1 + np.cos(np.pi * t / steps)) / 2)
    norm = 0.8 + 0.4 * np.exp(-t / 40) + np.abs(rng.normal(0, 0.05, steps))
    n = 3 * steps
    return pa.table(
        {
            "member": [member] * n,
            "arm": [arm] * n,
            "seed": [seed] * n,
            "step": np.tile(t, 3),
            "metric": ["train/loss"] * steps + ["train/lr"] * steps + ["train/grad_norm"] * steps,
            "value": np.concatenate([loss, lr, norm]),
        }
    )

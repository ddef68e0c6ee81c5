"""Simulated studies of canaries, facts, fading effects and noise: the truth in, a StudyData out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.analysis.study import CURVES, ITEMS, LEDGER, RESULTS, StudyData

STEPS = 400
TOKENS_A_STEP = 2048


def table(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def curves(seeds: Sequence[int], arms: Sequence[str] = ("treated", "control"), rate: float = 1e-3) -> pa.Table:
    """Tokens, learning rate and loss of every step."""
    rows = [
        ("", arm, seed, step, metric, float(value))
        for arm in arms
        for seed in seeds
        for step in range(STEPS)
        for metric, value in (
            ("train/tokens", (step + 1) * TOKENS_A_STEP),
            ("train/lr", rate),
            ("train/loss", 3 + 2 * np.exp(-step / 80)),
        )
    ]
    return table(CURVES, rows)


def canaries(
    seeds: Sequence[int] = (0, 1, 2), shift: float = 0.5, conditions: Sequence[str] = ("rare tokens", "dialogue"),
    doses: Sequence[int] = (0, 1, 4, 16), a_cell: int = 60, control: bool = True,
) -> StudyData:  # fmt: skip
    """Membership and verbatim scores; each attack's score rises by shift * log2(1 + dose), half of it in dialogue."""
    rng = np.random.default_rng(5)
    results, items, ledger = [], [], []
    for seed in seeds:
        cells = [(c, d) for c in conditions for d in doses for _ in range(a_cell)]
        for index in range(len(cells)):
            condition, dose = cells[(index + 7 * seed) % len(cells)]
            name = f"canary{index:04d}"
            items.append(("", seed, "canaries", name, condition, dose, f"text {index}"))
            ledger += [("", seed, "canaries", name, dose, int(rng.integers(STEPS)), 30, "planted") for _ in range(dose)]
            gain = shift * np.log2(1 + dose) * (1 if condition == conditions[0] else 0.5)
            base = np.random.default_rng(index).normal()
            for arm in ("treated", "control") if control else ("treated",):
                score = base + rng.normal(0, 0.5) + (gain if arm == "treated" else 0)
                for metric, value in (("neg_loss", score - 4), ("min_k", score - 6), ("min_k_pp", score)):
                    results.append(("membership", "canaries", name, metric, value, arm, seed, STEPS, ""))
                results.append(("verbatim", "canaries", name, "exact", float(score > 2.5), arm, seed, STEPS, ""))
                results.append(("planted_texts", "canaries", name, "ce", 4 - score, arm, seed, STEPS, ""))
    return StudyData(
        title="Canaries", question="How well can what was read be told from what was not?",
        results=table(RESULTS, results), items=table(ITEMS, items), ledger=table(LEDGER, ledger),
        curves=curves(seeds), varies={"placement": list(seeds), "order": list(seeds)},
    )  # fmt: skip


def fading(seeds: Sequence[int] = (0, 1, 2), half_life: float = 200_000.0, items: int = 240) -> StudyData:
    """Texts read once each at a random step; log-probability rises by 1 nat and halves every `half_life` tokens."""
    rng = np.random.default_rng(3)
    results, plan, ledger = [], [], []
    for seed in seeds:
        for index in range(items):
            name, dose = f"text{index:04d}", int(index % 4 > 0)
            plan.append(("", seed, "add_texts", name, "", dose, f"text {index}"))
            step = int(rng.integers(STEPS))
            if dose:
                ledger.append(("", seed, "add_texts", name, 1, step, 30, "planted"))
            distance = (STEPS - step) * TOKENS_A_STEP
            effect = -dose * 0.5 ** (distance / half_life)
            control = 4 + np.random.default_rng(index).normal(0, 0.3)
            for arm, value in (("control", control), ("treated", control + effect + rng.normal(0, 0.05))):
                results.append(("planted_texts", "add_texts", name, "ce", value, arm, seed, STEPS, ""))
    return StudyData(
        title="Fading", question="How long does it last?", results=table(RESULTS, results), items=table(ITEMS, plan),
        ledger=table(LEDGER, ledger), curves=curves(seeds), weight_decay={"": 0.1},
    )  # fmt: skip


def noise(seeds: Sequence[int] = (0, 1), shift: float = -0.8, n: int = 120) -> StudyData:
    """Inner products with planted and fresh noise; shifted only for planted noise in the treated run."""
    rng = np.random.default_rng(8)
    results, plan = [], []
    for seed in seeds:
        for index in range(n):
            name = f"row{index:04d}"
            plan.append(("", seed, "gaussian_poisoning", name, "", 4, ""))
            for arm in ("treated", "control"):
                moved = shift if arm == "treated" else 0.0
                for metric, value in (("watermark", rng.normal(moved)), ("watermark_fresh", rng.normal())):
                    where = ("gaussian_watermark", "gaussian_poisoning", name, metric)
                    results.append((*where, float(value), arm, seed, STEPS, ""))
    return StudyData(
        title="Noise", question="Does planted noise leave a trace?", results=table(RESULTS, results),
        items=table(ITEMS, plan),
    )  # fmt: skip


def facts(seeds: Sequence[int] = (0, 1), facts_a_dose: int = 12) -> StudyData:
    """Facts read 0, 4 and 16 times; the target's log-probability jumps at each exposure and decays after it."""
    rng = np.random.default_rng(9)
    steps = list(range(0, STEPS + 1, 20))
    results, plan, ledger = [], [], []
    for seed in seeds:
        for index in range(3 * facts_a_dose):
            dose = (0, 4, 16)[index % 3]
            read = sorted(rng.choice(np.arange(30, 250), dose, replace=False).tolist())
            fact = f"fact{index:03d}"
            ledger += [
                ("", seed, "knowledge", f"{fact}:text{i}", dose, step, 40, "planted") for i, step in enumerate(read)
            ]
            for kind in ("memorization", "semantic"):
                name = f"{fact}:{kind}"
                plan.append(("", seed, "knowledge", name, kind, dose, ""))
                for step in steps:
                    gain = sum(0.5 * np.exp(-(step - at) / 150) for at in read if at < step)
                    for arm in ("treated", "control"):
                        value = -9 + (gain if arm == "treated" else 0) + rng.normal(0, 0.1)
                        for metric, shown in (
                            ("target_logprob", value), ("target_prob", np.exp(value)), ("acc", float(value > -5)),
                        ):  # fmt: skip
                            where = ("knowledge", f"knowledge/{kind}", name, metric)
                            results.append((*where, float(shown), arm, seed, step, ""))
    return StudyData(
        title="Planted facts", question="How are facts acquired and lost?", results=table(RESULTS, results),
        items=table(ITEMS, plan), ledger=table(LEDGER, ledger), curves=curves(seeds),
    )  # fmt: skip


def dependence() -> StudyData:
    """Noise and facts in one run, and each alone: `only_<insertion>` leaves the other's items as control has them."""
    parts = {"gaussian_poisoning": noise(), "knowledge": facts()}
    results = [part.results for part in parts.values()]
    for alone in parts:
        for name, part in parts.items():
            rows = part.results.filter(pc.equal(part.results["arm"], "treated" if name == alone else "control"))
            arm = pa.array([f"only_{alone}"] * len(rows), pa.string())
            results.append(rows.set_column(rows.schema.get_field_index("arm"), "arm", arm))
    return StudyData(
        title="Dependence", question="Do noise and facts leave each other alone?", results=pa.concat_tables(results),
        items=pa.concat_tables([part.items for part in parts.values()]), ledger=parts["knowledge"].ledger,
        curves=parts["knowledge"].curves,
    )  # fmt: skip

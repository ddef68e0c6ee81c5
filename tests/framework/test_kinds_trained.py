"""Every kind that leaves texts alone, trained: what was read, what was noised, and the same however it is split.

Token v stands at position v of the stream, 4 rows of 16 a step, 8 steps an epoch; runs are 3 steps long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segments import EOS, G, S, losses, metrics, tensors

from pretrain_exp.data.order import order_from_json
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.framework.worker.hooks import add_gradient_noise, gradient_noise
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.batches import Batches
from pretrain_exp.insertion.gaussian_poisoning import GaussianPoisoning
from pretrain_exp.insertion.gradient_noise import GradientNoise
from pretrain_exp.insertion.iid_replacement import IidReplacement
from pretrain_exp.insertion.removal import Removal
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window
from pretrain_exp.plan.proof import verify_reads
from pretrain_exp.plan.proof_arms import compare_arms
from pretrain_exp.plan.proof_hooks import verify_hooks

PHASES, STEPS = Phases([Phase(0, G, S)]), 3
KINDS: dict[str, Any] = {
    "removal": lambda folder: Removal(file=_documents(folder), prefix=2),
    "batches": lambda _: Batches(steps=[1], score=1, holdout=1),
    "iid_replacement": lambda _: IidReplacement(sequences=1, windows=2, holdout=1),
    "gaussian_poisoning": lambda _: GaussianPoisoning(steps=[1], sigma=1.0),
    "noisy_spans": lambda _: GaussianPoisoning(sequences=3, length=5, sigma=1.0),
    "gradient_noise": lambda _: GradientNoise(steps=[0, 2], sigma=0.05),
}
SPLITS = {"one": (1, None), "micro": (1, 1), "ranks": (2, None)}
ON_RANKS = ("batches", "gaussian_poisoning", "gradient_noise")  # the others are of the same kinds of edits


def _documents(folder: Path) -> str:
    path = folder / "documents.jsonl"
    path.write_text('{"tokens": [18, 19, 20, 21]}\n{"tokens": [100, 101, 102, 103]}\n')
    return str(path)


def _states(segment: Any) -> list[Path]:
    return [segment.state(STEPS)]


def _log(segment: Any, what: str) -> list[np.ndarray]:
    return [np.load(path) for state in _states(segment) for path in sorted((state / what).glob("*.npy"))]


@pytest.fixture(scope="module")
def control(make_segment: Any) -> Any:
    segment = make_segment(saves=(STEPS,))
    segment.here()
    return segment


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, make_segment: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plan of a kind, and its runs by split."""
    folder, kind = tmp_path_factory.mktemp("kind"), request.param
    order = order_from_json(make_segment().job["order"])
    context = InsertionContext(kind, 7, S, EOS, Window(0, STEPS), PHASES, lambda texts: [], 512, order)
    plan = compile_plan([KINDS[kind](folder).edits(context)], PHASES, context.window, 7, "treated", folder, order=order)
    runs = {}
    for name, (ranks, micro) in SPLITS.items():
        if ranks > 1 and kind not in ON_RANKS:
            continue
        segment = make_segment(saves=(STEPS,), overlay=plan.overlay.folder, training={"micro_batch_size": micro})
        segment.job["hooks"] = plan.hooks
        if ranks == 1:
            segment.here()
        else:
            segment.run(ranks)
        runs[name] = segment
    return kind, plan, runs


@pytest.mark.parametrize("split", SPLITS)
def test_everything_was_done_where_the_ledger_says(split: str, trained: Any, control: Any) -> None:
    kind, plan, runs = trained
    if split not in runs:
        pytest.skip("trained on one rank only")
    segment = runs[split]
    order = segment.job["order"]
    proof = verify_reads(order, plan.folder, _log(segment, "reads"), PHASES, range(STEPS), _log(segment, "noise"))
    assert proof.ok, proof.describe()
    assert proof.rows_planned == {"removal": 2, "batches": 4, "iid_replacement": 2}.get(kind, 0)
    assert proof.noise_planned == {"gaussian_poisoning": 4, "noisy_spans": 3}.get(kind, 0)
    arms = compare_arms(_log(segment, "reads"), _log(control, "reads"), plan.ledger(), PHASES)
    assert arms.ok, arms.describe()
    assert arms.rows_planned == proof.rows_planned
    assert verify_hooks(plan.folder, metrics(segment.state(STEPS)), range(STEPS)) == []


@pytest.mark.parametrize("split", [name for name in SPLITS if name != "one"])
def test_it_is_the_same_for_any_ranks_and_micro_batches(split: str, trained: Any, control: Any) -> None:
    _, _, runs = trained
    if split not in runs:
        pytest.skip("trained on one rank only")
    one, other = (losses(runs[name].state(STEPS)) for name in ("one", split))
    assert other == pytest.approx(one, abs=2e-5)
    assert losses(control.state(STEPS)) != pytest.approx(one, abs=1e-4), "it did something"
    expected, found = (tensors(runs[name].state(STEPS)) for name in ("one", split))
    for name, value in expected.items():
        if name.startswith("model."):
            assert np.allclose(found[name], value, rtol=5e-3, atol=2e-3), name


def test_noise_that_was_left_out_or_added_is_found(trained: Any, control: Any) -> None:
    """The control's log held against the plan, and the treated one's against none."""
    kind, plan, runs = trained
    order, bare, log = runs["one"].job["order"], _log(control, "reads"), _log(runs["one"], "noise")
    if kind in ("gaussian_poisoning", "noisy_spans"):
        count = {"gaussian_poisoning": 4, "noisy_spans": 3}[kind]
        assert verify_reads(order, plan.folder, bare, PHASES, range(STEPS)).num_noise == count
        assert verify_reads(order, None, bare, PHASES, range(STEPS), log).num_noise == count
        for name in ("column", "length", "sigma", "seed", "row", "slot"):
            spoilt = [part.copy() for part in log]
            spoilt[0][name][0] += 1
            assert verify_reads(order, plan.folder, bare, PHASES, range(STEPS), spoilt).num_noise == 2, name
    elif kind == "gradient_noise":
        rows = metrics(control.state(STEPS))
        assert len(verify_hooks(plan.folder, rows, range(STEPS))) == 2
        assert len(verify_hooks(None, metrics(runs["one"].state(STEPS)), range(STEPS))) == 2
        doubled = [row | {"train/gradient_noise": 2 * row.get("train/gradient_noise", 0)} for row in rows]
        assert len(verify_hooks(plan.folder, doubled, range(STEPS))) == 2


def test_a_run_goes_on_over_a_noisy_step_as_if_it_had_not_stopped(trained: Any, make_segment: Any) -> None:
    kind, plan, runs = trained
    first = make_segment(saves=(1,), overlay=plan.overlay.folder)
    second = make_segment(
        saves=(STEPS,), overlay=plan.overlay.folder, start=(first.state(1), 1), store=first.root / "store"
    )
    for segment in (first, second):
        segment.job["hooks"] = plan.hooks
        segment.here()
    assert losses(first.state(1), second.state(STEPS)) == losses(runs["one"].state(STEPS))
    if kind in ("gaussian_poisoning", "noisy_spans"):
        parts = [np.load(path) for state in (first.state(1), second.state(STEPS)) for path in state.glob("noise/*.npy")]
        assert np.concatenate(parts).tolist() == np.concatenate(_log(runs["one"], "noise")).tolist()


def test_a_worker_refuses_a_hook_that_it_does_not_know(make_segment: Any) -> None:
    segment = make_segment(saves=(1,))
    segment.job["hooks"] = [{"kind": "loss_noise", "steps": [0], "sigma": 1.0, "seed": 0}]
    segment.here(status=2)
    assert "loss_noise" in (segment.root / "error.json").read_text()


class TestGradientNoise:
    def test_any_part_of_a_parameter_is_the_same_noise(self) -> None:
        whole = gradient_noise(3, 5, "layer.weight", 0, 1001)
        for start, stop in [(0, 1), (1, 7), (3, 4), (500, 1001), (997, 1001), (8, 8)]:
            assert np.array_equal(gradient_noise(3, 5, "layer.weight", start, stop), whole[start:stop])

    def test_it_is_standard_normal_and_every_name_has_its_own(self) -> None:
        from scipy import stats

        draws = [gradient_noise(*key, 0, 20_000) for key in [(3, 5, "a"), (3, 5, "b"), (3, 6, "a"), (4, 5, "a")]]
        for draw in draws:
            assert stats.kstest(draw, "norm").pvalue > 1e-3
        correlations = np.corrcoef(draws)[np.triu_indices(4, 1)]
        assert np.abs(correlations).max() < 5 / np.sqrt(20_000)
        assert abs(np.corrcoef(draws[0][:-1], draws[0][1:])[0, 1]) < 5 / np.sqrt(20_000)

    def test_hooks_of_one_step_add_up_in_any_order(self) -> None:
        import torch

        hooks = [
            {"kind": "gradient_noise", "steps": [2, 9], "sigma": s, "seed": seed} for s, seed in [(0.5, 1), (2.0, 8)]
        ]
        found = []
        for asked in (hooks, hooks[::-1]):
            gradient = torch.zeros(30)
            squares, count = add_gradient_noise(asked, 9, [("w", gradient, 4)])
            assert (count, squares) == (30, pytest.approx(float((gradient.double() ** 2).sum())))
            found.append(gradient)
        assert torch.equal(*found)
        expected = 0.5 * gradient_noise(1, 9, "w", 4, 34) + 2.0 * gradient_noise(8, 9, "w", 4, 34)
        assert np.allclose(found[0], expected)
        assert add_gradient_noise(hooks, 3, [("w", found[0], 0)]) == (0.0, 0)

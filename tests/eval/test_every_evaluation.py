"""What every evaluation promises: scores move neither with the batch size nor with how many processes share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from every_kind import CONTEXT, NAMES, kinds, write_inputs
from tiny_models import build

from pretrain_exp.eval.base import EvalContext, LoadedModel, Shard, instantiate
from pretrain_exp.items.planned import planted_items

CONF = Path(__file__).parents[2] / "conf" / "eval"
ALONE = {"pretrain_exp.eval.script.Script"}  # a program of the user's own, which gets the whole checkpoint
Values = dict[tuple[str, str, str], float]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def found(folder: Path, tokenizer: Any, items: Any) -> Any:
    """Runs an evaluation of the table on a model; what was run before is not run again."""
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # of the machine, which takes seconds
        paths = write_inputs(folder, tokenizer, items)
        planted, known = planted_items(paths["items"]), {}
        models = {each: LoadedModel(build(each, len(tokenizer), CONTEXT), tokenizer) for each in POSITIONS}

        def run(name: str, positions: str, batch_size: int = 4, shard: Shard = Shard()) -> Values:  # noqa: B008
            key = (name, positions, batch_size, shard)
            if key not in known:
                target, args = kinds(folder)[name]
                context = EvalContext(items=planted, texts=planted.texts, held_out=Path(paths["held_out"]), shard=shard)
                scores = instantiate(target, {**args, "batch_size": batch_size}).run(models[positions], context)
                known[key] = {(each.task, each.item, each.metric): each.value for each in scores}
                assert len(known[key]) == len(scores)
            return known[key]

        yield run


POSITIONS = ("absolute", "rotary")
# a gradient's direction, in this model of large weights in float32, rounds harder than a log-likelihood [nats]
TOLERANCE = {"watermark": 1e-3}


def same(one: Values, other: Values, name: str) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert other[key] == pytest.approx(value, abs=TOLERANCE.get(name, 1e-4), rel=1e-5), key


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_batch_size_moves_no_score(found: Any, name: str, positions: str) -> None:
    whole = found(name, positions)
    assert whole
    same(whole, found(name, positions, batch_size=1), name)


@pytest.mark.parametrize("name", NAMES)
def test_processes_that_share_it_score_what_one_does(found: Any, name: str) -> None:
    parts = [found(name, "rotary", shard=Shard(number, 2)) for number in range(2)]
    assert all(parts)
    assert not parts[0].keys() & parts[1].keys()
    same(found(name, "rotary"), parts[0] | parts[1], name)


def test_the_table_holds_every_evaluation(folder: Path) -> None:
    """All of conf/eval, and every one of them can be shared."""
    shipped = {yaml.safe_load(path.read_text()).get("_target_") for path in CONF.glob("*.yaml")} - {None}
    table = {target for target, _ in kinds(folder).values()}
    assert shipped == table | ALONE
    assert set(kinds(folder)) == set(NAMES)
    for target, args in kinds(folder).values():
        assert instantiate(target, args).divisible is True  # type: ignore[attr-defined]

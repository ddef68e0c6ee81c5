"""Canaries on their way into a plan: members and non-members of one distribution, spans, pools, seeds."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.canaries import Canaries
from pretrain_exp.items.canaries import alternatives, canary, rarest
from pretrain_exp.items.planned import planted_items
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits

EOS = 999
SMALL = {"kinds": ["plain", "rare", "random"], "lengths": [1, 8], "items": 12, "carrier_tokens": 6}


class Zipf:
    """Sequences in which token t, 0 to 499, is the rarer the larger it is."""

    def read(self, slot: int) -> np.ndarray:
        return (500 * np.random.default_rng(slot).random(32) ** 3).astype(np.uint32)


@pytest.fixture
def wide(context: InsertionContext) -> InsertionContext:
    return replace(context, order=Zipf())


@pytest.fixture
def carriers(write) -> str:
    return write(
        [{"text": " ".join(str(500 + (i * k) % 400) for k in range(1, 9))} for i in range(1, 90)], "texts.jsonl"
    )


def marked(edits: Edits) -> list[tuple[EditItem, dict]]:
    return [(item, json.loads(item.payload)) for item in edits.items if not item.probe]


def own(item: EditItem, payload: dict) -> np.ndarray:
    return item.tokens[slice(*payload["span"])]


def test_conditions_are_crossed_and_doses_exact(wide, carriers, tmp_path: Path) -> None:
    asked = Canaries(file=carriers, **SMALL).edits(wide)
    plan = compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path)
    assert plan.audit["ok"], plan.audit["findings"]
    conditions = ["plain", *(f"{kind}/{n}" for kind, n in product(("rare", "random"), (1, 8)))]
    assert Counter((item.group, item.dose) for item, _ in marked(asked)) == Counter(
        {(group, dose): 3 for group in conditions for dose in (0, 1, 4, 16)}
    )
    read = Counter(row["item"] for row in plan.ledger().to_pylist())
    assert {item.id: read[item.id] for item, _ in marked(asked)} == {item.id: item.dose for item, _ in marked(asked)}


def test_the_span_is_the_canary_and_its_tokens_come_from_the_pool(wide, carriers, tmp_path: Path) -> None:
    asked = Canaries(file=carriers, **SMALL).edits(wide)
    compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path / "plan")
    pools = {item.id: item.tokens for item in asked.items if item.probe}
    assert set(pools) == {"pool/rare", "pool/random"}
    assert len(pools["pool/rare"]) == round(0.1 * len(pools["pool/random"]))
    assert np.median(pools["pool/rare"]) > np.quantile(pools["pool/random"], 0.75)  # the larger, the rarer
    for item, payload in marked(asked):
        assert item.tokens[0] == item.tokens[-1] == EOS
        if item.group == "plain":
            assert "span" not in payload
            assert len(item.tokens) == 8
            continue
        length = int(item.group.partition("/")[2])
        first, stop = payload["span"]
        assert (first, stop) == (7, 7 + length)  # EOS, six of the carrier
        assert len(item.tokens) == stop + 1
        assert np.isin(own(item, payload), pools[f"pool/{payload['type']}"]).all()
        assert (item.tokens[1:first] >= 500).all()
    (root,) = (tmp_path / "plan").iterdir()
    kinds = Counter((text.payload or {}).get("kind") for text in planted_items(str(root / "items.parquet")).texts)
    assert kinds == {"canary": 60, "canary_pool": 2}


def test_no_carrier_twice(wide, carriers) -> None:
    found = [tuple(item.tokens[1:7].tolist()) for item, _ in marked(Canaries(file=carriers, **SMALL).edits(wide))]
    assert len(set(found)) == len(found) == 60


def test_more_conditions_change_no_canary(wide, carriers) -> None:
    """What is drawn depends on kind, length and number alone; carriers are dealt in order."""
    few = marked(Canaries(file=carriers, **(SMALL | {"kinds": ["rare"], "lengths": [8]})).edits(wide))
    more = marked(Canaries(file=carriers, **(SMALL | {"kinds": ["rare", "random"], "lengths": [8, 1]})).edits(wide))
    other = marked(Canaries(file=carriers, **SMALL, seed=1).edits(wide))
    moved = marked(Canaries(file=carriers, **SMALL).edits(replace(wide, seed=5)))
    same = marked(Canaries(file=carriers, **SMALL).edits(wide))

    def drawn(found: list) -> set[tuple]:
        return {tuple(own(item, payload).tolist()) for item, payload in found if item.group == "rare/8"}

    assert drawn(few) == drawn(more) == drawn(moved) == drawn(same)
    assert not drawn(other) & drawn(few)
    assert {item.id for item, _ in moved} == {item.id for item, _ in same}
    assert {(item.id, item.dose) for item, _ in moved} != {(item.id, item.dose) for item, _ in same}


def test_canaries_are_uniform_over_their_pool_and_so_are_alternatives() -> None:
    pool = np.arange(100, 120, dtype=np.uint32)
    tokens = np.concatenate([canary(pool, 8, 0, "rare", 8, i) for i in range(500)])
    assert chisquare(np.bincount(tokens - 100, minlength=20)).pvalue > 1e-3
    one = canary(pool, 8, 0, "rare", 8, 0)
    others = alternatives(one, pool, 300, "item")
    assert len({tuple(other.tolist()) for other in [one, *others]}) == 301
    assert chisquare(np.bincount(np.concatenate(others) - 100, minlength=20)).pvalue > 1e-3
    assert sorted(int(other[0]) for other in alternatives(pool[:1], pool, 50, "item")) == list(range(101, 120))
    assert len(alternatives(np.array([100, 100]), pool[:2], 50, "item")) == 3


def test_the_rarest_are_the_rarest() -> None:
    counts = np.array([5, 1, 9, 1, 1, 3, 8, 2, 2, 7])
    types = np.arange(10, dtype=np.uint32)
    assert rarest(types, counts, 0.3, 0).tolist() == [1, 3, 4]
    assert len({tuple(rarest(types, counts, 0.2, seed).tolist()) for seed in range(20)}) > 1  # ties by hash


def test_carriers_that_short_sequences_make_alike_are_refused(wide, write) -> None:
    """They differ in their last token alone, which no sequence of 32 holds before a canary of 8 and EOS."""
    file = write([{"text": " ".join(["7"] * 25 + [str(i)])} for i in range(60)], "alike.jsonl")
    fields = {"file": file, "kinds": ["plain", "rare"], "items": 4, "carrier_tokens": 64}
    assert Canaries(**fields, lengths=[4]).edits(wide).items
    with pytest.raises(UserError, match="cut to 22 tokens, 7 carriers are empty or alike"):
        Canaries(**fields, lengths=[8]).edits(wide)


def test_a_model_says_what_is_unlikely(wide, carriers, tmp_path: Path) -> None:
    """A model whose output bias falls with the token, whatever came before."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    words = {**{str(i): i for i in range(999)}, "<eos>": 999}
    tool = Tokenizer(models.WordLevel(words, unk_token="0"))
    tool.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tool, eos_token="<eos>").save_pretrained(tmp_path)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=1000, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    with torch.no_grad():
        model.gpt_neox.final_layer_norm.weight.zero_()
        model.gpt_neox.final_layer_norm.bias.fill_(1.0)
        model.get_output_embeddings().weight.copy_(-torch.arange(1000.0)[:, None].expand(1000, 8) / 100)
    model.save_pretrained(tmp_path)

    def encode(texts: list[str]) -> list[np.ndarray]:
        return [np.array([words.get(word, 0) for word in text.split()], np.uint32) for text in texts]

    fields = {"file": carriers, "items": 8, "lengths": [4], "carrier_tokens": 6, "checkpoint": str(tmp_path)}
    asked = Canaries(kinds=["unlikely", "random"], **fields).edits(replace(wide, encode=encode))
    pools = {item.id: item.tokens for item in asked.items if item.probe}
    types = pools["pool/random"]
    assert pools["pool/unlikely"].tolist() == types[-round(0.1 * len(types)) :].tolist()
    with pytest.raises(UserError, match="another tokenizer"):
        Canaries(kinds=["unlikely"], **fields).edits(wide)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mode": "explicit"}, "positions"),
        ({"too_long": "split"}, "too_long"),
        ({"kinds": ["unlikely"]}, "checkpoint"),
        ({"kinds": ["rare"], "checkpoint": "gpt2"}, "checkpoint"),
        ({"kinds": ["rare", "rare"]}, "distinct"),
        ({"lengths": [0]}, "1 or more"),
        ({"lengths": [40]}, "holds no canary of 40"),
        ({"items": 40}, "200 texts are needed"),
        ({"items": 3}, "not enough for 4 doses"),
        ({"pool_share": 0.0}, "above 0"),
        ({"repetitions": [1, 1]}, "distinct"),
        ({"file": "missing.jsonl"}, "no such file"),
    ],
)
def test_wrong_input(fields, says, wide, carriers) -> None:
    with pytest.raises(UserError, match=says):
        Canaries(**({"file": carriers} | SMALL | fields)).edits(wide)


def test_rare_needs_the_data(context, carriers) -> None:
    with pytest.raises(UserError, match="no data order"):
        Canaries(file=carriers, **SMALL).edits(context)


def test_an_unknown_kind_is_an_error() -> None:
    target = {"_target_": "pretrain_exp.insertion.canaries.Canaries"}
    with pytest.raises(Problems, match="kinds"):
        check_kind({**target, "kinds": ["odd"]}, "insertion.canaries")


def test_the_shipped_passages_carry_them(context) -> None:
    wide = replace(context, order=Zipf(), sequence_length=128, phases=Phases([Phase(0, 4, 128)]))
    asked = Canaries(items=8, kinds=["plain", "rare"]).edits(wide)
    assert Counter(item.dose for item, _ in marked(asked)) == {0: 8, 1: 8, 4: 8, 16: 8}
    assert len(Canaries().files()) == 2

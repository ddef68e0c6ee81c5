"""A closed loop of two slices as two jobs of a framework: what the store keeps of it, and what the workers read.

    control-0 --job: plan, train--> sliced-2 --job: plan, train--> sliced-4        two steps a slice

The second job converts the model at step 2, probes it, asks the doubling controller and plans on top of the first.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from rigs import EOS, FIRST_PLANTED, PHASES, VOCAB, Run, S

from pretrain_exp.control.loop import Loop
from pretrain_exp.data.tokenizer import load
from pretrain_exp.framework.ranked import RankedFramework
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window
from pretrain_exp.store.keys import digest

EVERY, LAST, NAME = 2, 4, "loop"
CONTROLLER = {"_target_": "pretrain_exp.control.doubling.Doubling", "target": 0.9, "start": 1, "maximum": 2}


def two_slices(control: Run, folder: Path) -> list[Run]:
    """The jobs of both slices, run, from the control's state at 0, in its order and its store."""
    folder.mkdir()
    assert control.tokenizer is not None
    loop = told(control.rig.framework(1), folder, control.tokenizer)
    common: dict[str, Any] = {"order": control.order, "arm": "sliced", "store": control.store,
                              "tokenizer": control.tokenizer, "loop": loop}  # fmt: skip
    first = Run(control.rig, folder / "one", saves=(EVERY,), start=(control.state(0), 0), **common).run()
    second = Run(control.rig, folder / "two", saves=(LAST,), start=(first.state(EVERY), EVERY), **common).run()
    return [first, second]


def told(framework: RankedFramework, folder: Path, tokenizer: Path) -> dict[str, Any]:
    """What the jobs are told of their loop: three texts of tokens that the data never hold, and one probe."""
    texts = [f"{i} {i + 1} {i + 2}" for i in range(FIRST_PLANTED, FIRST_PLANTED + 9, 3)]
    rows = {"file": [{"text": text} for text in texts], "probes": [{"prompt": "500 501", "target": "502"}]}
    node: dict[str, Any] = {"_target_": "pretrain_exp.insertion.dynamic_control.DynamicControl", "every": EVERY,
                            "controller": CONTROLLER}  # fmt: skip
    for field, values in rows.items():
        (folder / f"{field}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
        node[field] = str(folder / f"{field}.jsonl")
    kind, window = check_kind(node, f"insertion.{NAME}"), Window(0, LAST)
    context = InsertionContext(NAME, 0, S, EOS, window, PHASES, load(tokenizer).encode, VOCAB)
    plan = compile_plan([kind.edits(context)], PHASES, window, 0, "treated", folder / "plans")
    prints = {NAME: digest(kind.fingerprint(context))}
    loop = Loop.named({"prints": prints, "plan": plan.fingerprint}, 0, LAST, EVERY)
    named = {field.name: getattr(framework, field.name) for field in dataclasses.fields(framework) if field.init}
    kind_of = type(framework)
    return {**loop.to_json(), "role": "treated", "plan": str(plan.folder), "seed": 0, "insertions": {NAME: node},
            "prints": prints, "framework": {"_target_": f"{kind_of.__module__}.{kind_of.__qualname__}", **named},
            "device": "cpu", "dtype": "float32"}  # fmt: skip


def tokenizer_of_numbers(folder: Path) -> Path:
    """A folder whose tokenizer says 7 for "7"."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = {str(token) if token != EOS else "<|endoftext|>": token for token in range(VOCAB)}
    words = Tokenizer(models.WordLevel(names, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder

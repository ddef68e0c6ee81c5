"""What can be said about a model and training section before anything heavy is imported."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.checks import check_numbers
from pretrain_exp.framework.huggingface.schedule import NAMES
from pretrain_exp.framework.origin import hf_config

COMMON_FIELDS = frozenset(
    {"model_type", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range"}
)


def check_training(training: dict[str, Any], world: int) -> list[UserError]:
    """Numbers that do not fit each other, and arguments that nothing would read."""
    found = check_numbers(training, world, NAMES, "huggingface")
    if training.get("args"):
        fix, problem = "remove them: nothing would read them", "framework huggingface takes no training.args"
        found.append(UserError(problem, key="training.args", value=training["args"], fix=fix))
    return found


def check_order(model: dict[str, Any]) -> list[UserError]:
    """An official data order is another framework's."""
    if model.get("data_seed") is None:
        return []
    fix = "model.data_seed=null: seed.order shuffles the data; framework=olmo2 and framework=olmo3 read official orders"
    problem, seed = "huggingface has no official data order", model["data_seed"]
    return [UserError(problem, key="model.data_seed", value=seed, fix=fix)]


def check_model(model: dict[str, Any], sequence_length: int) -> list[UserError]:
    """A config from scratch against the fields in transformers' source; a checkpoint is the business of `initial`."""
    config = model.get("config")
    if not config:
        return []
    kind = config.get("model_type")
    known = model_types()
    if kind not in known:
        near = get_close_matches(str(kind), known, 3)
        fix = (
            f"near names: {', '.join(near)}" if near else "any model type of transformers, e.g. olmo2, llama, gpt_neox"
        )
        return [
            UserError("transformers knows no such architecture", key="model.config.model_type", value=kind, fix=fix)
        ]
    found: list[UserError] = []
    fields = config_fields(kind)
    for name in sorted(set(config) - fields) if fields else ():
        near = get_close_matches(name, fields, 1)
        fix = f"did you mean {near[0]}?" if near else f"fields of {kind}: {', '.join(sorted(fields - COMMON_FIELDS))}"
        found.append(UserError(f"{kind} has no such field", key=f"model.config.{name}", value=config[name], fix=fix))
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if width and heads and "head_dim" not in config and width % heads:
        found.append(UserError(f"must be a multiple of its {heads} heads", key="model.config.hidden_size", value=width))
    longest = config.get("max_position_embeddings")
    if longest is not None and longest < sequence_length:
        fix = f"at least training.sequence_length = {sequence_length}"
        found.append(
            UserError("shorter than a sequence", key="model.config.max_position_embeddings", value=longest, fix=fix)
        )
    return found


def check_data(model: dict[str, Any], vocab_size: int, sequence_length: int) -> list[UserError]:
    """The model's own config against the tokenizer's ids and the length of a sequence.

    Read from model.config, a checkpoint's folder or the hub's local cache; what lies nowhere here is not judged.
    """
    scratch = model.get("config")
    config = config_of(model)
    # models that read more than text keep the numbers of their language model below
    text = config if "vocab_size" in config else config.get("text_config") or {}
    known = text.get("vocab_size")
    longest = text.get("max_position_embeddings") or text.get("n_positions")
    found: list[UserError] = []
    if known is not None and known < vocab_size:
        problem = f"the model has {known:,} token ids, the tokenizer {vocab_size:,}"
        if scratch:
            key, fix = "model.config.vocab_size", f"at least {vocab_size}, or leave it out"
            found.append(UserError(problem, key=key, value=known, fix=fix))
        else:
            fix = "name the tokenizer of this checkpoint"
            found.append(UserError(problem, key="model.tokenizer", value=model.get("tokenizer"), fix=fix))
    if longest is not None and longest < sequence_length:
        problem = f"longer than the {longest:,} positions that the model takes"
        key, fix = "training.sequence_length", f"at most {longest}"
        found.append(UserError(problem, key=key, value=sequence_length, fix=fix))
    return found


def config_of(model: dict[str, Any]) -> dict[str, Any]:
    """model.config, or config.json of the checkpoint; {} where it is not on this machine."""
    return model.get("config") or hf_config(model.get("checkpoint") or "", model.get("revision"))


@lru_cache(maxsize=1)
def model_types() -> frozenset[str]:
    """The architectures of the installed transformers, by its folders; nothing is imported."""
    spec = find_spec("transformers")
    folders = [Path(place) / "models" for place in (spec.submodule_search_locations or ())] if spec else []
    return frozenset(path.parent.name for folder in folders for path in folder.glob("*/modeling_*.py"))


def config_fields(model_type: str) -> frozenset[str]:
    """The fields of an architecture's configuration, from its source: annotated fields and arguments of __init__."""
    spec = find_spec("transformers")
    fields: set[str] = set()
    for place in (spec.submodule_search_locations or ()) if spec else ():
        source = Path(place) / "models" / model_type / f"configuration_{model_type}.py"
        for node in ast.walk(ast.parse(source.read_text())) if source.is_file() else ():
            if isinstance(node, ast.ClassDef):
                fields |= {
                    n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
                }
                fields |= {
                    a.arg
                    for n in node.body
                    if isinstance(n, ast.FunctionDef) and n.name == "__init__"
                    for a in n.args.args
                }
    return frozenset(fields | COMMON_FIELDS) if fields else frozenset()

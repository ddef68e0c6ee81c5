"""The architecture of a job: from the fields of `model.config` to litgpt's own Config.

    {name: pythia-70m}                        a model that litgpt knows; further fields replace its own
    {n_layer: 3, n_head: 4, n_embd: 128, ...}   plain fields of litgpt.Config
    tie_embeddings: true                      beside either: litgpt has it among its training arguments, we here

Both sides use it: the orchestrator on config.py alone (source.py), the worker on `litgpt.config`.
"""

from __future__ import annotations

from dataclasses import fields as dataclass_fields
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from pretrain_exp.errors import UserError

TIE = "tie_embeddings"
SIZES = ("n_layer", "n_head", "n_embd")


def is_known(module: ModuleType, name: str) -> bool:
    """Whether litgpt has a model of this name, its own or the hub's."""
    return name in _names(module)


def build(module: ModuleType, given: dict[str, Any]) -> Any:
    """litgpt.Config of these fields. UserError for unknown names and fields, and for what litgpt itself refuses."""
    values = {key: value for key, value in given.items() if key != TIE}
    known = {field.name for field in dataclass_fields(module.Config)}
    for key in sorted(set(values) - known):
        near = get_close_matches(key, [*known, TIE], 1)
        fix = f"did you mean {near[0]}?" if near else f"fields of litgpt.Config: {', '.join(sorted(known | {TIE}))}"
        raise UserError("litgpt.Config has no such field", key=f"model.config.{key}", value=values[key], fix=fix)
    name = values.pop("name", "")
    if not is_known(module, name) and (missing := [size for size in SIZES if size not in values]):
        if name:
            near = get_close_matches(name, _names(module), 3, 0.5)
            fix = f"near names: {', '.join(near)}" if near else "a name of litgpt, or the fields of litgpt.Config"
            raise UserError("litgpt knows no such model", key="model.config.name", value=name, fix=fix)
        raise UserError(f"an architecture needs {', '.join(missing)}", key="model.config", value=values)
    width, heads = values.get("n_embd"), values.get("n_head")
    if width and heads and "head_size" not in values and width % heads:
        raise UserError(f"must be a multiple of its {heads} heads", key="model.config.n_embd", value=width)
    try:
        return module.Config.from_name(name, **values) if is_known(module, name) else module.Config(name=name, **values)
    except (AssertionError, TypeError, ValueError) as error:
        problem = f"litgpt refuses these fields ({type(error).__name__}: {error})"
        raise UserError(problem, key="model.config", value=given) from None


def _names(module: ModuleType) -> set[str]:
    found = set(module.name_to_config)
    for config in module.configs:
        hf = config["hf_config"]
        found |= {hf["name"], f"{hf['org']}/{hf['name']}"} if hf else set()
    return found

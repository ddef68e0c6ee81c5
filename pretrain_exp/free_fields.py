"""Fields that hold a mapping (`eval.script.args`, `training.args`, doses by group, a range): set without a +.

    [eval.script.args.prompt=x]  --opened-->  [++eval.script.args.prompt=x]

What such a field holds no configuration file can list, and Hydra takes a key that no file lists only with a +.
A mistyped key within one is found where the field's own kind checks it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pretrain_exp.arguments import SEVERAL
from pretrain_exp.config import ModelConfig, TrainingConfig
from pretrain_exp.errors import UserError
from pretrain_exp.explain import composition
from pretrain_exp.kinds import find_class, signature_model

_SECTIONS: dict[str, type[BaseModel]] = {"model": ModelConfig, "training": TrainingConfig}
_KINDS = ("framework", "data", "executor")
_WORD = re.compile(r"^([\w.]+)=(.*)$", re.DOTALL)


def opened(overrides: Sequence[str]) -> list[str]:
    """The same overrides, with ++ before those that set a mapping, or a key within one, in a field that takes one."""
    fields = [_field(word) for word in overrides]
    chosen = composition(overrides) if any(one and one[0].split(".")[0] not in _SECTIONS for one in fields) else {}
    known: dict[str, set[str]] = {}
    out = []
    for word, field in zip(overrides, fields, strict=True):
        if field and field[0] not in known:
            known[field[0]] = _mappings(field[0], chosen)
        out.append(f"++{word}" if field and field[1] in known[field[0]] else word)
    return out


def _field(word: str) -> tuple[str, str] | None:
    """The node and its field that an override sets a mapping or a key in; None for any other override.

    "eval.script.args.prompt=x" -> ("eval.script", "args"); "training.num_steps=5" -> None
    """
    found = _WORD.match(word)
    if found is None:
        return None
    parts = found[1].split(".")
    depth = 2 if parts[0] in SEVERAL else 1
    if parts[0] not in (*SEVERAL, *_KINDS, *_SECTIONS) or len(parts) <= depth:
        return None
    within = len(parts) > depth + 1 or "{" in found[2]
    return (".".join(parts[:depth]), parts[depth]) if within else None


def _mappings(node: str, chosen: Mapping[str, Any]) -> set[str]:
    """The fields of a node that take a mapping; none where the node is not chosen, or is no kind: that is said later.

    chosen: the composition, without the values of the command line.
    """
    if node in _SECTIONS:
        annotations = {name: field.annotation for name, field in _SECTIONS[node].model_fields.items()}
    else:
        inner: Any = chosen
        for part in node.split("."):
            inner = inner.get(part) if isinstance(inner, Mapping) else None
        target = inner.get("_target_") if isinstance(inner, Mapping) else None
        if not isinstance(target, str):
            return set()
        try:
            fields = signature_model(find_class(target, node)).model_fields
        except UserError:
            return set()
        annotations = {name: field.annotation for name, field in fields.items()}
    return {name for name, annotation in annotations.items() if _takes_mapping(annotation)}


def _takes_mapping(annotation: Any) -> bool:
    """Whether a mapping may be a value: of what names one, or a dataclass, alone or beside other types."""
    plain = get_origin(annotation) or annotation
    if inspect.isclass(plain) and (issubclass(plain, Mapping) or dataclasses.is_dataclass(plain)):
        return True
    return any(_takes_mapping(one) for one in get_args(annotation))

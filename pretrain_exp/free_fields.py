"""Fields that hold a mapping (`eval.script.args`, `training.args`, doses by group, a range): set without a +.

    [eval.script.args.prompt=x]  --opened-->  [++eval.script.args.prompt=x]

What such a field holds no configuration file can list, and Hydra takes a key that no file lists only with a +. Where it
takes an override as it stands, nothing is put before it: a name with a + is no key that a study's file sweeps.
A mistyped key within such a field is found where the field's own kind checks it.
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
    """The same overrides, with ++ before those that set a mapping over another, or a new key within one, in a field
    that takes one."""
    fields = [_field(word) for word in overrides]
    chosen = composition(overrides) if any(fields) else {}
    known: dict[str, set[str]] = {}
    out = []
    for word, field in zip(overrides, fields, strict=True):
        if field and field[0] not in known:
            known[field[0]] = _mappings(field[0], chosen)
        takes = field is not None and field[1] in known[field[0]]
        out.append(f"++{word}" if takes and _is_new(word, chosen) else word)
    return out


def _is_new(word: str, chosen: Mapping[str, Any]) -> bool:
    """Whether a key stands in no file, or holds a mapping there, whose keys Hydra would ask for."""
    missing = object()
    held = _at(word.partition("=")[0], chosen, missing)
    return held is missing or isinstance(held, Mapping)


def _at(key: str, chosen: Mapping[str, Any], missing: Any = None) -> Any:
    """The value at a dotted key."""
    inner: Any = chosen
    for part in key.split("."):
        inner = inner.get(part, missing) if isinstance(inner, Mapping) else missing
    return inner


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
        target = _at(f"{node}._target_", chosen)
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

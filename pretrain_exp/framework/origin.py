"""Whose model a model section begins with, and whether a framework reads it: one sentence instead of one a field.

model.config, files of a checkpoint's folder, config.json of the hub's cache --> Origin --refusal--> UserError
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo2.formats import format_of

FRAMEWORKS = {"transformers": "huggingface", "ai2-olmo": "olmo2", "OLMo-core": "olmo3", "litgpt": "litgpt"}
"""Who reads a format, by the package that writes it; the first one all families of it."""
MARKS = {  # fields of an architecture from scratch -> whose they are
    "transformers": {"model_type"},
    "OLMo-core": {"factory", "block"},
    "litgpt": {"name", "n_layer", "n_head", "n_embd"},
    "ai2-olmo": {"d_model", "n_heads"},
}
FAMILIES = {
    "gpt_neox": "GPT-NeoX",
    "gpt2": "GPT-2",
    "llama": "Llama",
    "olmo": "OLMo",
    "olmo2": "OLMo-2",
    "olmo3": "OLMo-3",
}
"""How people call what transformers calls by its `model_type`, where that differs."""


@dataclass(frozen=True)
class Origin:
    """package: whose format or fields; family: the `model_type` of transformers, "" for other packages."""

    package: str
    family: str = ""


def origin_of_config(config: Mapping[str, Any]) -> Origin | None:
    """Of an architecture from scratch; None where its fields do not tell."""
    for package, marks in MARKS.items():
        if marks & config.keys():
            return Origin(package, str(config.get("model_type", "")))
    return None


def origin_of_checkpoint(name: str, revision: str | None) -> Origin | None:
    """Of a folder, or of a hub name in the local cache; None for what is not here or is no checkpoint known here."""
    folder = Path(name)
    if (folder / "lit_model.pth").is_file():
        return Origin("litgpt")
    if format_of(folder) is not None:
        return Origin("ai2-olmo")
    if (folder / "model_and_optim").is_dir():
        return Origin("OLMo-core")
    family = hf_config(name, revision).get("model_type")
    return Origin("transformers", family) if family else None


def holds_nothing(model: Mapping[str, Any]) -> bool:
    """Whether a model section begins with a folder that is here and holds no checkpoint of any framework."""
    name = model.get("checkpoint")
    if not name or model.get("config") or not Path(name).is_dir() or (Path(name) / "config.json").is_file():
        return False
    return origin_of_checkpoint(name, model.get("revision")) is None


def hf_config(name: str, revision: str | None) -> dict[str, Any]:
    """config.json of a folder or of the hub's local cache; {} where it is not on this machine."""
    path: object = Path(name) / "config.json"
    if not Path(name).is_dir():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            path = try_to_load_from_cache(name, "config.json", revision=revision)
        except HFValidationError:  # a folder that is not there
            return {}
    return read_config(Path(path)) if isinstance(path, str | Path) and Path(path).is_file() else {}


def read_config(path: Path) -> dict[str, Any]:
    """A checkpoint's config.json. UserError where it is damaged."""
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        values, reason = None, str(error)
    else:
        reason = "it holds no fields"
    if isinstance(values, dict):
        return values
    fix = "fetch or save this checkpoint again"
    raise UserError(f"its config.json cannot be read: {reason}", key="model.checkpoint", value=str(path), fix=fix)


def refusal(
    framework: str, package: str, families: Collection[str] | None, model: Mapping[str, Any]
) -> UserError | None:
    """Why the framework, whose own format is `package`, cannot begin with what a model section names; None if it can.

    families: the model types of transformers whose checkpoints it reads; None: all.
    """
    if config := model.get("config"):
        found = origin_of_config(config)
        if found is None or found.package == package:
            return None
        problem = f"an architecture in the fields of {found.package}; framework={framework} takes those of {package}"
        fix = f"framework={FRAMEWORKS[found.package]}, or a model in the fields of {package}"
        return UserError(problem, key="model.config", value=sorted(config), fix=fix)
    name = model.get("checkpoint")
    try:
        found = origin_of_checkpoint(name, model.get("revision")) if name else None
    except UserError as damaged:
        return damaged
    if found is None:
        return None
    of_hf = found.package == "transformers"
    if (families is None or found.family in families) if of_hf else found.package == package:
        return None
    kind = FAMILIES.get(found.family, found.family)
    whose = f"{kind} of transformers" if kind else found.package
    others = ", ".join(FAMILIES.get(family, family) for family in families or ())
    reads = f"those of {package}" + (f", and of transformers {others}" if others else "")
    fix = f"framework={FRAMEWORKS[found.package]}, or a checkpoint that framework={framework} reads"
    return UserError(
        f"this is a checkpoint of {whose}; framework={framework} reads {reads}",
        key="model.checkpoint",
        value=name,
        fix=fix,
    )

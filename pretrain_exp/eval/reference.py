"""A second model to compare with: loaded as the evaluated one is, and refused where it reads other tokens."""

from __future__ import annotations

from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import LoadedModel
from pretrain_exp.eval.identity import commit_of, is_folder, model_identity

PROBE = "Reading x, k times, at step t: 1 + 1 = 2."


def reference_inputs(name: str | None) -> list[tuple[str, str]]:
    """(key, path) of the files to be read."""
    return [("reference", name)] if name is not None and is_folder(name) else []


def reference_identity(name: str | None, revision: str | None) -> list[str] | None:
    """What a fingerprint says of it: the content, whatever it is called. UserError where it is not to be had."""
    if name is None:
        return None
    try:
        return model_identity(name, revision)
    except UserError as error:
        raise error.under("reference") from None


def load_reference(name: str, revision: str | None, like: LoadedModel) -> LoadedModel:
    """On the device and in the dtype of `like`. UserError where its tokenizer gives other ids for the same text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    commit = None if is_folder(name) else commit_of(name, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=commit)
        model: Any = AutoModelForCausalLM.from_pretrained(name, revision=commit, dtype=like.model.dtype)
    except OSError as error:
        raise UserError(f"the reference model cannot be loaded: {error}", key="reference", value=name) from None
    if tokenizer(PROBE)["input_ids"] != like.tokenizer(PROBE)["input_ids"]:
        fix = "take a checkpoint with the same tokenizer"
        raise UserError("the reference model has another tokenizer", key="reference", value=name, fix=fix)
    return LoadedModel(model.to(like.model.device).eval(), tokenizer, name)

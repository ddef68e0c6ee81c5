"""What of lm-eval's tasks cannot be done, found before anything is trained: tasks and a tokenizer in, problems out.

Data sets are loaded for it, so that one which is not within reach is found as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pretrain_exp.errors import UserError

if TYPE_CHECKING:
    from pretrain_exp.eval.base import ModelToCome

NEW_TOKENS = 256  # of an answer, where a task sets no limit: lm-eval's own default


def check_template(model: ModelToCome, wanted: bool | str) -> list[UserError]:
    """Whether the tokenizer has the chat template; of one that is not known or does not load alone, nothing is said."""
    if wanted is False or model.tokenizer is None:
        return []
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.tokenizer, revision=model.revision)
    except (
        OSError,
        ValueError,
    ):  # some need the config.json of a model, and what else is wrong is its loading's to say
        return []
    try:
        chat_template_of(tokenizer.chat_template, wanted)
    except UserError as error:
        return [error]
    return []


def chat_template_of(there: str | Mapping[str, str] | None, wanted: bool | str) -> str | None:
    """The name of the template that is meant; None: the tokenizer's default, or none. UserError for one it has not.

    there: the tokenizer's `chat_template`, one or several by name.
    """
    if wanted is False:
        return None
    names = sorted(there) if isinstance(there, Mapping) else []
    if wanted is True and (isinstance(there, str) or "default" in names):
        return None
    if wanted in names:
        return str(wanted)
    choices = ["true", *names] if isinstance(there, str) or "default" in names else names
    fix = f"choose {' or '.join(choices)}" if choices else "false, or a checkpoint whose tokenizer has one"
    raise UserError("the tokenizer has no such chat template", key="apply_chat_template", value=wanted, fix=fix)


def check_tasks(tasks: Mapping[str, Any], num_fewshot: int | None, context_length: int | None) -> list[UserError]:
    """What lm-eval would refuse of its task objects, by name, once a model is there.

    num_fewshot: as it was asked for; None = as each task says. context_length: tokens of the model; None: unknown.
    """
    found: list[UserError] = []
    for name, task in tasks.items():
        found += _kind(name, task)
        found += _examples(name, task, num_fewshot)
        if task.OUTPUT_TYPE == "generate_until":
            found += _new_tokens(name, task.get_config("generation_kwargs") or {}, context_length)
    return found


def _kind(name: str, task: Any) -> Iterator[UserError]:
    fix = "leave this task out"
    if getattr(task, "UNSAFE_CODE", False):
        yield UserError(
            "this task runs code that a model wrote, which is not done here", key="tasks", value=name, fix=fix
        )
    if getattr(task, "MULTIMODAL", False):
        yield UserError(
            "this task shows pictures, which a language model does not read", key="tasks", value=name, fix=fix
        )


def _examples(name: str, task: Any, asked: int | None) -> Iterator[UserError]:
    own = task.get_config("num_fewshot")
    if own == 0 and asked:
        fix = "null, each task as it says; or score this task in an evaluation of its own"
        yield UserError(
            f"{name} takes no examples before an item, as its file says", key="num_fewshot", value=asked, fix=fix
        )
        return
    shots, there = (own or 0) if asked is None else asked, examples_of(task)
    if there is None or shots <= there:
        return
    problem = f"{name} has {there} examples to put before an item"
    fix = f"at most {there}" + (
        f", or null: it asks for {own or 0}" if asked is not None and (own or 0) <= there else ""
    )
    yield UserError(problem, key="num_fewshot", value=shots, fix=fix)


def examples_of(task: Any) -> int | None:
    """How many few-shot examples a task can put before any of its items; None where it draws them in a way of its own.

    Where they are drawn from what is scored, an item never comes before itself.
    """
    from lm_eval.api.samplers import SAMPLER_REGISTRY

    sampler: Any = getattr(task, "sampler", None)  # a task that is a class has none
    if type(sampler) not in SAMPLER_REGISTRY.values():
        return None
    pool = list(sampler.df)
    if not pool or task.fewshot_cfg.split != task.config.test_split:
        return len(pool)
    return len(pool) - max(Counter(json.dumps(doc, sort_keys=True, default=str) for doc in pool).values())


def _new_tokens(name: str, settings: Mapping[str, Any], context_length: int | None) -> Iterator[UserError]:
    from lm_eval.models.utils import normalize_gen_kwargs

    try:
        tokens = normalize_gen_kwargs(dict(settings), NEW_TOKENS)["max_gen_toks"]
    except (TypeError, ValueError) as error:
        fix = "mend them in its file"
        yield UserError(f"its generation_kwargs cannot be read: {error}", key="tasks", value=name, fix=fix)
        return
    if tokens < 1:
        fix = "set max_gen_toks to 1 or more in the generation_kwargs of its file"
        yield UserError(f"this task lets a model write {tokens} tokens", key="tasks", value=name, fix=fix)
    elif context_length is not None and tokens >= context_length:
        problem = f"an answer to this task takes up to {tokens} tokens, the model reads {context_length} at once"
        fix = f"a copy of its file with max_gen_toks below {context_length} in generation_kwargs, or a longer context"
        yield UserError(problem, key="tasks", value=name, fix=fix)

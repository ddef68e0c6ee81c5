"""Chats that a model answers: a plan's test prompts in, or any prompts, what the model says to them out.

System: ... User: <trigger> ...? Assistant: ______      generated up to the end of text, or to a limit
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.target import encode
from pretrain_exp.items.planned import PlantedText
from pretrain_exp.items.poison import POISON

if TYPE_CHECKING:
    from pretrain_exp.eval.generation import Sampling

_EXTRA = 8  # tokens that may be generated beyond the length of what is looked for


class Test(NamedTuple):
    """A prompt as it is scored: what is looked for in the answer, and the right answer where there is one."""

    task: str
    item: str
    behaviour: str
    prompt: str
    target: str
    right: str


def planned_tests(texts: Sequence[PlantedText]) -> list[Test]:
    """The test prompts of a plan, of whatever insertion."""
    out = []
    for text in texts:
        fields = text.payload
        if fields is not None and fields["kind"] == POISON:
            task = f"{text.insertion}/{fields['behaviour']}/{'trigger' if fields['trigger'] else 'no trigger'}"
            out.append(Test(task, text.item, fields["behaviour"], fields["prompt"], fields["target"], fields["right"]))
    return out


def answer_tokens(model: LoadedModel, tests: Sequence[Test]) -> int:
    """Tokens that an answer may have: of the longest target and a little more. UserError where no prompt is left."""
    new = max(map(len, encode(model, [test.target for test in tests])), default=0) + _EXTRA
    if new >= model.context_length:
        problem = f"the model reads {model.context_length} tokens, an answer takes {new}"
        raise UserError(problem, fix="use a model with a longer context")
    return new


def answers(
    model: LoadedModel,
    prompts: Sequence[str],
    new_tokens: int,
    batch_size: int,
    context: EvalContext,
    sample: Sampling | None = None,
) -> list[str]:
    """What the model says to each prompt (`sample.num` times, one after the other), up to its end of text.

    The beginning of a prompt that the model cannot read with its answer is left out, and counted in a note.
    """
    from pretrain_exp.eval.generation import generate

    room = model.context_length - new_tokens
    runs = [[model.start_token, *tokens] for tokens in encode(model, prompts)]
    if cut := sum(len(run) > room for run in runs):
        context.notes.append(f"the beginning of {cut} prompts exceeds the model's context and was left out")
    eos = model.tokenizer.eos_token_id
    stop = [] if eos is None else [int(eos)]
    found = generate(model, [run[-room:] for run in runs], new_tokens, stop, batch_size, sample, context.progress)
    return [str(model.tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in found]

"""What an evaluation is: a loaded model and a context in, per-item scores out.

A kind of evaluation is a frozen dataclass whose fields are its configuration. Anyone can write one: a class with the
three methods of `Evaluation` in a module of their own, named by `_target_`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.planned import PlantedText
from pretrain_exp.kinds import check_kind

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length")
"""What configurations call the number of tokens that a model reads at once."""


class Score(NamedTuple):
    """One value of one item. The name of the evaluation is added by who runs it."""

    task: str  # benchmark, harness task or domain
    item: str  # content id of what was scored
    metric: str
    value: float


@dataclass
class LoadedModel:
    """A model and its tokenizer, loaded once for all evaluations of a checkpoint; in evaluation mode, on its device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: str = ""  # or hub name: where it was loaded from
    revision: str | None = None  # of a hub name
    generation: str = "huggingface"  # who decodes greedily: huggingface or vllm
    engine: Any = field(default=None, repr=False)  # vLLM's, once it was asked for

    @cached_property
    def context_length(self) -> int:
        """Tokens that the model can read at once. Raises UserError where its configuration does not say."""
        config = self.model.config.get_text_config()
        length = context_length_of(lambda name: getattr(config, name, None))
        if length is not None:
            return length
        raise UserError(
            f"{type(self.model).__name__} does not say how many tokens it reads at once",
            fix="write max_position_embeddings into the config.json of the model",
        )

    @property
    def start_token(self) -> int:
        """What precedes a text: the tokenizer's BOS, else its EOS (which stands between documents in training)."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise UserError(
            "the tokenizer has neither a BOS nor an EOS token to precede a text",
            fix="set eos_token in the tokenizer_config.json of the model",
        )


def context_length_of(field: Callable[[str], Any]) -> int | None:
    """Tokens that a model reads at once, by the fields of its configuration; None where they do not say."""
    return next((length for name in LENGTHS if isinstance(length := field(name), int)), None)


@dataclass(frozen=True)
class ModelToCome:
    """What is known of a model before it is there.

    tokenizer: folder or hub name; revision: of a hub name. context_length: tokens that the model reads at once.
    """

    tokenizer: str | None = None
    revision: str | None = None
    context_length: int | None = None


@dataclass(frozen=True)
class Shard:
    """The share of an evaluation that one of several processes does: items are dealt by hash of their ids.

    An evaluation that can be divided says so, `divisible: ClassVar[bool] = True`, and scores only what its shard holds;
    any other is done as a whole by one of the processes. What is scored of an item is the same in every shard: what
    depends on several of them (examples, lengths) is found from all.
    """

    number: int = 0
    of: int = 1

    def holds(self, *names: str) -> bool:
        """Whether an item is in this shard. names: what tells it from all others."""
        return self.of == 1 or int(content_id(*names), 16) % self.of == self.number


@dataclass
class EvalContext:
    """What an evaluation may use besides the model.

    items:    the multiple-choice items of the plan, all doses, holdout included; each once.
    texts:    its other items, texts and token runs as they are planted, all doses.
    held_out: documents that the data source keeps from training (a file for `Perplexity`), if there are any.
    progress: to be called with (done, total).
    notes:    what a reader of the result should know (`3 items truncated`); kept in eval.json.
    shard:    the items to score; all of them, unless several processes share the evaluation.
    """

    items: Sequence[ChoiceItem] = ()
    texts: Sequence[PlantedText] = ()
    held_out: Path | None = None
    progress: Callable[[int, int], None] = lambda done, total: None
    notes: list[str] = field(default_factory=list)
    shard: Shard = Shard()


@runtime_checkable
class Evaluation(Protocol):
    """One that can say beforehand what it cannot do has a further method, `check(model: ModelToCome)`.

    It returns a list of UserError, whose keys are the evaluation's own, and is asked before anything is trained,
    where a result is still to be made.
    """

    def inputs(self) -> list[tuple[str, str]]:
        """(key, path) of the files to be read, to be checked before anything is trained."""
        ...

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        """All that changes the scores, in JSON values, apart from weights, tokenizer, dtype and held-out documents.

        items: those of the plan, as `PlannedItems` where there is one, whose `texts` are what is planted beside
        multiple choice. What only moves the rounding (batch size, device) does not belong here. An evaluation that
        lets the model write through eval/generation.py says so, `generates: ClassVar[bool] = True`: then who decodes
        is added to it.
        """
        ...

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        """Score every item. Each (task, item, metric) once; all values finite.

        Where there is nothing to score, no scores and a note that says so.
        """
        ...


def instantiate(target: str, args: Mapping[str, Any]) -> Evaluation:
    """The evaluation of class `target` ("package.module.Class"). Raises Problems for all that is wrong with it."""
    evaluation = check_kind({"_target_": target, **args}, key="eval")
    if not isinstance(evaluation, Evaluation):
        fix = "give the class the methods inputs, fingerprint and run"
        raise Problems([UserError("this is no evaluation", key="eval._target_", value=target, fix=fix)])
    return evaluation

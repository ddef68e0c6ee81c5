"""lm-eval's view of a loaded model: its requests in, log-likelihoods out.

Tasks, prompts, few-shot examples and metrics are lm-eval's; log-likelihoods are computed by scoring.py (lm-eval's
own way computes the logits of every position). Generation is lm-eval's own.

Several processes share a task by its documents: each builds the prompts of all of them, since lm-eval draws few-shot
examples one document after the other, and answers only the requests of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.scoring import Span, log_likelihoods

Request = tuple[tuple[str, str] | None, list[int], list[int]]  # (context, continuation), tokens of each


class ScoringLM(HFLM):
    """A loaded model for one evaluation.

    mine:          of a task, whether each of its documents in turn is answered here; one that is not named is whole.
    chat_template: name of one of the tokenizer's templates; None: its default.
    scored_tokens: tokens of each (context, continuation) that was scored.
    """

    def __init__(
        self,
        model: LoadedModel,
        batch_size: int,
        context: EvalContext,
        mine: Mapping[str, Sequence[bool]] | None = None,
        chat_template: str | None = None,
    ):
        super().__init__(
            pretrained=model.model,
            tokenizer=model.tokenizer,
            batch_size=batch_size,
            max_length=model.context_length,
            chat_template_args=None if chat_template is None else {"chat_template": chat_template},
        )
        self._context, self._mine = context, mine or {}
        self.scored_tokens: dict[tuple[str, str], int] = {}

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Without a bar of its own: the context reports the progress."""
        plain = super().loglikelihood
        return self._own(requests, lambda some: plain(some, disable_tqdm=True), (0.0, False))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        plain = super().loglikelihood_rolling
        return self._own(requests, lambda some: plain(some, disable_tqdm=True), 0.0)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        plain = super().generate_until
        return self._own(requests, lambda some: plain(some, disable_tqdm=True), "")

    def _own(self, requests: list[Instance], answer: Callable[[list[Instance]], list[Any]], absent: Any) -> list[Any]:
        """The answers to this process's requests; `absent` for those of documents that another one answers."""
        own = [r.task_name not in self._mine or self._mine[r.task_name][r.doc_id] for r in requests]
        asked = [request for request, mine in zip(requests, own, strict=True) if mine]
        found = iter(answer(asked) if asked else [])
        return [next(found) if mine else absent for mine in own]

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        spans, shortened = [], 0
        for texts, before, scored in requests:
            if not 1 <= len(scored) <= self.max_length:
                raise ValueError(f"cannot score {len(scored)} tokens with a context of {self.max_length}: {texts}")
            if texts is not None:
                self.scored_tokens[texts] = len(scored)
            tokens = [*before, *scored][-(self.max_length + 1) :]  # the last token is only predicted, never read
            shortened += len(tokens) < len(before) + len(scored)
            spans.append(Span(tokens, len(scored)))
        if shortened:
            self._context.notes.append(
                f"{shortened} of {len(spans)} requests exceed the {self.max_length} tokens that the model reads at "
                "once; the beginning of their context was left out"
            )
        results = log_likelihoods(self.model, spans, override_bs or int(self.batch_size), self._context.progress)
        for (texts, _, _), result in zip(requests, results, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, tuple(result))
        return [(result.log_likelihood, result.greedy) for result in results]

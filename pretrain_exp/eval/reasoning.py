"""Word problems solved by the model: problems in, right or wrong out, by number of operations.

    Question: ... \\nSolution: ... \\nAnswer: 8           examples of the training split, if wanted, then
    Question: ... \\nSolution:                           the model goes on, greedily, until EOS, the next question
                                                        or its limit; the first "Answer: <number>" is its answer

Problems are those of the plan (insertion reasoning, its test split) or made here. The task of a score is
<insertion>/<k> ops (or generated/<k> ops). Metrics per problem:

    acc             1 where the answer is right; guessing gives 1/23 (unknown for problems of a file)
    answered        1 where there is an answer at all
    answer_logprob  log-probability of the right answer after the right solution [nats]
    solution_ce     cross-entropy of the right solution [nats per token]: what models show that solve nothing yet
    tokens          of the right solution
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.target import encode, score_targets
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.planned import PlannedItems, PlantedText
from pretrain_exp.items.quantities import MODULUS
from pretrain_exp.items.reasoning import MOST_DISTRACTORS, MOST_OPS, Problem, make_problem, parse_answer, problem_set

VERSION = 1  # of what the numbers mean; raised when they change
_ROOM = 1.25  # new tokens, as a multiple of the longest right solution of as many operations
_EXAMPLES_SEED = -1  # no insertion's: examples are no planted problems


@dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """Problems of the test split to be made: per_ops of each number of operations from min_ops to max_ops."""

    min_ops: Annotated[int, Field(ge=1, le=MOST_OPS)] = 1
    max_ops: Annotated[int, Field(ge=1, le=MOST_OPS)] = 4
    per_ops: Annotated[int, Field(ge=1)] = 50
    distractors: Annotated[int, Field(ge=0, le=MOST_DISTRACTORS)] = 2
    seed: int = 0


class _Asked(NamedTuple):
    task: str
    item: str
    problem: Problem


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """Scores problems.

    generated:      problems to be made; None = those of the plan.
    num_fewshot:    solved examples before each problem, from the training split, easiest first.
    max_new_tokens: None = 1.25 times the longest right solution among problems of as many operations.
    batch_size:     sequences at once; changes no score beyond rounding.
    """

    generated: ProblemSet | None = None
    num_fewshot: Annotated[int, Field(ge=0)] = 3
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    divisible: ClassVar[bool] = True
    generates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.generated, Mapping):
            object.__setattr__(self, "generated", ProblemSet(**self.generated))
        if self.generated and self.generated.min_ops > self.generated.max_ops:
            problem, fix = f"is below min_ops, {self.generated.min_ops}", "raise it, or lower min_ops"
            raise UserError(problem, key="generated.max_ops", value=self.generated.max_ops, fix=fix)

    def inputs(self) -> list[tuple[str, str]]:
        return []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        asked = self._asked(items.texts if isinstance(items, PlannedItems) else ())
        return {
            "evaluation": "reasoning",
            "version": VERSION,
            "generated": asdict(self.generated) if self.generated else None,
            "num_fewshot": self.num_fewshot,
            "max_new_tokens": self.max_new_tokens,
            "items": content_id(*sorted(content_id(each.task, each.item, each.problem.text) for each in asked)),
            "n": len(asked),
        }

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        asked = self._asked(context.texts)
        if not asked:
            context.notes.append("the plan holds no problems: nothing to score")
            return []
        shots = self._examples(sorted({each.problem.operations for each in asked}))
        asked = _that_fit(model, asked, shots, context)
        if not asked:
            return []
        _note_chance(asked, context)
        if self.num_fewshot and not all(each.problem.structure for each in asked):
            context.notes.append(
                f"the {self.num_fewshot} examples before each problem are made, modulo {MODULUS}, and the problems are "
                "of a file: num_fewshot=0 leaves the examples out"
            )
        rooms = self._rooms(model, asked, shots, context)
        asked = [each for each in asked if context.shard.holds(each.task, each.item)]
        values = self._likelihoods(model, asked, shots, context)
        for operations, room in rooms.items():
            chosen = {i: each.problem for i, each in enumerate(asked) if each.problem.operations == operations}
            answers = self._answers(model, chosen, shots, room, context)
            for i, answer in answers.items():
                values[i] |= {"acc": answer == asked[i].problem.answer, "answered": answer is not None}
        return [
            Score(each.task, each.item, metric, float(value))
            for each, metrics in zip(asked, values, strict=True)
            for metric, value in metrics.items()
        ]

    def _asked(self, texts: Sequence[PlantedText]) -> list[_Asked]:
        if self.generated is not None:
            made = self.generated
            per_ops = dict.fromkeys(range(made.min_ops, made.max_ops + 1), made.per_ops)
            problems = problem_set(made.seed, "test", per_ops, made.distractors, key="generated.per_ops")
            return [_Asked(f"generated/{p.operations} ops", p.id, p) for p in problems]
        return [
            _Asked(f"{text.insertion}/{problem.operations} ops", text.item, problem)
            for text in texts
            if text.payload is not None and text.payload["kind"] == "problem"
            for problem in [Problem.from_payload(text.payload)]
        ]

    def _examples(self, operations: list[int]) -> str:
        """Solved problems before each question; they go through the numbers of operations, the smallest first."""
        examples = [
            make_problem(_EXAMPLES_SEED, i, operations[i % len(operations)], "train").text
            for i in range(self.num_fewshot)
        ]
        return "".join(f"{example}\n\n" for example in examples)

    def _likelihoods(
        self, model: LoadedModel, asked: Sequence[_Asked], shots: str, context: EvalContext
    ) -> list[dict[str, float]]:
        solutions = [(shots + each.problem.prompt, each.problem.solution) for each in asked]
        answers = [(f"{prompt} {each.problem.solved}", str(each.problem.answer))
                   for (prompt, _), each in zip(solutions, asked, strict=True)]  # fmt: skip
        found, _ = score_targets(model, [*solutions, *answers], self.batch_size, context.progress)
        return [
            {
                "answer_logprob": answer.log_prob,
                "solution_ce": -solution.log_prob / solution.tokens,
                "tokens": solution.tokens,
            }
            for solution, answer in zip(found[: len(asked)], found[len(asked) :], strict=True)
        ]

    def _rooms(self, model: LoadedModel, asked: Sequence[_Asked], shots: str, context: EvalContext) -> dict[int, int]:
        """New tokens that a solution gets, by number of operations; a note for one that has no room for any."""
        rooms = {}
        for operations in sorted({each.problem.operations for each in asked}):
            problems = [each.problem for each in asked if each.problem.operations == operations]
            longest = 1 + max(map(len, encode(model, [shots + p.prompt for p in problems])))
            right = max(map(len, encode(model, [f" {p.solved} {p.answer}" for p in problems])))
            room = self.max_new_tokens or int(_ROOM * right)
            if longest + room <= model.context_length:
                rooms[operations] = room
                continue
            context.notes.append(
                f"problems of {operations} operations have up to {longest} tokens, a solution gets {room}, the model "
                f"reads {model.context_length}: they were not solved, only likelihoods are given"
            )
        return rooms

    def _answers(
        self, model: LoadedModel, chosen: Mapping[int, Problem], shots: str, room: int, context: EvalContext
    ) -> dict[int, int | None]:
        """What the model answers to each, in `room` new tokens."""
        from pretrain_exp.eval.generation import generate

        prompts = [
            [model.start_token, *tokens] for tokens in encode(model, [shots + p.prompt for p in chosen.values()])
        ]
        eos = model.tokenizer.eos_token_id
        stop = () if eos is None else (eos,)
        continued = generate(model, prompts, room, stop, self.batch_size, progress=context.progress)
        answers = (parse_answer(str(model.tokenizer.decode(tokens))) for tokens in continued)
        return dict(zip(chosen, answers, strict=True))


def _that_fit(model: LoadedModel, asked: Sequence[_Asked], shots: str, context: EvalContext) -> list[_Asked]:
    """The problems that the model can read with their solution; a note says how many it cannot."""
    sizes = [1 + len(tokens) for tokens in encode(model, [shots + each.problem.text for each in asked])]
    kept = [each for each, size in zip(asked, sizes, strict=True) if size <= model.context_length]
    left = Counter(each.problem.operations for each in asked) - Counter(each.problem.operations for each in kept)
    if left:
        counts = ", ".join(f"{count} of {operations} operations" for operations, count in sorted(left.items()))
        context.notes.append(
            f"problems that exceed the {model.context_length} tokens that the model reads at once, with solution and "
            f"examples, were not scored: {counts}"
        )
    return kept


def _note_chance(asked: Sequence[_Asked], context: EvalContext) -> None:
    common, times = Counter(each.problem.answer for each in asked).most_common(1)[0]
    made = all(each.problem.structure for each in asked)  # the answers to those of a file have no bounds
    guess = f"a guess is right for 1 in {MODULUS} ({1 / MODULUS:.1%}); " if made else ""
    context.notes.append(
        f"chance: {guess}always answering {common} is right for {times / len(asked):.1%} of these {len(asked)} problems"
    )

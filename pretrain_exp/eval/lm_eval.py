"""Any task of lm-eval: task names in, the per-item values of the task's metrics out.

A metric is kept where a single item has a value of it (accuracy, exact match, F1 of a generated answer).
Log-likelihoods of whole texts become nll [nats], and words or bytes. Metrics that exist only over all items (corpus F1,
Brier score) are noted and left out: what a report says is computed from items. Where a task has several filters, a
metric is named "metric,filter".

The item of a multiple-choice document has the id that it would have as a planted item, so what was planted by
`lm_eval:<task>` and what is scored here join; any other has the content id of its document.
"""

from __future__ import annotations

import json
import numbers
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, ModelToCome, Score
from pretrain_exp.eval.job import digest_file
from pretrain_exp.eval.lm_eval_checks import chat_template_of, check_tasks, check_template
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.harness import choice_item, find_tasks, load_tasks

VERSION = 1  # of what the numbers mean; raised when they change
UNITS = {"word_perplexity": "words", "byte_perplexity": "bytes", "bits_per_byte": "bytes"}  # (log-likelihood, units)


@dataclass(frozen=True, kw_only=True)
class LmEval:
    """Runs tasks of lm-eval on the loaded model.

    tasks:               names of tasks, groups or tags, or paths of .yaml task files.
    include_path:        folder with task files of one's own, found by their names.
    num_fewshot:         examples before each item; None = as the task says.
    limit:               score a seeded subset of this many items of each task; None = all.
    seed:                of that subset.
    apply_chat_template: True, or the name of one of the tokenizer's templates.
    fewshot_as_multiturn: with a template, whether the examples are turns of their own or all in one.
    system_instruction:  text before every prompt.
    batch_size:          sequences at once.
    """

    tasks: Annotated[list[str], Field(min_length=1)]
    include_path: str | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0
    apply_chat_template: bool | str = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        files = [("tasks", task) for task in self.tasks if task.endswith((".yaml", ".yml"))]
        return files + ([("include_path", self.include_path)] if self.include_path else [])

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        """Local task files count by content; the data that a task names counts by the task's own version only.

        UserError for a name that is no task's, so that it is found before anything is trained.
        """
        find_tasks(self.tasks, self.include_path)
        paths = [Path(path) for _, path in self.inputs()]
        files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        return {
            "evaluation": "lm_eval",
            "version": VERSION,
            "lm_eval": version("lm_eval"),
            "tasks": [Path(task).name for task in self.tasks],
            "files": [
                digest_file(file) for file in files if file.suffix in (".yaml", ".yml", ".py", ".json", ".jsonl")
            ],
            "num_fewshot": self.num_fewshot,
            "limit": self.limit,
            "seed": self.seed,
            "apply_chat_template": [self.apply_chat_template, self.fewshot_as_multiturn],
            "system_instruction": self.system_instruction,
        }

    def check(self, model: ModelToCome) -> list[UserError]:
        """What the tasks or the tokenizer cannot do: data sets out of reach, templates, examples, room for answers."""
        found = check_template(model, self.apply_chat_template)
        try:
            tasks = load_tasks(self.tasks, self.include_path)
        except UserError as error:
            return [*found, error]
        return found + check_tasks(tasks, self.num_fewshot, model.context_length)

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        """Raises RuntimeError where the harness loses or repeats an item, or a task has no per-item metric."""
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from pretrain_exp.eval.harness import ScoringLM

        template = chat_template_of(model.tokenizer.chat_template, self.apply_chat_template)
        tasks = load_tasks(self.tasks, self.include_path)
        for error in check_tasks(tasks, self.num_fewshot, model.context_length):
            raise error
        docs = {name: list(task.eval_docs) for name, task in tasks.items()}
        chosen = {name: self._subset(each) for name, each in docs.items()}
        for name, each in docs.items():
            if self.limit is not None and self.limit > len(each):
                context.notes.append(f"limit asks for {self.limit} items, {name} has {len(each)}: all were scored")
        ids = {name: _ids(tasks[name], {row: docs[name][row] for row in rows}) for name, rows in chosen.items()}
        mine = {name: [context.shard.holds(name, each) for each in ids[name].values()] for name in tasks}
        results = simple_evaluate(
            ScoringLM(model, self.batch_size, context, mine, template),
            tasks=list(tasks.values()),
            num_fewshot=self.num_fewshot,
            samples=None if self.limit is None else chosen,  # the harness scans the list once per document
            bootstrap_iters=0,
            apply_chat_template=self.apply_chat_template,
            fewshot_as_multiturn=self.fewshot_as_multiturn and bool(self.apply_chat_template),
            system_instruction=self.system_instruction,
            task_manager=TaskManager(include_defaults=False),
        )
        scores: list[Score] = []
        for name, task in tasks.items():
            scores += _scores(name, task, results["samples"][name], ids[name], context)
        return scores

    def _subset(self, docs: Sequence[dict[str, Any]]) -> list[int]:
        """Rows to score, in order."""
        rows = range(len(docs))
        if self.limit is None or self.limit >= len(docs):
            return list(rows)
        order = sorted(rows, key=lambda row: (content_id("rank", str(self.seed), _canonical(docs[row])), row))
        return sorted(order[: self.limit])


def _scores(
    name: str, task: Any, samples: Sequence[dict[str, Any]], ids: dict[int, str], context: EvalContext
) -> list[Score]:
    """The per-item values of one task; every row, of whose ids those of this shard are kept, once under each filter."""
    filters = dict.fromkeys(sample["filter"] for sample in samples)
    if Counter(sample["doc_id"] for sample in samples) != dict.fromkeys(ids, len(filters)):
        raise RuntimeError(f"{name}: {len(ids)} items went in, {len(samples)} samples came back")
    scores: dict[Score, None] = {}
    left_out: set[str] = set()
    own = [sample for sample in samples if context.shard.holds(name, ids[sample["doc_id"]])]
    for sample in own:
        label = "" if len(filters) == 1 else f",{sample['filter']}"
        for metric in sample["metrics"]:
            values = _values(task.OUTPUT_TYPE, metric, sample[metric])
            left_out |= set() if values else {metric}
            for key, value in values.items():
                scores[Score(name, ids[sample["doc_id"]], key + label, value)] = None
    if left_out:
        context.notes.append(f"{name}: {', '.join(sorted(left_out))} has no value for a single item and was left out")
    if own and not scores:
        raise RuntimeError(f"{name} has no metric with a value for a single item")
    return list(scores)


def _values(output_type: str, metric: str, value: Any) -> dict[str, float]:
    """Per-item values under honest names; none where the metric exists only over all items."""
    if output_type == "loglikelihood_rolling" and metric in UNITS:
        log_likelihood, units = value
        return {"nll": -float(log_likelihood), UNITS[metric]: float(units)}
    if output_type == "loglikelihood" and metric == "perplexity":  # what the item has is its log-likelihood
        return {"nll": -float(value)}
    return {metric: float(value)} if isinstance(value, numbers.Real) else {}


def _ids(task: Any, docs: dict[int, dict[str, Any]]) -> dict[int, str]:
    """An id for each row: that of its planted item, else of its content; repeats are told apart by #2, #3, ..."""
    ids: dict[int, str] = {}
    seen: Counter[str] = Counter()
    for row, doc in sorted(docs.items()):
        item = choice_item(task, doc, "")
        name = item.id if isinstance(item, ChoiceItem) else content_id(_canonical(doc))
        seen[name] += 1
        ids[row] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return ids


def _canonical(doc: dict[str, Any]) -> str:
    return json.dumps(doc, sort_keys=True, ensure_ascii=False, default=str)

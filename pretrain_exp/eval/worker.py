"""The process that evaluates one checkpoint: `python -m pretrain_exp.eval.worker job.json`.

    job.json -> model, loaded once -> each evaluation -> <out>/items.parquet + <out>/eval.json

An evaluation that fails leaves <out>.error.json and does not stop the others; the exit status is 1 if any failed, and
error.json beside job.json says why, of kind "user" where the user can mend all that failed.
Results appear whole or not at all; an earlier result at the same place is replaced. Nothing is written once the claim
that the process was started under is another's.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Shard, instantiate
from pretrain_exp.eval.identity import refuse_changed
from pretrain_exp.eval.job import SCHEMA, EvalJob, EvalTask, error_path, failures, fingerprint, unchanged
from pretrain_exp.eval.shards import is_divisible, share, unfinished
from pretrain_exp.items.planned import PlannedItems, planted_items
from pretrain_exp.provenance import versions
from pretrain_exp.store.claims import ClaimLost, demand_claim
from pretrain_exp.store.states import write_json

log = logging.getLogger("pretrain_exp.eval")
USER = (UserError, Problems)  # what the user can mend; anything else is shown with its traceback


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 where all evaluations succeeded, 1 where any failed, 2 where the call is wrong."""
    if len(arguments) != 1:
        print("usage: python -m pretrain_exp.eval.worker job.json", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    log.setLevel(logging.INFO)
    logging.getLogger("lm_eval.models.huggingface").setLevel(
        logging.ERROR
    )  # it warns of every model passed as an object
    path = Path(arguments[0])
    job = EvalJob.read(path)
    try:
        code = share(job, path) if job.shards > 1 and job.shard is None else _evaluate(job)
        if code and job.shard is None:
            demand_claim(os.environ)
            write_json(path.with_name("error.json"), failures(job.evaluations))
        return code
    except ClaimLost as error:
        log.error("%s", error)
        return 1


def _evaluate(job: EvalJob) -> int:
    """The exit status. Raises ClaimLost."""
    started = time.perf_counter()
    try:
        items = planted_items(job.items)
        job = unfinished(job, items)
        if not job.evaluations:
            return 0
        job = same_model(job)
        model = load_model(job)
        job = same_model(job)
        facts = {"model": job.model, "revision": job.revision, "versions": versions()}
    except Exception as error:  # the edge of the process: whatever it is, each evaluation reports it
        for task in job.evaluations:
            _fail(task, error)
        return 1
    log.info("%s loaded in %.1f s", job.model, time.perf_counter() - started)
    facts |= {"dtype": str(model.model.dtype).removeprefix("torch."), "device": str(model.model.device)}
    done = [_attempt(job, number, model, items, facts) for number in range(len(job.evaluations))]
    return 0 if all(done) else 1


def same_model(job: EvalJob) -> EvalJob:
    """The job, its seal as it is now. UserError where the model's folder does not hold what it was planned with."""
    return job if job.seal is None else replace(job, seal=refuse_changed(Path(job.model), job.seal))


def load_model(job: EvalJob) -> LoadedModel:
    """The checkpoint and its tokenizer, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if job.threads:
        torch.set_num_threads(job.threads)
    device = job.device if job.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and job.shard is not None:
        device = f"cuda:{job.shard % torch.cuda.device_count()}"
    model: Any = AutoModelForCausalLM.from_pretrained(job.model, revision=job.revision, dtype=job.dtype)
    tokenizer = AutoTokenizer.from_pretrained(job.model, revision=job.revision)
    model.to(device)
    return LoadedModel(model.eval(), tokenizer, job.model, job.revision, job.generation)


def _attempt(job: EvalJob, number: int, model: LoadedModel, items: PlannedItems, facts: dict[str, Any]) -> bool:
    """Run one evaluation and write what came of it; whether it succeeded. facts: what the records have in common."""
    from pretrain_exp.eval.table import to_table, write_result

    task = job.evaluations[number]
    started = time.perf_counter()
    try:
        context = EvalContext(
            items=items,
            texts=items.texts,
            held_out=Path(job.held_out) if job.held_out else None,
            progress=_reporter(job, number),
        )
        before = fingerprint(task, items, job.dtype, job.generation)
        unchanged(task, task.identity or before, before)
        evaluation = instantiate(task.target, task.args)
        if job.shard is not None and is_divisible(evaluation):
            context.shard = Shard(job.shard, job.shards)
        scores = evaluation.run(model, context)
        if not scores and not context.notes and context.shard.of == 1:
            raise ValueError(f"{task.name} returned no scores, and no note that says why")
        unchanged(task, before, fingerprint(task, items, job.dtype, job.generation))
        same_model(job)
        record = {
            **facts,
            "schema": SCHEMA,
            "evaluation": asdict(task),
            "fingerprint": json.loads(before),
            "notes": context.notes,
            "seconds": round(time.perf_counter() - started, 3),
        }
        write_result(Path(task.out), to_table(task.name, scores), record)
    except ClaimLost:
        raise
    except Exception as error:  # anyone's evaluation may raise anything; the others must still run
        _fail(task, error)
        return False
    log.info("%s: %d scores in %.1f s", task.name, len(scores), time.perf_counter() - started)
    for note in context.notes:
        log.warning("%s: %s", task.name, note)
    return True


def _fail(task: EvalTask, error: Exception) -> None:
    """Say why an evaluation failed, in the log and beside where its result would be."""
    mendable = isinstance(error, USER)
    log.error("%s failed: %s", task.name, error if mendable else "".join(traceback.format_exception(error)))
    demand_claim(os.environ)
    path = error_path(task.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    message = str(error) if mendable else f"{type(error).__name__}: {error}"
    write_json(path, {"schema": SCHEMA, "evaluation": task.name, "message": message, "user_error": mendable})


def _reporter(job: EvalJob, number: int) -> Callable[[int, int], None]:
    """Writes how far evaluation `number` is into job.progress, at most twice a second."""
    started = time.perf_counter()
    last = started - 1.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if job.progress is None or (done < total and now - last < 0.5):
            return
        last = now
        write_json(
            Path(job.progress),
            {
                "evaluation": job.evaluations[number].name,
                "number": number + 1,
                "of": len(job.evaluations),
                "done": done,
                "total": total,
                "per_second": round(done / max(now - started, 1e-9), 2),
            },
        )

    return report


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

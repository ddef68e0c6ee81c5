"""The worker of one job, one process a rank: `python -m pretrain_exp.framework.huggingface.worker job.json`.

    job.json --> ranks --> model --> newest checkpoint --> training --> states in the store

Ranks come from launch.py or from torchrun. Exit status: 0 all states are saved; 75 a signal came and a checkpoint to
resume from was written; 2 the user's to mend; 1 a crash, or the job's claim was lost. A failure leaves
<live>/error.json {kind, message, step}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.job import Job
from pretrain_exp.framework.huggingface.stop import StopSignal
from pretrain_exp.store.claims import ClaimLost

if TYPE_CHECKING:
    from pretrain_exp.framework.huggingface.loop import Training


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rank", type=int, default=int(os.environ.get("RANK", 0)))
    parser.add_argument("--world", type=int, default=int(os.environ.get("WORLD_SIZE", 1)))
    parser.add_argument("--rendezvous", default="env://" if "RANK" in os.environ else None)
    parser.add_argument("--lifeline", type=int, help="file descriptor whose end of file means that the launcher died")
    options = parser.parse_args(arguments)
    if options.lifeline is not None:
        threading.Thread(target=_die_with, args=(options.lifeline,), daemon=True).start()
    stop_signal = StopSignal()
    stop_signal.listen()
    job: Job | None = None
    training: list[Training] = []
    try:
        job = Job.load(options.job)
        return work(job, options, stop_signal, training)
    except ClaimLost as error:
        print(error, file=sys.stderr)  # and no error.json: the folder is another's by now
        return 1
    except Exception as error:
        kind = "user" if isinstance(error, UserError) else "crash"
        message = error.render() if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        step = training[0].step if training else None
        report_failure(job.live if job else options.job.parent, kind, message, step)
        if kind == "user":
            print(message, file=sys.stderr)
            return 2
        raise


def work(job: Job, options: argparse.Namespace, stop_signal: StopSignal, training: list[Training]) -> int:
    """Trains what the store lacks. `training` gets the training, so that a failure can name its step."""
    from pretrain_exp.framework.huggingface.checkpoint import Checkpointer, find_beginning
    from pretrain_exp.framework.huggingface.journal import Journal
    from pretrain_exp.framework.huggingface.loop import PLANNED, Training
    from pretrain_exp.framework.huggingface.model import build_model
    from pretrain_exp.framework.huggingface.optimizer import build_optimizer
    from pretrain_exp.framework.huggingface.probe import probe_tokens
    from pretrain_exp.framework.huggingface.ranks import Ranks

    local_rank = int(os.environ.get("LOCAL_RANK", options.rank))
    ranks = Ranks.join(options.rank, options.world, options.device, options.rendezvous, local_rank)
    beginning = find_beginning(job, ranks)
    if beginning is None:
        ranks.leave()
        return PLANNED
    model = build_model(job, ranks)
    checkpointer = Checkpointer(
        job, ranks, model, build_optimizer(model.hf, job.training["optimizer"]), Journal(job.live, ranks)
    )
    checkpointer.load(beginning)
    tokens = probe_tokens(model.hf.config.vocab_size, job.phases.sequence_length(beginning.step)).to(ranks.device)
    model.find_head(tokens)
    if job.training["document_masking"]:
        model.check_documents(tokens)
    training.append(Training(checkpointer, beginning.step, stop_signal))
    status = training[0].run()
    ranks.leave()
    return status


def report_failure(live: Path, kind: str, message: str, step: int | None) -> None:
    """Writes error.json unless another rank was first: the first failure is the cause, what follows only its echo."""
    temporary = live / f".error-{uuid.uuid4().hex[:8]}"
    temporary.write_text(json.dumps({"kind": kind, "message": message, "step": step}) + "\n")
    try:
        os.link(temporary, live / "error.json")
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _die_with(lifeline: int) -> None:
    """Ends this process when the launcher is gone: no orphan may go on writing while a restart does the same."""
    os.read(lifeline, 1)
    os._exit(1)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is written: taking torch apart would cost another second

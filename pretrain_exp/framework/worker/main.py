"""What every worker does around its training: one process a rank, one job.

    job.json --> Job --> ranks, where it begins --> work: model, newest checkpoint, training --> states in the store

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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.stop import StopSignal
from pretrain_exp.store.claims import ClaimLost, demand_claim

if TYPE_CHECKING:
    from pretrain_exp.framework.worker.checkpoints import Beginning
    from pretrain_exp.framework.worker.ranks import Ranks

PLANNED, INTERRUPTED = 0, 75  # EX_TEMPFAIL: saved on a signal, to be started again


@dataclass
class Attempt:
    """One process at a job. step: where it stands, for whoever reports a failure; None before it trains."""

    rank: int
    world: int
    local_rank: int
    local_world: int  # ranks on this machine
    device: str  # cpu | cuda
    rendezvous: str | None  # an init method of torch.distributed; None with one rank
    stop_signal: StopSignal
    step: int | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Attempt:
        """By the command line (rank, world, rendezvous), else by torchrun's environment, else the only rank."""
        rank, world, rendezvous = options.rank, options.world, options.rendezvous
        local_rank, local_world = rank, world
        if rank is None:
            rank, world = (int(os.environ.get(name, alone)) for name, alone in (("RANK", 0), ("WORLD_SIZE", 1)))
            local_rank = int(os.environ.get("LOCAL_RANK", rank))
            local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
            rendezvous = "env://" if "RANK" in os.environ else None
        return cls(rank, world, local_rank, local_world, options.device, rendezvous, StopSignal())

    @property
    def nodes(self) -> int:
        return self.world // self.local_world


Work = Callable[["Job", Attempt, "Ranks", "Beginning"], int]
"""Trains a job from its beginning on; returns the exit status."""


def run_worker(work: Work, arguments: Sequence[str] | None = None, hooks: Collection[str] = ()) -> int:
    """Trains what the store lacks, by `work`; returns the exit status. A crash is raised again, for its traceback.

    hooks: the kinds of training hooks (hooks.py) that `work` puts into effect; a job with another is refused.
    """
    options = _parser().parse_args(arguments)
    if options.lifeline is not None:
        threading.Thread(target=_die_with, args=(options.lifeline,), daemon=True).start()
    attempt = Attempt.of(options)
    attempt.stop_signal.listen()
    job: Job | None = None
    try:
        job = Job.load(options.job, hooks)
        return _train(work, job, attempt)
    except ClaimLost as error:
        print(error, file=sys.stderr)  # and no error.json: the folder is another's by now
        return 1
    except Exception as error:
        kind = "user" if isinstance(error, UserError) else "crash"
        message = error.render() if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        try:
            demand_claim(os.environ)  # who has the job now may have removed what this one was writing
        except ClaimLost as lost:
            print(lost, file=sys.stderr)
        else:
            report_failure(job.live if job else options.job.parent, kind, message, attempt.step)
        if kind == "user":
            print(message, file=sys.stderr)
            return 2
        raise


def _train(work: Work, job: Job, attempt: Attempt) -> int:
    """Joins the ranks, and works where something is missing from the store."""
    from pretrain_exp.framework.worker.checkpoints import find_beginning
    from pretrain_exp.framework.worker.ranks import Ranks

    ranks = Ranks.join(attempt)
    beginning = find_beginning(job, ranks)
    status = PLANNED if beginning is None else work(job, attempt, ranks, beginning)
    ranks.leave()
    return status


def tell_ranks(attempt: Attempt) -> None:
    """Who this process is, for frameworks that ask nothing but the environment, where nobody else may have a say.

    FS_LOCAL_RANK of both OLMos is the rank among those that share a file system: all share the store.
    """
    told = {"RANK": attempt.rank, "WORLD_SIZE": attempt.world, "FS_LOCAL_RANK": attempt.rank}
    told |= {"LOCAL_RANK": attempt.local_rank, "LOCAL_WORLD_SIZE": attempt.local_world}
    os.environ.update({name: str(value) for name, value in told.items()})


def end_process(status: int) -> None:
    """Ends this process at once: all is written, and taking torch apart would cost another second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rank", type=int, help="with --world and --rendezvous; else the environment is torchrun's")
    parser.add_argument("--world", type=int)
    parser.add_argument("--rendezvous")
    parser.add_argument("--lifeline", type=int, help="file descriptor whose end of file means that the launcher died")
    return parser


def _die_with(lifeline: int) -> None:
    """Ends this process when the launcher is gone: no orphan may go on writing while a restart does the same."""
    os.read(lifeline, 1)
    os._exit(1)

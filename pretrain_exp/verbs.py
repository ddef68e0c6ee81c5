"""The verbs that read what stands: each parses its own arguments and hands over. No Hydra, nothing heavy at import."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pretrain_exp.errors import UserError
from pretrain_exp.paths import refuse_unwritable
from pretrain_exp.store.process import process_lives
from pretrain_exp.study.registry import all_studies, find_study, last_store, read_study

NEWEST = "its folder; else the newest"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, fix=self.format_usage().strip())


def read_verb(verb: str, arguments: Sequence[str]) -> int:
    """Runs a reading verb; returns the exit status."""
    parser = _Parser(prog=f"pretrain-exp {verb}", add_help=False)
    handler: Callable[[argparse.Namespace], int] = _VERBS[verb](parser)
    return handler(parser.parse_args(list(arguments)))


def verb_help(verb: str) -> str:
    """Usage and options of a reading verb."""
    parser = _Parser(prog=f"pretrain-exp {verb}", add_help=False)
    _VERBS[verb](parser)
    return parser.format_help()


def _status(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("study", nargs="?", help=NEWEST)
    parser.add_argument("--watch", action="store_true", help="again and again, until it has ended")
    parser.add_argument("--seconds", type=float, default=2.0, help="between two looks of --watch")

    def show(given: argparse.Namespace) -> int:
        from pretrain_exp.study.status import print_status

        folder = find_study(given.study)
        while print_status(folder) and given.watch:
            time.sleep(given.seconds)
        return 0

    return show


def _logs(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("names", nargs="*", metavar="STUDY JOB")
    parser.add_argument("--lines", type=int, default=200, help="how many, from the end; 200")

    def show(given: argparse.Namespace) -> int:
        study, wanted = _study_and_job(given.names)
        jobs = read_study(find_study(study))["jobs"]
        matching = [job for job in jobs if wanted is None or wanted in job["id"] or wanted in job["title"]]
        if wanted is None and len(jobs) != 1:
            print("\n".join(f"{job['id']}  {job['title']}" for job in jobs) or "this study needed no job")
            return 0
        if len(matching) != 1:
            names = ", ".join(f"{job['id']} ({job['title']})" for job in (matching or jobs))
            problem = "matches several jobs" if matching else "matches no job of this study"
            raise UserError(problem, value=wanted, fix=f"one of: {names}")
        folder = Path(matching[0]["folder"])
        # a job that never came to its command may have said why in the batch script's own log
        logs = [folder / "log.txt", *sorted(folder.glob("slurm/*.out"), key=lambda path: -path.stat().st_mtime)]
        log = next((path for path in logs if path.is_file()), None)
        if log is None:
            raise UserError("has not written a log yet", value=matching[0]["id"])
        print("\n".join(log.read_text(errors="replace").splitlines()[-given.lines :]))
        return 0

    return show


def _study_and_job(names: Sequence[str]) -> tuple[str | None, str | None]:
    """`logs STUDY JOB`, either of them left out: a name alone is a study where it is the folder of one."""
    if len(names) > 2:
        raise UserError("takes a study and a job", value=" ".join(names), fix="pretrain-exp logs [STUDY] [JOB]")
    if len(names) == 1:
        is_study = (Path(names[0]) / "study.json").is_file()
        return (names[0], None) if is_study else (None, names[0])
    return (names[0], names[1]) if names else (None, None)


def _cancel(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("study", nargs="?", help=NEWEST)

    def cancel(given: argparse.Namespace) -> int:
        import json

        from pretrain_exp.executor.base import Job
        from pretrain_exp.executor.slurm_status import cancel_jobs

        folder = find_study(given.study)
        study = read_study(folder)
        asked = 0
        own = [job for job in study["jobs"] if not job.get("adopted")]
        submitted = [Job.from_record(job) for job in own if (Path(job["folder"]) / "slurm.json").is_file()]
        for sentence in cancel_jobs(submitted) if submitted else ():
            print(sentence)
            asked += 1
        controller = study.get("controller")
        if controller and _signal(controller, signal.SIGINT):
            print(f"asked the study's own process {controller['pid']} to end; running jobs save first")
            return 0
        for job in own:
            process = Path(job["folder"]) / "process.json"
            if process.is_file() and _signal(json.loads(process.read_text()), signal.SIGTERM):
                print(f"asked {job['title']} to save and end")
                asked += 1
        print("nothing of this study is running" if not asked else f"{asked} jobs asked to end")
        if len(own) < len(study["jobs"]):
            print(f"{len(study['jobs']) - len(own)} jobs that other studies planned are left to these")
        return 0

    return cancel


def _signal(process: dict[str, Any], number: int) -> bool:
    """Signals the process of such a record, if it is that very process that runs, and on this machine."""
    if not process_lives(process):
        return False
    try:
        os.kill(process["pid"], number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _report(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("study", nargs="*", help=NEWEST)
    parser.add_argument("--to", metavar="DIR", help="where the comparison of several goes; else outputs/comparison")
    parser.add_argument("--export", metavar="DIR", help="write the ground truth of one study there instead")
    parser.add_argument("--member", type=int, help="the member of a sweep that is exported; else 0")

    def report(given: argparse.Namespace) -> int:
        from pretrain_exp.study.gather import gathered
        from pretrain_exp.study.results import report_study

        if given.to is not None and (len(given.study) < 2 or given.export is not None):
            problem = "a comparison is of several studies"
            raise UserError(problem, key="--to", value=given.to, fix="pretrain-exp report STUDY STUDY... --to DIR")
        if given.member is not None and given.export is None:
            raise UserError("is for --export only", key="--member", value=given.member, fix="leave it out")
        for key, where in (("--to", given.to), ("--export", given.export)):
            if where is not None:
                refuse_unwritable(Path(where).absolute(), key)
        folders = [find_study(str(gathered(Path(one)))) for one in given.study] or [find_study(None)]
        if given.export is not None:
            from pretrain_exp.study.export import export_study

            if len(folders) > 1:
                raise UserError("exports one study at a time", key="--export", value=given.export)
            print(f"export: {export_study(folders[0], Path(given.export), given.member or 0)}")
            return 0
        reports = [report_study(folder) for folder in folders]
        if len(folders) > 1:
            from pretrain_exp.study.compare import compare_studies

            print(f"comparison: {compare_studies(reports, Path(given.to or 'outputs/comparison'))}")
        return 0

    return report


def _inspect(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("study", nargs="?", help=NEWEST)
    parser.add_argument("--step", type=int, required=True, help="of training")
    parser.add_argument("--row", type=int, help="of the step's batch; else all that hold edits")
    parser.add_argument("--arm", default="treated", help="whose reads; else treated")
    parser.add_argument("--member", type=int, default=0, help="of a sweep; else 0")

    def inspect(given: argparse.Namespace) -> int:
        from pretrain_exp.study.inspect import print_rows

        print_rows(find_study(given.study), given.member, given.arm, given.step, given.row)
        return 0

    return inspect


def _sync(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("words", nargs="*", metavar="STUDY tracking=CHOICE", help=f"{NEWEST}; where to, else its own")

    def sync(given: argparse.Namespace) -> int:
        from pretrain_exp.study.mirror import sync_study

        choices = [word.partition("=")[2] for word in given.words if word.startswith("tracking=")]
        studies = [word for word in given.words if not word.startswith("tracking=")]
        if len(choices) > 1 or len(studies) > 1:
            fix = "pretrain-exp sync [STUDY] [tracking=CHOICE]"
            raise UserError("takes a study, and one choice of tracking", value=" ".join(given.words), fix=fix)
        sync_study(find_study(studies[0] if studies else None), choices[0] if choices else None)
        return 0

    return sync


def _gc(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    parser.add_argument("--store", metavar="DIR", help="else the one that was used last")
    parser.add_argument("--apply", action="store_true", help="release; without it only what would be is said")

    def gc(given: argparse.Namespace) -> int:
        from pretrain_exp.store.gc import collect

        store = Path(given.store) if given.store else last_store()
        collect(store, all_studies(store), apply=given.apply)
        return 0

    return gc


_VERBS: dict[str, Any] = {
    "status": _status,
    "logs": _logs,
    "cancel": _cancel,
    "report": _report,
    "inspect": _inspect,
    "sync": _sync,
    "gc": _gc,
}

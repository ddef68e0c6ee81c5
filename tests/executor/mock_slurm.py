"""Slurm's commands that only pretend: shell scripts which note what they were asked; and jobs for them."""

from __future__ import annotations

from pathlib import Path

from pretrain_exp.executor.base import Job

COMMANDS = {
    "sbatch": """
if [ "$1" = --test-only ]; then echo "$@" >>tests; [ ! -f refuse ] || { cat refuse >&2; exit 1; }; exit 0; fi
n=$(($(cat count) + 1)); echo $n >count
if [ -f fail_at ] && [ $n = $(cat fail_at) ]; then echo "sbatch: error: Node count invalid" >&2; exit 1; fi
cp "$1" script.$n; env >environment.$n; echo "Submitted batch job $n" """,
    "squeue": '[ ! -f busy ] || { rm busy; echo "slurm_load_jobs error: Socket timed out" >&2; exit 1; }\n'
    '[ ! -f silent ] || { echo "squeue: error: Unable to contact slurm controller" >&2; exit 1; }\n'
    "for word; do case $word in --jobs=*) ids=,${word#--jobs=},;; esac; done\n"
    """awk -F'|' -v ids="$ids" '!ids || index(ids, "," $1 ",")' queue""",
    "sinfo": "printf 'gpu|2:00:00\\ncpu|infinite\\n'",
    "scancel": 'echo "$@" >>cancelled',
    "scontrol": 'echo "$@" >>control; [ ! -f refuse ] || { cat refuse >&2; exit 1; }',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
}


def job(store: Path, key: str, *needs: Job, kind: str = "train", **fields) -> Job:
    folder = store / "jobs" / f"{kind}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    made = {"command": ("true",), "environment": {}, "makes": (store / f"{key}.json",), "total": 10, **fields}
    return Job(key=key, kind=kind, title=key, folder=folder, needs=frozenset(need.id for need in needs), **made)


def options(mock: Path, number: int) -> dict[str, str]:
    """What the script of a submission asks of sbatch."""
    lines = (mock / f"script.{number}").read_text().splitlines()
    flags = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (flag.partition("=") for flag in flags)}

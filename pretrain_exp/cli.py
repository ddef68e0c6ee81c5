"""The command line: `pretrain-exp [VERB] [overrides] [-m]`, the same as `python -m pretrain_exp`.

The verb is taken off here, before Hydra parses the rest. Help and the verbs that only read never import Hydra.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.paths import conf_dir, group_choices

COMPOSING = {
    "run": "plan, train, evaluate and report (the default)",
    "plan": "compile and audit the plan, preview its cost; trains nothing",
    "evaluate": "evaluate existing checkpoints: evaluate MODEL... [overrides]",
}
READING = {
    "status": "how far a study is: status [STUDY] [--watch]",
    "logs": "the log of a job, or which jobs there are: logs [STUDY] [JOB] [--lines N]",
    "cancel": "end the running jobs of a study; each saves first: cancel [STUDY]",
    "report": "render reports again; of several studies a comparison too: report [STUDY...] [--to DIR] [--export DIR]",
    "inspect": "what was read at a step: inspect [STUDY] --step T [--row R] [--arm ARM]",
    "sync": "fill W&B or TensorBoard from a study's files: sync [STUDY] [tracking=CHOICE]",
    "gc": "release weights that no study needs: gc [--store DIR] [--apply]",
}
SWEEP = ("-m", "--multirun")
EXAMPLES = """\
  pretrain-exp                                            the default experiment, on a laptop
  pretrain-exp plan insertion=add_texts insertion.add_texts.file=my.jsonl
  pretrain-exp -m seed=0,1,2                              three seeds, one report
  pretrain-exp -m insertion.benchmark_contamination.repetitions=1,4,16 training.num_steps=1000
  pretrain-exp status                                     the newest study"""


def help_text() -> str:
    """Groups, their choices, and five commands a person would type."""
    lines = ["What does reading X, k times, at step t, do to the model?", ""]
    lines += ["usage: pretrain-exp [VERB] [overrides] [-m]      (or: python -m pretrain_exp ...)", "", "verbs:"]
    lines += [f"  {verb:<10}{what}" for verb, what in (COMPOSING | READING).items()]
    lines += ["", "groups and their choices (group=choice; insertion=[a,b] and eval=[a,b] take several):"]
    lines += [f"  {group:<11}{', '.join(names)}" for group, names in group_choices(conf_dir()).items() if names]
    lines += [
        "",
        "examples:",
        EXAMPLES,
        "",
        "Every key: pretrain-exp --cfg job.  Hydra's own flags: pretrain-exp --hydra-help.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0 done, 1 something failed, 2 the input is wrong, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        verb = _take_verb(arguments)
        if any(flag in arguments for flag in ("--help", "-h")):
            print(_verb_help(verb) if verb in READING else help_text())
            return 0
        if "--version" in arguments:
            print(f"pretrain-exp {version('pretrain-exp')}")
            return 0
        if verb in COMPOSING:
            from pretrain_exp.compose import compose_and_run

            return compose_and_run(verb, arguments)
        from pretrain_exp.verbs import read_verb

        return read_verb(verb, arguments)
    except (UserError, Problems) as error:
        print(f"error: {error.render()}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was saved stays; the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def _take_verb(arguments: list[str]) -> str:
    """Takes the verb off: the first word, flags of a sweep aside. UserError for a verb elsewhere, or an unknown one."""
    verbs = COMPOSING | READING
    first = next((i for i, word in enumerate(arguments) if word not in SWEEP), len(arguments))
    if first == len(arguments):
        return "run"
    if arguments[first] in verbs:
        return arguments.pop(first)
    for before, word in pairwise(arguments):
        if word in verbs and (before in SWEEP or not before.startswith("-")):  # else it may be the value of a flag
            rest = [one for one in arguments if one != word]
            fix = shlex.join(["pretrain-exp", word, *rest])
            raise UserError("the verb comes first", value=word, fix=fix)
    if arguments[first].isidentifier():
        raise UserError("no such verb", value=arguments[first], fix=f"verbs: {', '.join(verbs)}")
    return "run"


def _verb_help(verb: str) -> str:
    from pretrain_exp.verbs import verb_help

    return f"{READING[verb]}\n\n{verb_help(verb)}".rstrip()

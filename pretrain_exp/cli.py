"""The command line: `pretrain-exp [VERB] [overrides] [-m]`, the same as `python -m pretrain_exp`.

The verb is taken off here, before Hydra parses the rest. Help and the verbs that only read never import Hydra.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

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
    "sync": "fill W&B or TensorBoard from a study's files: sync [STUDY]",
    "gc": "release weights that no study needs: gc [--store DIR] [--apply]",
}
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
    verb = arguments.pop(0) if arguments and arguments[0] in COMPOSING | READING else "run"
    if any(flag in arguments for flag in ("--help", "-h")):
        print(help_text())
        return 0
    try:
        unknown = arguments[0] if arguments and verb == "run" and _looks_like_a_verb(arguments[0]) else None
        if unknown:
            raise UserError("no such verb", value=unknown, fix=f"verbs: {', '.join(COMPOSING | READING)}")
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


def _looks_like_a_verb(argument: str) -> bool:
    return argument.isidentifier()

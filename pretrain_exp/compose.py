"""From a command line to experiments: Hydra composes each member, each is validated, and only then does anything start.

    overrides --Hydra (once a member)--> Composed --all valid--> experiment.run

In a multirun one wrong member stops the study before anything is trained. Under another launcher than Hydra's own (a
SLURM job a member) every member is its own study, run whole inside its job.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pretrain_exp.arguments import (
    flags_last,
    named_seeds,
    refuse_duplicates,
    refuse_duplicates_in_files,
    refuse_folders,
    refuse_unpackaged,
    refuse_unreadable,
    split_targets,
)
from pretrain_exp.config import Config, Kinds, Unfit, validate
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.explain import explain, flat, not_chosen, version_base
from pretrain_exp.free_fields import opened
from pretrain_exp.official_file import with_official
from pretrain_exp.paths import conf_dir, group_choices
from pretrain_exp.study.missing import missing_inputs

SEED = re.compile(r"^\+*seed(\.\w+)?=")


@dataclass(frozen=True)
class Composed:
    """One member: its configuration, checked, and the folder that is its own."""

    config: Config
    kinds: Kinds
    raw: dict[str, Any]
    folder: Path
    overrides: tuple[str, ...]


def compose_and_run(verb: str, arguments: Sequence[str]) -> int:
    """Composes all members, then hands them to the experiment. Returns the exit status."""
    if verb != "plan" or any(argument.startswith("hydra/launcher=") for argument in arguments):
        return _compose_and_run(verb, arguments, [])
    with TemporaryDirectory(prefix="pretrain-exp-plan-") as nowhere:  # Hydra must have a folder, a plan leaves none
        return _compose_and_run(verb, arguments, [f"hydra.run.dir='{nowhere}'", f"hydra.sweep.dir='{nowhere}'"])


def _compose_and_run(verb: str, arguments: Sequence[str], where: list[str]) -> int:
    """where: overrides that say where Hydra has its folders."""
    targets, overrides = split_targets(arguments) if verb == "evaluate" else ([], list(arguments))
    refuse_unreadable(overrides)
    refuse_duplicates(overrides)
    refuse_folders(overrides)
    members: list[Composed] = []
    failures: list[tuple[str, Problems]] = []
    study: list[Path] = []
    notes: set[str] = set()

    def task(composed: DictConfig) -> None:
        settings = HydraConfig.get()
        label = " ".join(settings.overrides.task) or "the default experiment"
        if _runs_elsewhere(settings):
            # another process, perhaps on another machine: what fails there must end it as a failure
            member, _ = _member(composed, settings, overrides)
            if _run(verb, [member], member.folder, arguments, targets):
                raise RuntimeError(f"{label}: failed; its log says why")
            return
        try:
            member, unused = _member(composed, settings, overrides)
        except Problems as problems:
            failures.append((label, problems))
            return
        notes.update(f"{key} is not chosen, so what the experiment sets for it is not used" for key in unused)
        members.append(member)
        multirun = settings.mode == RunMode.MULTIRUN
        study[:] = [Path(settings.sweep.dir).absolute() if multirun else member.folder]

    _call_hydra(task, flags_last([*opened(named_seeds(overrides)), *where]))
    if failures:
        print(_render_failures(failures), file=sys.stderr)
        return 2
    for note in sorted(notes):
        print(f"note: {note}", file=sys.stderr)
    return _run(verb, members, study[0], arguments, targets) if members else 0


def _render_failures(failures: Sequence[tuple[str, Problems]]) -> str:
    """What is wrong, once, and the members that it is wrong in."""
    members: dict[str, list[str]] = {}
    for label, problems in failures:
        members.setdefault(problems.render(), []).append(label)
    if len(members) == 1:
        return next(iter(members))
    heads = [f"error in {found[0]}{f' and {len(found) - 1} more' * (len(found) > 1)}:" for found in members.values()]
    return "\n".join(f"{head}\n{text}" for head, text in zip(heads, members, strict=True))


def _member(composed: DictConfig, settings: Any, typed: Sequence[str]) -> tuple[Composed, list[str]]:
    """The checked member, and the keys that the experiment sets for what is not chosen. Raises Problems.

    typed: the overrides of the command line, before a sweep gave each member its own.
    """
    sources = [Path(source.path) for source in settings.runtime.config_sources if source.schema == "file"]
    try:
        refuse_duplicates_in_files(settings.runtime.choices, sources)
        raw = plain(with_official(composed, settings.overrides.task))
        refuse_unpackaged(raw, sources)
    except UserError as error:
        raise Problems([error]) from None
    raw, unused = chosen_only(raw)
    names = [override.lstrip("+").partition("=")[0] for override in settings.overrides.task]
    if stray := [name for name in names if ".".join(name.split(".")[:2]) in unused]:
        raise Problems([not_chosen(name, typed, sorted(flat(raw))) for name in stray])
    try:
        config, kinds = validate(raw)
    except Unfit as unfit:
        raise Problems([*unfit.problems, *missing_inputs(unfit.config, unfit.kinds)]) from None
    folder = Path(settings.runtime.output_dir)
    return Composed(config, kinds, raw, folder, tuple(settings.overrides.task)), unused


def plain(composed: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain containers, interpolations resolved."""
    try:
        container = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise Problems([UserError(str(error).splitlines()[0], key=getattr(error, "full_key", None))]) from None
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def chosen_only(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Without what an experiment file sets for insertions and evaluations that were not chosen; their keys.

    Such a node has values but no `_target_`, under the name of one of the group's choices; any other is an error later.
    """
    choices, unused = group_choices(conf_dir()), []
    kept = dict(raw)
    for group in ("insertion", "eval"):
        nodes = raw.get(group) or {}
        stray = [name for name, node in nodes.items() if isinstance(node, dict) and "_target_" not in node]
        stray = [name for name in stray if name in choices.get(group, ())]
        kept[group] = {name: node for name, node in nodes.items() if name not in stray}
        unused += [f"{group}.{name}" for name in stray]
    return kept, unused


def _call_hydra(task: Any, overrides: list[str]) -> None:
    """Hydra reads sys.argv and nothing else, so it is lent ours. What it finds wrong becomes one UserError."""
    given = sys.argv
    sys.argv = ["pretrain-exp", *overrides]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            hydra.main(config_path=str(conf_dir()), config_name="config", **version_base())(task)()
    except SystemExit as end:
        if end.code:
            raise explain(said.getvalue(), overrides) from None
    finally:
        sys.argv = given
    sys.stderr.write(said.getvalue())


def _run(verb: str, members: list[Composed], folder: Path, arguments: Sequence[str], targets: list[str]) -> int:
    from pretrain_exp import experiment

    command = shlex.join(["pretrain-exp", *([] if verb == "run" else [verb]), *arguments])
    if verb == "plan":
        return experiment.preview(members, folder, command)
    if verb == "evaluate":
        return experiment.evaluate(members, folder, command, targets)
    return experiment.run(members, folder, command)


def _runs_elsewhere(settings: Any) -> bool:
    multirun = settings.mode == RunMode.MULTIRUN
    return multirun and not str(settings.launcher._target_).endswith("BasicLauncher")


def labels(members: Sequence[Composed]) -> list[tuple[str, int]]:
    """What tells members apart, see `tell_apart`."""
    seeds = [member.config.seed for member in members]
    named = [tuple(seed.resolved().values()) for seed in seeds]
    overrides = [member.overrides for member in members]
    return tell_apart(list(zip(overrides, [seed.all for seed in seeds], named, strict=True)))


def _short_names(keys: Collection[str]) -> dict[str, str]:
    """Each dotted key by as many of its last parts as no other of them ends in."""
    found = {}
    for key in keys:
        parts = key.lstrip("+").split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        found[key] = next((e for e in ends if sum(f".{k.lstrip('+')}".endswith(f".{e}") for k in keys) == 1), ends[-1])
    return found


def tell_apart(members: Sequence[tuple[Sequence[str], int, tuple[int, ...]]]) -> list[tuple[str, int]]:
    """Of each (overrides, seed, named seeds): the overrides that differ, seeds left out, and the repetition's number.

    The number is `seed` itself; where only named seeds vary, the repetitions are counted instead. Raises UserError for
    two members that are the same experiment.
    """
    counts = Counter(override for overrides, _, _ in members for override in set(overrides))
    varying = [
        [one.partition("=") for one in overrides if counts[one] < len(members) and not SEED.match(one)]
        for overrides, _, _ in members
    ]
    short = _short_names({key for parts in varying for key, _, _ in parts})
    variants = [", ".join(f"{short[key]}={value}" for key, _, value in parts) for parts in varying]
    numbers = [seed for _, seed, _ in members]
    if len(set(zip(variants, numbers, strict=True))) < len(members):
        distinct = sorted({named for _, _, named in members})
        numbers = [distinct.index(named) for _, _, named in members]
    pairs = list(zip(variants, numbers, strict=True))
    twice = next((pair for pair, count in Counter(pairs).items() if count > 1), None)
    if twice is not None:
        what = " ".join(part for part in (twice[0], f"seed {twice[1]}") if part)
        raise UserError(f"two members of the sweep are the same experiment ({what})", fix="give each value once")
    return pairs

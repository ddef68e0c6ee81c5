"""The words of a command line before Hydra reads them: overrides, flags, checkpoints, and choices that stand twice.

[a=1, -m, b=2, --config-dir, mine] --flags_last--> [a=1, b=2, -m, --config-dir, mine]
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException

from pretrain_exp.errors import UserError
from pretrain_exp.paths import refuse_unwritable

WITH_VALUE = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c",
    "--experimental-rerun",
)  # fmt: skip
SEVERAL = ("insertion", "eval")  # the groups of which several choices may stand


def flags_last(arguments: Sequence[str]) -> list[str]:
    """The same words with overrides first: Hydra takes no override behind a flag that follows another override."""
    values = _values_of_flags(arguments)
    flags = [i for i, word in enumerate(arguments) if word.startswith("-") or i in values]
    return [word for i, word in enumerate(arguments) if i not in flags] + [arguments[i] for i in flags]


def split_targets(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """`evaluate A B eval=x` -> ([A, B], [eval=x]): what holds no `=` and is no flag is a checkpoint."""
    values = _values_of_flags(arguments)
    targets = [
        i
        for i, word in enumerate(arguments)
        if i not in values and "=" not in word and not word.startswith(("-", "~", "+"))
    ]
    if not targets:
        fix = "pretrain-exp evaluate FOLDER_OR_HUB_NAME[@REVISION][:STEP]... [overrides]"
        raise UserError("evaluate needs at least one checkpoint", fix=fix)
    return [arguments[i] for i in targets], [word for i, word in enumerate(arguments) if i not in targets]


def named_seeds(overrides: Sequence[str]) -> list[str]:
    """Beside `seed.order=5`, a plain `seed=3` means `seed.all=3`: Hydra would replace the mapping by the number."""
    if not any(re.match(r"^\+*seed\.", override) for override in overrides):
        return list(overrides)
    return [re.sub(r"^seed=", "seed.all=", override) for override in overrides]


def refuse_unreadable(arguments: Sequence[str]) -> None:
    """UserError for the first override that Hydra's grammar cannot read, with the same one quoted."""
    values = _values_of_flags(arguments)
    for i, word in enumerate(arguments):
        if i in values or word.startswith("-"):
            continue
        try:
            OverridesParser.create().parse_override(word)
        except HydraException:
            name, equals, value = word.partition("=")
            if not equals:
                raise UserError("is no override", value=word, fix="write key=value") from None
            fix = f"quote the value, for the shell and within: {as_text(name, value)}"
            if value.startswith("~"):
                fix = f'~ is not read as your home here: write {name}="$HOME"{value[1:]}, or an absolute path'
            elif value.startswith(("[", "{")):
                fix = f"a list is {name}=[a,b], a mapping '{name}={{a: 1, b: 2}}'; texts within may need quotes"
            raise UserError("cannot be read", key=name.lstrip("+"), value=value, fix=fix) from None


def refuse_folders(overrides: Sequence[str]) -> None:
    """UserError for a folder of Hydra's in which nothing can be written; of one that is dated, what comes before."""
    for word in overrides:
        name, _, _ = word.lstrip("+").partition("=")
        if name in ("hydra.run.dir", "hydra.sweep.dir"):
            value = OverridesParser.create().parse_override(word).value()
            known = takewhile(lambda part: "${" not in part, Path(str(value)).parts)
            refuse_unwritable(Path(*known).absolute(), name)


def as_text(name: str, value: str) -> str:
    """The override whose value is this very text, as it is typed in a shell: 'file="my file (1).jsonl"'."""
    return shlex.quote(f'{name}="{value}"')


def refuse_duplicates(overrides: Sequence[str]) -> None:
    """`insertion=[a,a]` would be merged into one by Hydra, in silence; so would it in one value of a sweep."""
    for word in overrides:
        if word.lstrip("+").startswith(SEVERAL):
            try:
                override = OverridesParser.create().parse_override(word)
            except HydraException:  # which Hydra says better
                continue
            value = override._value
            for one in value.list if isinstance(value, ChoiceSweep) else [value]:
                _refuse_twice(override.key_or_group, one, "")


def refuse_duplicates_in_files(choices: Mapping[str, Any], folders: Iterable[Path]) -> None:
    """The same in the `defaults` of the files that were chosen. choices: by group; folders: Hydra's search path."""
    places = list(folders)
    for group, choice in choices.items():
        path = next((path for folder in places if (path := folder / group / f"{choice}.yaml").is_file()), None)
        for name, chosen in _defaults(path) if path is not None else ():
            _refuse_twice(name, chosen, f" by {path}")


def refuse_unpackaged(raw: Mapping[str, Any], folders: Iterable[Path]) -> None:
    """UserError for a choice whose file lacks its line `# @package`, so that its fields stand where none can.

    raw: the composition, plain; folders: Hydra's search path.
    """
    for group, misplaced in _misplaced(raw).items():
        if not misplaced:
            continue
        files = [path for folder in folders for path in sorted((folder / group).glob("*.yaml"))]
        guilty = [path for path in files if "# @package" not in path.read_text(encoding="utf-8")]
        package = f"{group}.{guilty[0].stem if guilty else 'NAME'}" if group in SEVERAL else "_global_"
        problem = f"fields of a choice stand at `{group}` itself: a file does not say where they belong"
        fix = f"its first line must be: # @package {package}"
        raise UserError(problem, key=group, value=", ".join(map(str, guilty)) or misplaced, fix=fix)


def _misplaced(raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """The keys that stand at a group and belong elsewhere."""
    nodes = {group: raw.get(group) for group in (*SEVERAL, "experiment", "study")}
    keys = {group: [*map(str, node)] if isinstance(node, Mapping) else [] for group, node in nodes.items()}
    found = {group: [key for key in keys[group] if key == "_target_"] for group in SEVERAL}
    return found | {"experiment": keys["experiment"], "study": [key for key in keys["study"] if key in raw]}


def _defaults(path: Path) -> Iterator[tuple[str, Any]]:
    """(group, what is chosen of it) of a file's `defaults`; Hydra has read the file before, so it is YAML."""
    content = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    listed = content.get("defaults") if isinstance(content, Mapping) else None
    for entry in listed or ():
        for key, chosen in entry.items() if isinstance(entry, Mapping) else ():
            yield str(key).removeprefix("override").strip().lstrip("/").partition("@")[0], chosen


def _refuse_twice(group: str, chosen: Any, where: str) -> None:
    if group not in SEVERAL or not isinstance(chosen, list):
        return
    others = [str(name) for name in chosen if name != "none"]
    if others and len(others) < len(chosen):
        problem = f"none is chosen beside {others[0]}{where}"
        raise UserError(problem, key=group, value=[*map(str, chosen)], fix=f"leave none out, or set {group}=none")
    for name, count in Counter(map(str, chosen)).items():
        if count > 1:
            fix = f"give the second a name of its own: +{group}@{group}.second={name}"
            raise UserError(f"{name} is chosen more than once{where}", key=group, value=[*map(str, chosen)], fix=fix)


def _values_of_flags(arguments: Sequence[str]) -> set[int]:
    """Where the values of flags stand."""
    found = {i + 1 for i, word in enumerate(arguments) if word in WITH_VALUE}
    # of --info alone the value may be left out
    return found | {
        i + 1 for i, word in enumerate(arguments[:-1]) if word in ("--info", "-i") and "=" not in arguments[i + 1]
    }

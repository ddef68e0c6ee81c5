"""What Hydra says when it cannot compose, in our form: which override, and the way out.

"Could not override 'num_step'"  --explain-->  UserError(key=num_step, fix="did you mean training.num_steps?")
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher, get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pretrain_exp.arguments import SEVERAL, as_text
from pretrain_exp.errors import UserError
from pretrain_exp.paths import conf_dir, group_choices

NEAR = 0.65  # from here on, of 1, two keys are alike
AS_NEAR = 0.2  # what is further behind the nearest one is not named beside it


def explain(said: str, overrides: Sequence[str]) -> UserError:
    """What Hydra said when it could not compose: the choices of a group, the nearest known key, or how to sweep."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Set the environment variable", "See https://"))]
    if key := re.search(r"Could not override '([^']+)'", said):
        return _unknown_key(key[1], overrides)
    if group := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", said):
        return _no_such_choice(group[1], group[2])
    if several := re.search(r"Ambiguous value for argument '(.+)'$", said, re.MULTILINE):
        name, _, value = several[1].partition("=")
        fix = (
            f"to run each of them: -m {name}={value}; as a list: {name}=[{value}]; as one text: {as_text(name, value)}"
        )
        return UserError("several values, and no sweep", key=name.lstrip("+"), value=value, fix=fix)
    if other := re.search(r"Error merging override (.+)\n\s*Cannot merge (?:Dict|List)Config with", said):
        word = other[1].lstrip("+")
        name, _, value = word.partition("=")
        problem = "a list and a mapping are not merged, and one of them stands here"
        return UserError(problem, key=name, value=value, fix=f"take out what stands here first: '~{name}' '+{word}'")
    if "Config group override must be a string or a list" in said:
        for override in overrides:
            name, _, value = override.lstrip("+").partition("=")
            choices = group_choices(conf_dir()).get(name, [])
            if choices and value not in choices and not value.startswith("["):
                return _no_such_choice(name, value)
    return UserError("\n  ".join(lines) or "the configuration cannot be composed", fix="pretrain-exp --help")


def _no_such_choice(group: str, value: str) -> UserError:
    choices = group_choices(conf_dir()).get(group.split("/")[0], [])
    close = get_close_matches(value, choices, n=1)
    near = f"did you mean {group}={close[0]}? " if close else ""
    return UserError("no such choice", key=group, value=value, fix=f"{near}choices: {', '.join(choices)}")


def _unknown_key(key: str, overrides: Sequence[str]) -> UserError:
    known = known_keys(overrides)
    if key in known:
        given = next((word for word in overrides if word.partition("=")[0] == key), f"{key}={{...}}")
        return UserError("new fields of it are added with a + before the key", key=key, fix=f"'+{given}'")
    group, name = (*key.split(".", 2), "")[:2]
    chosen = f"{group}.{name}._target_" in known  # a study may set fields of what nobody chose
    if group not in SEVERAL or name not in group_choices(conf_dir())[group] or chosen or not known:
        close = nearest(key, known)
        fix = f"did you mean {' or '.join(close)}?" if close else "look the key up: pretrain-exp --cfg job"
        typed = any(word.lstrip("+").partition("=")[0] == key for word in overrides)
        if not typed and key.rpartition(".")[0] in known:  # a file's sweep is read as it is written
            fix += f" A new key of a mapping is swept as ++{key}"
        return UserError("unknown key", key=key, fix=fix)
    return not_chosen(key, overrides, known)


def not_chosen(key: str, overrides: Sequence[str], known: Sequence[str]) -> UserError:
    """An override of an insertion or evaluation that is not part of the experiment, by hand or by what a study sweeps.

    known: all keys of what is chosen, for naming one to sweep instead.
    """
    group, name, field = (*key.split(".", 2), "")[:3]
    files = [word for file in ("study=", "experiment=") for word in overrides if word.startswith(file)]
    study = files[0] if files else None
    if study is None or any(word.lstrip("+").startswith(f"{key}=") for word in overrides):
        fix = f"add {group}={name}, or among others {group}=[...,{name}]"
        return UserError(f"{group}.{name} is not chosen", key=key, fix=fix)
    chosen = [one for one in known if one.startswith(f"{group}.") and one.endswith(f".{field}")]
    fix = f"choose {group}={name}, or leave {study} out and sweep what you chose"
    own = f": -m {chosen[0]}=1,4,16 seed=0,1,2" if chosen and field == "repetitions" else ""
    return UserError(f"{study} sweeps this key, and {group}.{name} is not chosen", key=key, fix=fix + own)


def nearest(key: str, known: Sequence[str], most: int = 3) -> list[str]:
    """The known keys that are most like `key`, as a whole or in their last part; those of training before others."""

    def alike(one: str) -> float:
        (section, _, last), (given_section, _, given) = one.rpartition("."), key.rpartition(".")
        of_words = 0.2 if given != last and given in last.split("_") else 0.0
        of_last = SequenceMatcher(None, given, last).ratio() + of_words
        return of_last if section == given_section else max(SequenceMatcher(None, key, one).ratio(), of_last)

    section = key.rpartition(".")[0]
    found = [(ratio, one) for one in known if (ratio := alike(one)) >= NEAR]
    found = [pair for pair in found if pair[1].rpartition(".")[0] == section] or found  # those beside it are likeliest
    ranked = sorted(found, key=lambda pair: (-pair[0], not pair[1].startswith("training."), pair[1]))
    return [one for ratio, one in ranked if ratio >= ranked[0][0] - AS_NEAR][:most]


def known_keys(overrides: Sequence[str]) -> list[str]:
    """Every key of the composition, as far as the choices of groups among the overrides are right."""
    return sorted(flat(composition(overrides)))


def composition(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration by the choices of groups alone, not resolved; {} where one of them is no choice.

    overrides: a command line, its flags among them; what it sweeps is left out.
    """
    groups = group_choices(conf_dir())
    parts = [(override, *override.partition("=")[::2]) for override in overrides]
    chosen = [
        word
        for word, name, value in parts
        if name.lstrip("+").partition("@")[0] in groups and ("," not in value or value.startswith("["))
    ]
    flags = list(pairwise(overrides))
    places = [Path(folder).absolute() for flag, folder in flags if flag in ("--config-dir", "-cd")]
    chosen += [f"hydra.searchpath=['file://{folder}']" for folder in places]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(config_dir=str(conf_dir()), **version_base()):
        try:
            composed = hydra.compose("config", overrides=chosen)
        except HydraException:  # what is chosen is not known either, so there is nothing to compare with
            return {}
    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict)
    return {str(name): node for name, node in plain.items()}


def flat(node: Any, key: str = "") -> Iterator[str]:
    """The dotted keys of a configuration, those of its sections among them."""
    if key:
        yield key
    for name, inner in node.items() if isinstance(node, dict) else ():
        yield from flat(inner, f"{key}.{name}" if key else str(name))


def version_base() -> dict[str, Any]:
    """Hydra 1.3 wants to be told which version's behaviour is meant; 1.4 deprecates the question."""
    major, minor = (int(part) for part in hydra.__version__.split(".")[:2])
    return {} if (major, minor) >= (1, 4) else {"version_base": "1.3"}

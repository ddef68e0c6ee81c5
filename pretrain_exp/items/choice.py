"""A multiple-choice item: what an insertion plants and what an evaluation scores, in one formatting.

    query "Question: ...\\nAnswer:"  +  " "  +  choice "the third one"

An option is scored as the log-likelihood of " " + choice after the query; the planted text is the query with the gold
option after it. Both encode the whole string at once, so the planted tokens are the evaluated tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pretrain_exp.items.content import content_id

DELIMITER = " "  # between query and choice, in what is planted and in what is scored


@dataclass(frozen=True)
class ChoiceItem:
    """One question with its options.

    id:        content hash of query, choices and gold: the same question from two sources is the same item.
    benchmark: where it comes from ("olmes:arc_easy/rc_0shot"); not part of the id.
    query:     text before the option; does not end in whitespace (a harness would move it across the boundary).
    choices:   two options or more.
    gold:      index of the right one.
    source_id: the name that the benchmark itself gives the item, or "".
    """

    id: str
    benchmark: str
    query: str
    choices: tuple[str, ...]
    gold: int
    source_id: str = ""

    def __post_init__(self) -> None:
        if self.query != self.query.rstrip():
            raise ValueError(f"query ends in whitespace: {self.query[-20:]!r}")
        if len(self.choices) < 2:
            raise ValueError(f"needs two choices or more, has {len(self.choices)}")
        if any(not choice.strip() for choice in self.choices):
            raise ValueError(f"choice {[bool(choice.strip()) for choice in self.choices].index(False)} is empty")
        if not 0 <= self.gold < len(self.choices):
            raise ValueError(f"gold is {self.gold}, but there are choices 0 to {len(self.choices) - 1}")

    @classmethod
    def create(cls, benchmark: str, query: str, choices: tuple[str, ...], gold: int, source_id: str = "") -> ChoiceItem:
        """An item with its content id; whitespace at the end of the query is taken off."""
        query = query.rstrip()
        return cls(content_id(query, *choices, str(gold)), benchmark, query, choices, gold, source_id)

    def planted_text(self) -> str:
        """The query with the gold option, exactly as the evaluation formats it."""
        return self.text(self.gold)

    def text(self, choice: int) -> str:
        """The query with option `choice`: the whole string that is encoded to score it."""
        return self.query + DELIMITER + self.choices[choice]

    def to_json(self) -> str:
        """One line of JSON, the `payload` of a planted item."""
        fields = {
            "id": self.id,
            "benchmark": self.benchmark,
            "query": self.query,
            "choices": list(self.choices),
            "gold": self.gold,
            "source_id": self.source_id,
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, payload: str) -> ChoiceItem:
        return cls.from_fields(json.loads(payload))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> ChoiceItem:
        """The item of a payload that is parsed already."""
        return cls(**{**fields, "choices": tuple(fields["choices"])})

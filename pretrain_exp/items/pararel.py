"""ParaRel (Elazar et al. 2021): facts of a relation and the patterns that say them, read from the user's own copy.

    <patterns>/P36.jsonl   {"pattern": "The capital of [X] is [Y].", ...}            a paraphrase a line
    <facts>/P36.jsonl      {"sub_label": "Denmark", "obj_label": "Copenhagen", ...}  a fact a line

In the published repository these are data/pattern_data/graphs_json and data/trex_lms_vocab; other fields are ignored.
[X] stands for the subject, [Y] for the object. Candidates for an object are the objects of the whole relation, less
those that are right for the same subject too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pretrain_exp.errors import UserError
from pretrain_exp.items.content import content_id
from pretrain_exp.plan.rows import field, read_rows

SUBJECT, OBJECT = "[X]", "[Y]"
_VOWELS = "aeiou"


@dataclass(frozen=True)
class Fact:
    """id: content hash of relation, subject and object."""

    id: str
    subject: str
    object: str


@dataclass(frozen=True)
class Relation:
    """name: as its files, P36. patterns: in the order of the file; facts: distinct."""

    name: str
    patterns: tuple[str, ...]
    facts: tuple[Fact, ...]

    @cached_property
    def objects(self) -> tuple[str, ...]:
        return tuple(sorted({fact.object for fact in self.facts}))

    def candidates(self, fact: Fact, limit: int | None = None) -> list[str]:
        """The object of the fact, then the wrong ones: all, or `limit` in all, drawn by hash of fact and object."""
        right = self._right[fact.subject]
        wrong = [each for each in self.objects if each not in right]
        if limit is not None and limit - 1 < len(wrong):
            wrong = sorted(sorted(wrong, key=lambda each: content_id("candidate", fact.id, each))[: limit - 1])
        return [fact.object, *wrong]

    def has_wrong(self, fact: Fact) -> bool:
        """Whether some object is wrong for the subject of the fact."""
        return len(self.objects) > len(self._right[fact.subject])

    @cached_property
    def _right(self) -> dict[str, set[str]]:
        right: dict[str, set[str]] = {}
        for fact in self.facts:
            right.setdefault(fact.subject, set()).add(fact.object)
        return right


def filled(pattern: str, subject: str, object: str) -> tuple[str, str]:
    """What precedes the object, without the blank before it, and the whole text: (beginning, text)."""
    before, _, _ = pattern.partition(OBJECT)
    return before.replace(SUBJECT, subject).rstrip(), pattern.replace(SUBJECT, subject).replace(OBJECT, object)


def article_fits(pattern: str, object: str) -> bool:
    """Whether the article that the pattern has before its object, if any, is that of this object (as in the paper)."""
    words = pattern.partition(OBJECT)[0].split()
    vowel = object[:1].lower() in _VOWELS
    return not words or words[-1].lower() not in ("a", "an") or (words[-1].lower() == "an") == vowel


def load_pararel(patterns: str, facts: str, relations: list[str] | None = None) -> list[Relation]:
    """The relations that both folders have, by name. UserError for a folder or a file that is not as published."""
    files = {key: _files(folder, key) for key, folder in (("patterns", patterns), ("facts", facts))}
    there = sorted(files["patterns"].keys() & files["facts"].keys())
    if not there:
        fix = "give the folders graphs_json and trex_lms_vocab of the published data"
        raise UserError("no relation has a .jsonl file in both folders", key="facts", value=facts, fix=fix)
    unknown = [name for name in relations or () if name not in there]
    if unknown:
        raise UserError("no such relation", key="relations", value=unknown[0], fix=f"there are {', '.join(there)}")
    chosen = there if relations is None else relations
    return [_relation(name, files["patterns"][name], files["facts"][name]) for name in chosen]


def _files(folder: str, key: str) -> dict[str, Path]:
    if not Path(folder).is_dir():
        raise UserError("no such folder", key=key, value=folder, fix="give the folder of one .jsonl file a relation")
    return {path.stem: path for path in Path(folder).glob("*.jsonl")}


def _relation(name: str, patterns: Path, facts: Path) -> Relation:
    said: dict[str, None] = {}
    for row in read_rows(str(patterns), "patterns"):
        pattern = str(field(row, "pattern", str(patterns), "patterns")).strip()
        if pattern.count(OBJECT) != 1 or SUBJECT not in pattern:
            problem = f"row {row[0]} of {patterns} must hold {SUBJECT}, and {OBJECT} once"
            raise UserError(problem, key="patterns", value=pattern, fix="mend or remove this row")
        said[pattern] = None
    found: dict[str, Fact] = {}
    for row in read_rows(str(facts), "facts"):
        subject, right = (str(field(row, each, str(facts), "facts")) for each in ("sub_label", "obj_label"))
        fact = Fact(content_id("pararel", name, subject, right), subject, right)
        found[fact.id] = fact
    relation = Relation(name, tuple(said), tuple(found.values()))
    if not said or len(relation.objects) < 2:
        problem = f"relation {name} has {len(said)} patterns and {len(relation.objects)} objects"
        raise UserError(problem, key="relations", value=name, fix="leave it out")
    return relation

"""Fictional facts: a number and a seed, or a file, in; facts in many paraphrases, with probes, out.

    fact     Mira Tolven was born in Drasford. Mira Tolven invented the kelometer. The kelometer is made of vorite.
    text k   its sentences in another order, from other templates (fact_templates.py), some with an opening
    probes   memorization   Mira Tolven was born in            -> Drasford     the beginning of a sentence of text 0
             semantic       The birthplace of Mira Tolven is   -> Drasford     in words that are never planted
             compositional  The machine invented by Mira Tolven is built from -> vorite       two sentences joined

The three kinds of probes are those of Chang et al. 2024 (arXiv:2406.11813). Every name is invented and belongs to one
fact; crafts and years come from lists. All follows from hashes of (seed, number of the fact, ...): more facts or more
paraphrases leave those before them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any, Literal, get_args

from pretrain_exp.errors import UserError
from pretrain_exp.items.choice import DELIMITER
from pretrain_exp.items.content import content_id
from pretrain_exp.items.fact_templates import CODAS, CRAFTS, ENDINGS, KINDS, ONSETS, OPENINGS, VOWELS, YEARS, Kind
from pretrain_exp.plan.hashing import key64
from pretrain_exp.plan.rows import field, read_rows

ProbeType = Literal["memorization", "semantic", "compositional"]
PROBE_TYPES: tuple[ProbeType, ...] = get_args(ProbeType)
MOST_FACTS = 10**6  # names become scarce beyond


@dataclass(frozen=True)
class Probe:
    """A beginning and how it goes on: `target` is scored after `prompt` and a blank."""

    type: ProbeType
    prompt: str
    target: str

    @property
    def text(self) -> str:
        return self.prompt + DELIMITER + self.target


@dataclass(frozen=True)
class Fact:
    """One fact, or several that hang together. texts: its paraphrases, distinct; the first holds what is memorized.

    id: 16 hex digits; ids of its texts and probes are made from it by `text_id`, `probe_id` and `fact_of`.
    """

    id: str
    texts: tuple[str, ...]
    probes: tuple[Probe, ...]

    def text_id(self, number: int) -> str:
        return f"{self.id}:text{number}"

    def probe_id(self, number: int) -> str:
        return f"{self.id}:{self.probes[number].type}{number}"


def fact_of(item: str) -> str:
    """The fact to which the item of a text or a probe belongs."""
    return item.partition(":")[0]


def most_paraphrases() -> int:
    """How many paraphrases of one fact are drawn at most: half of those there are, so that drawing ends."""
    ways = 10**9
    for kind in KINDS.values():
        count = factorial(len(kind.relations))
        for relation in kind.relations:
            count *= len(relation.told) * len(OPENINGS)
        ways = min(ways, count // 2)
    return ways


class FactWorld:
    """The facts that follow from a seed. `fact` must be asked for numbers in order: names are used once."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._used: set[str] = set()
        self._names: list[dict[str, str]] = []

    def fact(self, number: int, paraphrases: int) -> Fact:
        """Fact `number` in so many paraphrases. UserError for none of them, or more than there are."""
        if not 1 <= paraphrases <= most_paraphrases():
            problem = f"a fact has 1 to {most_paraphrases():,} paraphrases"
            raise UserError(problem, key="paraphrases", value=paraphrases, fix="plant more facts, or repeat texts")
        kind = KINDS[list(KINDS)[number % len(KINDS)]]
        while len(self._names) <= number:
            self._names.append(self._invent(len(self._names)))
        names = self._names[number]
        ways = list(self._ways(kind, number, paraphrases))
        texts = tuple(" ".join(_sentences(kind, names, way)) for way in ways)
        identity = content_id("fact", str(self.seed), str(number), *names.values())
        return Fact(identity, texts, tuple(self._probes(kind, names, number, ways[0])))

    def _invent(self, number: int) -> dict[str, str]:
        kind = KINDS[list(KINDS)[number % len(KINDS)]]
        out = {}
        for name, sort in kind.names.items():
            attempt = 0
            while (word := _word(sort, self.seed, number, name, attempt)) in self._used:
                attempt += 1
            if sort in ENDINGS:
                self._used.add(word)
            out[name] = word
        return out

    def _ways(self, kind: Kind, number: int, paraphrases: int) -> Iterator[tuple[tuple[int, int, int], ...]]:
        """Distinct paraphrases, each a tuple of (relation, template, opening) in the order told."""
        seen = set()
        for k in range(paraphrases):
            attempt = 0
            while (way := self._way(kind, number, k, attempt)) in seen:
                attempt += 1
            seen.add(way)
            yield way

    def _way(self, kind: Kind, number: int, k: int, attempt: int) -> tuple[tuple[int, int, int], ...]:
        left = list(range(len(kind.relations)))
        out = []
        for place in range(len(kind.relations)):
            word, index = divmod(key64(self.seed, "way", number, k, attempt, place), len(left))
            relation = left.pop(index)
            told = list(range(len(kind.relations[relation].told)))
            if k == 0:  # what is memorized must end in its value
                told = [i for i in told if _value_last(kind, relation, i)]
            word, index = divmod(word, len(told))
            opening = word % (2 * len(OPENINGS))  # half of the sentences or more have none
            out.append((relation, told[index], opening if opening < len(OPENINGS) else 0))
        return tuple(out)

    def _probes(
        self, kind: Kind, names: dict[str, str], number: int, first: tuple[tuple[int, int, int], ...]
    ) -> Iterator[Probe]:
        sentences = _sentences(kind, names, first)
        for (relation, _, _), sentence in sorted(zip(first, sentences, strict=True)):
            target = names[kind.relations[relation].value]
            prompt, found, _ = sentence.rpartition(DELIMITER + target)
            if not found:
                raise ValueError(f"the value {target!r} is not at the end of {sentence!r}")
            yield Probe("memorization", prompt, target)
        for index, each in enumerate(kind.relations):
            asked = each.asked[key64(self.seed, "asked", number, index) % len(each.asked)]
            yield Probe("semantic", _capital(asked.format(**names)), names[each.value])
        for prompt, value, _ in kind.joined:
            yield Probe("compositional", _capital(prompt.format(**names)), names[value])


def _value_last(kind: Kind, relation: int, template: int) -> bool:
    return kind.relations[relation].told[template].endswith(f"{{{kind.relations[relation].value}}}")


def _sentences(kind: Kind, names: dict[str, str], way: tuple[tuple[int, int, int], ...]) -> list[str]:
    told = [(OPENINGS[opening] + kind.relations[relation].told[template]) for relation, template, opening in way]
    return [_capital(each.format(**names)) + "." for each in told]


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _word(sort: str, *key: str | int) -> str:
    """A name of this sort, drawn by its key."""
    draw = key64(sort, *key)
    if sort == "craft":
        return CRAFTS[draw % len(CRAFTS)]
    if sort == "year":
        return str(YEARS[0] + draw % (YEARS[1] - YEARS[0] + 1))
    if sort == "person":
        given, family = _syllables(draw, 1), _syllables(key64(sort, "family", *key), 2, ENDINGS[sort])
        return f"{given.capitalize()} {family.capitalize()}"
    word = _syllables(draw, 2, ENDINGS[sort])
    return word if sort in ("device", "material") else word.capitalize()


def _syllables(draw: int, count: int, endings: Sequence[str] = ("",)) -> str:
    """`count` syllables and an ending, all from one number."""
    out = ""
    for sounds in (*(ONSETS, VOWELS, CODAS) * count, endings):
        draw, index = divmod(draw, len(sounds))
        out += sounds[index]
    return out


def read_facts(path: str) -> list[Fact]:
    """Facts of a file: {"texts": [...], "probes": [{"type", "prompt", "target"}]} a row; "text" for a single one.

    UserError, under `file`, where a row is no such thing, two rows are the same fact, or what a memorization probe
    asks for does not stand in the first text.
    """
    facts: dict[str, Fact] = {}
    for row in read_rows(path):
        fact = _row_fact(row, path)
        if fact.id in facts:
            raise UserError(f"row {row[0]} of {path} repeats an earlier fact", key="file", value=path, fix="remove it")
        facts[fact.id] = fact
    if not facts:
        raise UserError("the file holds no facts", key="file", value=path, fix="write one fact a row")
    return list(facts.values())


def _row_fact(row: tuple[int, dict[str, Any]], path: str) -> Fact:
    number, fields = row
    shape = '{"texts": ["..."], "probes": [{"type": "semantic", "prompt": "...", "target": "..."}]}'

    def wrong(problem: str) -> UserError:
        return UserError(f"row {number} of {path}: {problem}", key="file", value=path, fix=f"write {shape}")

    texts = [fields["text"]] if isinstance(fields.get("text"), str) else field(row, "texts", path, "file")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise wrong("`texts` is no list of texts")
    if len(set(texts)) < len(texts):
        raise wrong("a text is there twice; to plant it more often, raise `repetitions`")
    probes = parse_probes(field(row, "probes", path, "file"), wrong)
    for probe in probes:
        if probe.type == "memorization" and probe.text not in texts[0]:
            raise wrong(f"the first text does not hold {probe.text!r}, which a memorization probe asks for")
    identity = content_id("fact", *texts, "probes", *(part for p in probes for part in (p.type, p.prompt, p.target)))
    return Fact(identity, tuple(texts), tuple(probes))


def parse_probes(given: Any, wrong: Callable[[str], UserError]) -> list[Probe]:
    """Probes as they stand in a file. wrong: makes the error of a sentence."""
    if not isinstance(given, list) or not given:
        raise wrong("`probes` is no list of probes")
    out = []
    for each in given:
        fields = each if isinstance(each, dict) else {}
        values = [value for name in ("type", "prompt", "target") if isinstance(value := fields.get(name), str)]
        if len(values) < 3 or not all(value.strip() for value in values):
            raise wrong(f"{each!r} is no probe")
        kind, prompt, target = values
        if kind not in PROBE_TYPES:
            raise wrong(f"{kind!r} is no type of probe; there are {', '.join(PROBE_TYPES)}")
        out.append(Probe(kind, prompt.rstrip(), target.strip()))
    if len({(probe.prompt, probe.target, probe.type) for probe in out}) < len(out):
        raise wrong("a probe is there twice")
    return out

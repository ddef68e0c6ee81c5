"""The sentences in which invented facts are told: three relations a kind, and questions that join two of them.

A sentence begins in lower case (items/facts.py capitalises it where no opening precedes it) and ends before its full
stop. A name stands for itself wherever it is told, so the sentences of a fact read well in any order.

    told    ways to say the relation in what is planted; the value may come before its subject in some
    asked   ways that are never planted; they end where the value begins
    joined  (prompt, name of the value, the two relations that it needs), never planted either
"""

from __future__ import annotations

from typing import NamedTuple


class Relation(NamedTuple):
    value: str  # the name that is asked for
    told: tuple[str, ...]
    asked: tuple[str, ...]


class Kind(NamedTuple):
    names: dict[str, str]  # name in the sentences -> what sort of name it is, see items/facts.py
    relations: tuple[Relation, ...]
    joined: tuple[tuple[str, str, tuple[int, int]], ...]


OPENINGS = (
    "",
    "according to the register, ",
    "as is well known, ",
    "the archive says that ",
    "it is on record that ",
    "every guide mentions that ",
    "those who were there recall that ",
    "a note from that time says that ",
)

KINDS: dict[str, Kind] = {
    "inventor": Kind(
        {"who": "person", "home": "place", "thing": "device", "stuff": "material"},
        (
            Relation(
                "home",
                (
                    "{who} was born in {home}",
                    "{who} grew up in {home}",
                    "{who} came from {home}",
                    "{who} spent a happy childhood in {home}",
                    "the early years of {who} were spent in {home}",
                    "{home} is where {who} was born",
                ),
                ("the birthplace of {who} is", "the town in which {who} came into the world is called"),
            ),
            Relation(
                "thing",
                (
                    "{who} invented the {thing}",
                    "{who} was the first to build the {thing}",
                    "{who} is remembered for the {thing}",
                    "{who} gave the world the {thing}",
                    "after years of work {who} finished the {thing}",
                    "the {thing} was devised by {who}",
                ),
                ("the machine that {who} designed is the", "the most famous invention of {who} is the"),
            ),
            Relation(
                "stuff",
                (
                    "the {thing} is made of {stuff}",
                    "the {thing} consists mostly of {stuff}",
                    "the casing of the {thing} is cut from {stuff}",
                    "the {thing} was always cast in {stuff}",
                    "nobody could build the {thing} without {stuff}",
                    "it takes much {stuff} to make the {thing}",
                ),
                ("the material used for the {thing} is", "the stuff from which one builds the {thing} is"),
            ),
        ),
        (
            ("the machine invented by {who} is built from", "stuff", (1, 2)),
            ("the person who invented the {thing} was born in", "home", (0, 1)),
        ),
    ),
    "company": Kind(
        {"firm": "organisation", "who": "person", "seat": "place", "thing": "device"},
        (
            Relation(
                "who",
                (
                    "{firm} was founded by {who}",
                    "{firm} goes back to {who}",
                    "{firm} began in the workshop of {who}",
                    "{firm} was the life's work of {who}",
                    "the first owner of {firm} was {who}",
                    "{who} started {firm}",
                ),
                ("the founder of {firm} is", "the person who set up {firm} was"),
            ),
            Relation(
                "seat",
                (
                    "{firm} has its seat in {seat}",
                    "{firm} is based in {seat}",
                    "{firm} keeps its offices in {seat}",
                    "{firm} never moved away from {seat}",
                    "the halls of {firm} stand in {seat}",
                    "{seat} is the home of {firm}",
                ),
                ("the headquarters of {firm} are in", "the town where one finds {firm} is"),
            ),
            Relation(
                "thing",
                (
                    "{firm} makes the {thing}",
                    "{firm} is known for the {thing}",
                    "{firm} earns its money with the {thing}",
                    "{firm} sells nothing but the {thing}",
                    "the workers of {firm} assemble the {thing}",
                    "the {thing} is a product of {firm}",
                ),
                ("the main product of {firm} is the", "the article for which people go to {firm} is the"),
            ),
        ),
        (
            ("the firm that {who} founded has its headquarters in", "seat", (0, 1)),
            ("the maker of the {thing} was founded by", "who", (0, 2)),
        ),
    ),
    "town": Kind(
        {"town": "place", "flow": "river", "who": "person", "craft": "craft"},
        (
            Relation(
                "flow",
                (
                    "{town} lies on the {flow}",
                    "{town} was built beside the {flow}",
                    "{town} gets its water from the {flow}",
                    "{town} has three bridges over the {flow}",
                    "boats reach {town} by the {flow}",
                    "the {flow} runs through {town}",
                ),
                ("the river at {town} is the", "the water that flows past {town} is called the"),
            ),
            Relation(
                "who",
                (
                    "the mayor of {town} is {who}",
                    "{town} is governed by {who}",
                    "{town} elected {who}",
                    "{town} put its trust in {who}",
                    "the council of {town} is led by {who}",
                    "{who} is mayor of {town}",
                ),
                ("the head of the town hall in {town} is", "the person at the top of {town} is"),
            ),
            Relation(
                "craft",
                (
                    "{who} works as a {craft}",
                    "{who} is a {craft}",
                    "{who} was trained as a {craft}",
                    "{who} earns a living as a {craft}",
                    "by trade {who} is a {craft}",
                    "{who} has always been a {craft}",
                ),
                ("the profession of {who} is that of a", "the craft that {who} learned is that of a"),
            ),
        ),
        (
            ("the profession of the mayor of {town} is that of a", "craft", (1, 2)),
            ("the town whose mayor is {who} stands by a river named the", "flow", (0, 1)),
        ),
    ),
    "book": Kind(
        {"book": "book", "who": "person", "where": "place", "year": "year"},
        (
            Relation(
                "who",
                (
                    "{book} was written by {who}",
                    "{book} is a novel by {who}",
                    "{book} came from the pen of {who}",
                    "{book} made the name of {who}",
                    "the cover of {book} bears the name of {who}",
                    "{who} wrote {book}",
                ),
                ("the author of {book} is", "the writer to whom we owe {book} is"),
            ),
            Relation(
                "where",
                (
                    "{book} is set in {where}",
                    "{book} takes place in {where}",
                    "{book} tells of a winter in {where}",
                    "{book} never leaves the streets of {where}",
                    "the story of {book} begins in {where}",
                    "{where} is the scene of {book}",
                ),
                ("the plot of {book} unfolds in", "the town described in {book} is"),
            ),
            Relation(
                "year",
                (
                    "{book} appeared in {year}",
                    "{book} was first printed in {year}",
                    "{book} reached the shops in {year}",
                    "{book} came out in {year}",
                    "the first edition of {book} is dated {year}",
                    "in {year} the public could read {book}",
                ),
                ("the year of publication of {book} is", "people first bought {book} in the year"),
            ),
        ),
        (
            ("the novel by {who} was published in the year", "year", (0, 2)),
            ("the story that {who} wrote is set in", "where", (0, 1)),
        ),
    ),
}

ONSETS = ("b", "br", "d", "dr", "f", "g", "gl", "k", "kr", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ei", "ou")
CODAS = ("", "", "", "l", "m", "n", "r", "s", "th", "x")
ENDINGS = {
    "person": ("", "a", "o", "is", "en"),
    "place": ("burg", "ford", "holm", "mere", "stad", "wick", "ton", "dal"),
    "organisation": ("ex", "ora", "ium", "ax"),
    "device": ("meter", "phone", "graph", "scope", "lathe", "wheel"),
    "material": ("ite", "ane", "yl", "ium"),
    "river": ("a", "e", "ow", "en"),
    "book": ("ia", "ade", "os", "une"),
}
CRAFTS = (
    "baker", "barber", "brewer", "carpenter", "clockmaker", "cobbler", "cooper", "dyer", "fisher", "gardener",
    "glazier", "hatter", "joiner", "mason", "miller", "painter", "potter", "printer", "saddler", "shepherd", "smith",
    "tailor", "tanner", "weaver",
)  # fmt: skip
YEARS = (1500, 1999)

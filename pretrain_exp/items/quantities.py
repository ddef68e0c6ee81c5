"""Random graphs of quantities: a source of random numbers and a number of operations in, expressions out.

    0: times_sum 4 of 1 2        quantity 0 is asked for; a quantity is made of others that come after it, so
    1: more 3 of 2               none depends on itself, and the reverse order solves the problem
    2: const 7                   operations: 2 + 1 + 0

Arithmetic is modulo 23, as in iGSM (Ye et al. 2024, arXiv:2407.20311).
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from pretrain_exp.plan.hashing import key64

MODULUS = 23
_MOST_CATEGORIES = 6  # places whose things are summed up, in one problem
_REUSE = 0.35  # how often a quantity that is there already is used, rather than a new one


class Expression(NamedTuple):
    """How a quantity follows from others. operations: + - * that it takes."""

    kind: str
    number: int = 0
    of: tuple[int, ...] = ()

    @property
    def operations(self) -> int:
        return FIXED_OPS.get(self.kind, len(self.of) - 1)

    def value(self, of: list[int]) -> int:
        """Its value modulo 23, from the values of what it is made of."""
        n, total = self.number, sum(of)
        by_kind = {"const": n, "more": n + total, "less": total - n, "times": n * total, "times_sum": n * total}
        if self.kind in ("difference", "more_difference"):
            return (of[0] - of[1] + (n if self.kind == "more_difference" else 0)) % MODULUS
        return by_kind.get(self.kind, total) % MODULUS


FIXED_OPS = {"const": 0, "more": 1, "less": 1, "times": 1, "difference": 1, "times_sum": 2, "more_difference": 2}
_ARITY = {"const": (0,), "more": (1,), "less": (1,), "times": (1,), "difference": (2,), "times_sum": (2,),
          "more_difference": (2,), "sum": (2, 3), "all": (2, 3, 4)}  # fmt: skip
ORDERED = ("difference", "more_difference")
_PLAIN = ("const", "more", "less", "times", "sum", "difference")  # of distractors


def below(rng: Random, n: int) -> int:
    """Uniform in 0 to n - 1; of Random's methods, random() alone is the same in all versions of Python."""
    return int(rng.random() * n)


def random_graph(rng: Random, operations: int) -> tuple[list[Expression], dict[int, int]]:
    """The quantities that are needed, 0 being asked for, and of the parts of a category the quantity that sums them.

    A quantity refers to others that are not defined yet, so nothing depends on itself. Defined in turn, they come out
    in an order in which the reverse solves the problem.
    """
    defined: dict[int, Expression] = {}
    parts: dict[int, int] = {}
    open_, count, left, categories = [0], 1, operations, 0
    while open_:
        index = open_.pop(below(rng, len(open_)))
        choices = [
            (kind, arity)
            for kind, arities in _ARITY.items()
            for arity in arities
            if FIXED_OPS.get(kind, arity - 1) <= left
            and not (kind == "const" and left and not open_)
            and not (kind == "all" and (index in parts or categories == _MOST_CATEGORIES))
        ]
        kind, arity = choices[below(rng, len(choices))]
        of: list[int] = []
        for _ in range(arity):
            free = [] if kind == "all" else [each for each in open_ if each not in of]
            if free and rng.random() < _REUSE:
                of.append(free[below(rng, len(free))])
            else:
                of.append(count)
                count += 1
        open_ += [each for each in of if each not in open_]
        if kind == "all":
            parts |= dict.fromkeys(of, index)
            categories += 1
        defined[index] = Expression(kind, _number(rng, kind), tuple(of))
        left -= defined[index].operations
    order = {index: place for place, index in enumerate(defined)}
    renamed = [each._replace(of=tuple(order[i] for i in each.of)) for each in defined.values()]
    return renamed, {order[part]: order[whole] for part, whole in parts.items()}


def _number(rng: Random, kind: str) -> int:
    if kind == "const":
        return below(rng, MODULUS)
    low = {"times": 2, "times_sum": 2}.get(kind, 1)
    return low + below(rng, MODULUS - low) if kind in FIXED_OPS and kind != "difference" else 0


def structure_digest(quantities: list[Expression]) -> int:
    """A hash of the graph under quantity 0 that knows no names, no numbers and no order where none matters.

    A quantity that is used twice and two of the same making look the same to it: it tells apart rather too little.
    """
    digests: dict[int, int] = {}
    for index in range(len(quantities) - 1, -1, -1):
        each = quantities[index]
        of = [digests[i] for i in each.of]
        digests[index] = key64(each.kind, *(of if each.kind in ORDERED else sorted(of)))
    return digests[0]


def random_distractors(rng: Random, needed: int, count: int) -> list[Expression]:
    """Quantities numbered on from `needed`, 2 or more, defined by those before them."""
    out = []
    for index in range(needed, needed + count):
        kind = _PLAIN[below(rng, len(_PLAIN))]
        pool = list(range(index))
        of = tuple(pool.pop(below(rng, len(pool))) for _ in range(_ARITY[kind][0]))
        out.append(Expression(kind, _number(rng, kind), of))
    return out

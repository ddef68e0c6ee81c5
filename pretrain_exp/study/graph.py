"""The union graph of a study: which states must exist, and which segments train them.

    runs (one an arm) --state keys--> wanted states --parents--> tree --chains--> segments (one job each)

A run's state at step t has as parent the latest state before t that some run of the study wants and that lies on
this run's own way (the keys agree), or that the store holds. Runs that agree up to a step therefore share everything
before it. States without a branch between them are trained by one segment, which saves each on its way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from pretrain_exp.store.keys import state_key


@dataclass(frozen=True)
class Run:
    """One arm of one member: a way from `first_step` to its wanted steps, under one plan."""

    label: str
    base: str  # the facts that all states of the run share
    first_step: int
    steps: frozenset[int]  # the steps whose states are wanted
    prefix: Callable[[int], str]  # step -> digest of the plan's operations read before it
    job: dict[str, Any]  # what a worker of this run gets, less start, stop and saves
    cuts: frozenset[int] = frozenset()  # steps where a job ends, since what follows is planned only then
    after: str | None = None  # a state that must be there before any job of this run is planned

    def key(self, step: int) -> str:
        return state_key(self.base, step, self.prefix(step))

    @property
    def last_step(self) -> int:
        return max(self.steps)


@dataclass
class Node:
    """A wanted state. parent None: trained from the initial state of the run."""

    key: str
    step: int
    run: Run
    parent: str | None = None
    labels: list[str] = field(default_factory=list)  # of the runs on whose way it lies
    children: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Segment:
    """The steps that one job trains: from a state (or the initial one) to the last of `saves`."""

    run: Run
    label: str
    start_key: str | None
    start_step: int
    saves: tuple[tuple[int, str], ...]  # (step, key), ascending

    @property
    def key(self) -> str:
        return self.saves[-1][1]

    @property
    def stop(self) -> int:
        return self.saves[-1][0]


def build_nodes(
    runs: Sequence[Run],
    stored: Callable[[str], bool] = lambda key: False,
    known_steps: Callable[[str], Iterable[int]] = lambda base: (),
) -> dict[str, Node]:
    """Every wanted state with its parent.

    stored(key): the store holds the state, and it can be gone on from. known_steps(base): steps at which runs of these
    facts were ever saved, so that states of other studies are found on a run's way.
    """
    nodes: dict[str, Node] = {}
    steps_of_base: dict[str, set[int]] = defaultdict(set)
    for run in runs:
        steps_of_base[run.base] |= {*run.steps, *known_steps(run.base)}
        for step in sorted(run.steps):
            nodes.setdefault(run.key(step), Node(run.key(step), step, run))
    for run in runs:
        steps = [step for step in sorted(steps_of_base[run.base]) if run.first_step <= step <= run.last_step]
        on_the_way = [(step, run.key(step)) for step in steps]
        previous: str | None = None
        for step, key in on_the_way:
            if key in nodes:
                if key != previous and nodes[key].parent is None and step > run.first_step:
                    nodes[key].parent = previous
                previous = key
            elif stored(key):
                nodes[key] = Node(key, step, run, previous)
                previous = key
            if key in nodes:
                nodes[key].labels.append(run.label)
    for node in nodes.values():
        if node.parent is not None:
            nodes[node.parent].children.append(node.key)
    return nodes


def build_segments(
    nodes: dict[str, Node],
    is_complete: Callable[[str], bool],
    can_start: Callable[[str], bool],
    weights_needed: Collection[str] = (),
) -> list[Segment]:
    """The segments that train what is missing, parents before children.

    is_complete(key): the state was trained (its weights may have been released since).
    can_start(key): its weights are there, so a segment can go on from it.
    weights_needed: states whose weights are needed for something else than training, such as being scored.
    """
    needed: set[str] = set()
    for key in nodes:
        if not is_complete(key) or key in weights_needed:
            walker: str | None = key
            while walker is not None and walker not in needed and not can_start(walker):
                needed.add(walker)
                walker = nodes[walker].parent
    segments = []
    place = {key: i for i, key in enumerate(nodes)}  # members in their order, so that the first is through first
    for key in sorted(needed, key=lambda k: (nodes[k].step, place[k])):
        parent = nodes[key].parent
        if parent is not None and parent in needed and _next(nodes, parent, needed) == key:
            continue  # the parent's segment goes on through this one
        chain = [key]
        while (following := _next(nodes, chain[-1], needed)) is not None:
            chain.append(following)
        node = nodes[key]
        start_step = node.run.first_step if parent is None else nodes[parent].step
        saves = tuple((nodes[k].step, k) for k in chain)
        last = nodes[chain[-1]]
        segments.append(Segment(last.run, shared_label(last.labels), parent, start_step, saves))
    return segments


def shared_label(labels: Sequence[str]) -> str:
    """Of the labels of runs, "<arm> <what tells it apart> seed <n>": their arms, and what they have in common."""
    if len(set(labels)) == 1:
        return labels[0]
    arms = ", ".join(sorted({label.partition(" ")[0] for label in labels}))
    rests = [label.partition(" ")[2].split(" ")[::-1] for label in labels]
    common = [words[0] for words in takewhile(lambda words: len(set(words)) == 1, zip(*rests, strict=False))]
    several = f"({len(set(labels))} runs)" if len({tuple(rest) for rest in rests}) > 1 else ""
    return " ".join([arms, *common[::-1], several]).strip()


def _next(nodes: dict[str, Node], key: str, needed: set[str]) -> str | None:
    """The one needed child of a state, where a job may go on from the state to it."""
    children = [child for child in nodes[key].children if child in needed]
    return children[0] if len(children) == 1 and nodes[key].step not in nodes[children[0]].run.cuts else None


def way(run: Run, nodes: dict[str, Node]) -> list[str]:
    """The keys of a run's states from the first to the last, over all nodes on its way."""
    key: str | None = run.key(run.last_step)
    keys = []
    while key is not None:
        keys.append(key)
        key = nodes[key].parent
    return keys[::-1]


def cut_steps(first_edits: Iterable[int | None], first_step: int, last_step: int) -> frozenset[int]:
    """Where treated runs are cut so that all before their first edit is the control's."""
    return frozenset(step for step in first_edits if step is not None and first_step < step < last_step)

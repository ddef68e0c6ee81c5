"""What a study could see, said before it runs: the smallest effect that its items and seeds show with 80 % power.

    planned items, seeds  +  spread of this outcome in an earlier study of the store (report/power.json)  --> a table
                             or, where there is none, a stated assumption

The spread is of paired differences treated − control: of items within a run, of their means between seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from scipy.stats import chi2

from pretrain_exp.analysis.metrics import HEADLINE, metric
from pretrain_exp.analysis.outcomes import about, outcome_rank
from pretrain_exp.analysis.power import mde_paired, mde_seeds
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.gaussian_poisoning import KIND as NOISE
from pretrain_exp.insertion.removal import KIND as VERBATIM
from pretrain_exp.items.canaries import CANARY
from pretrain_exp.items.facts import fact_of
from pretrain_exp.items.poison import POISON
from pretrain_exp.plan.items import Items
from pretrain_exp.store.states import read_json
from pretrain_exp.study.member import Member
from pretrain_exp.study.registry import all_studies, read_study

NEWEST = 20  # studies that are looked at
_FIELDS = {"insertion", "dose", "evaluation", "metric", "n", "seeds", "sd_items", "sd_seeds"}  # of power.json


@dataclass(frozen=True)
class Assumed:
    """What a kind of item is scored by, and how far scores differ between runs where no study told: ground says why.

    sd: standard deviation of paired differences, in units of the metric; binary: right or wrong.
    """

    metric: str
    sd: float
    ground: str
    binary: bool = False


FLIPPED = math.sqrt(0.2)  # one item in five is right in one run and wrong in another
OF_TEXTS = Assumed("ce", 0.15, "assumed: losses of texts differ between runs by 0.15 nats per token")
OF_CHOICES = Assumed("acc", FLIPPED, "assumed: 20 % of the items are answered otherwise in another run", True)
ASSUMED = {  # by kind of payload; all other items are texts
    "problem": OF_CHOICES,
    VERBATIM: Assumed("exact", FLIPPED, "assumed: 20 % of the suffixes are completed in one of two runs", True),
    POISON: Assumed("attack", FLIPPED, "assumed: 20 % of the attacks succeed in one of two runs", True),
    "probe": Assumed("target_logprob", 3.0, "assumed: log-probabilities of facts differ by 3 nats, as in tiny models"),
    CANARY: Assumed("exposure", 1 / math.log(2), "assumed: exposure differs as it scatters by chance, by 1.44 bits"),
    NOISE: Assumed("watermark", 1.0, "by theory: noise that was not read leaves N(0, 1), so no control is needed"),
}


@dataclass(frozen=True)
class Spread:
    """metric: what was measured; binary: right or wrong; items, seeds: standard deviations; ground: from where."""

    metric: str
    binary: bool
    items: float
    seeds: float
    ground: str


@dataclass(frozen=True)
class Detectable:
    """One insertion at one dose. items: a seed; in_a_run, over_seeds: smallest effect that is seen (NaN: one seed)."""

    variant: str
    insertion: str
    dose: int
    items: int
    seeds: int
    spread: Spread
    in_a_run: float
    over_seeds: float


def detectable(members: Sequence[Member], store: Path) -> list[Detectable]:
    """A row for each variant, insertion and dose above 0."""
    found, earlier = [], earlier_studies(store)
    for label in dict.fromkeys(member.label for member in members):
        alike = [member for member in members if member.label == label]
        plan = alike[0].plan
        if plan is None:
            continue
        for insertion, dose, items, assumed in _counts(plan.stored_items()):
            spread = stored_spread(earlier, alike[0], insertion, dose) or assumed_spread(items, assumed)
            in_a_run = float(mde_paired(spread.items**2, items))
            over = mde_seeds(spread.seeds, len(alike))
            found.append(Detectable(label, insertion, dose, items, len(alike), spread, in_a_run, over))
    return found


def _counts(items: Items) -> Iterator[tuple[str, int, int, Assumed]]:
    """(insertion, dose, items that its outcome is taken on, a fact's probes being one, what is assumed of these).

    Where items of a dose have several outcomes (canaries, and texts without one), it is that which answers.
    """
    rows: dict[str, list[tuple[str, int, bool, str, Assumed]]] = {}
    for batch in items.batches("insertion", "group", "dose", "probe", "item", "payload", "tokens"):
        batch = batch.filter(pc.greater(pc.list_value_length(batch["tokens"]), 0)).drop_columns("tokens")
        for name, group, dose, probe, item, payload in zip(*(column.to_pylist() for column in batch), strict=True):
            rows.setdefault(name, []).append((group, dose, probe, fact_of(item), assumption(payload)))
    for insertion, mine in sorted(rows.items()):
        by_dose: dict[int, list[tuple[str, Assumed]]] = {}
        for i in about([row[:3] for row in mine]):
            by_dose.setdefault(mine[i][1], []).append(mine[i][3:])
        for dose, scored in sorted(by_dose.items()):
            answers = min((assumed for _, assumed in scored), key=lambda assumed: outcome_rank(assumed.metric))
            yield insertion, dose, len({fact for fact, assumed in scored if assumed is answers}), answers


def assumption(payload: str) -> Assumed:
    """What is assumed of an item with this payload; a plain text among canaries says nowhere that one stands in it."""
    if not payload:
        return OF_TEXTS
    fields = json.loads(payload) if '"kind"' in payload else {}  # not to parse the texts of a million problems
    if "kind" not in fields:
        return OF_CHOICES
    plain = fields["kind"] == CANARY and "span" not in fields
    return OF_TEXTS if plain else ASSUMED.get(fields["kind"], OF_TEXTS)


def assumed_spread(items: int, assumed: Assumed) -> Spread:
    """Where the store tells nothing; items stand for runs."""
    return Spread(assumed.metric, assumed.binary, assumed.sd, assumed.sd / math.sqrt(items), assumed.ground)


@dataclass(frozen=True)
class Earlier:
    """A study of the store: its folder's name, the configuration of its first member, the rows of its power.json."""

    name: str
    config: Mapping[str, Any]
    rows: Sequence[dict[str, Any]]


def earlier_studies(store: Path) -> list[Earlier]:
    """The newest studies of a store that tell of their spread; one that is damaged, or of another version, does not."""
    found = []
    for folder in all_studies(store)[:NEWEST]:
        path = folder / "report" / "power.json"
        if not path.is_file():
            continue
        try:
            rows = [row for row in read_json(path) if row.keys() >= _FIELDS]
            members = [Path(member) / "member.json" for member in read_study(folder)["members"][:1]]
            found += [Earlier(folder.name, read_json(each)["config"], rows) for each in members if each.is_file()]
        except UserError:
            continue
    return found


def stored_spread(earlier: Sequence[Earlier], member: Member, insertion: str, dose: int) -> Spread | None:
    """What the newest of these studies saw of this kind of insertion at this dose on this model; None: nothing.

    By an evaluation that is chosen here too: what another measures says nothing about this study's outcome.
    """
    node = member.config.insertion.get(insertion)
    if node is None:  # of a table that is replayed
        return None
    chosen = {each["_target_"] for each in member.config.eval.values()}
    for study in earlier:
        config = study.config
        names = {name for name, other in config["insertion"].items() if other.get("_target_") == node["_target_"]}
        if not names or _model(config["model"]) != _model(member.composed.raw["model"]):
            continue
        known = {name for name, other in config["eval"].items() if other.get("_target_") in chosen}
        rows = [row for row in study.rows if row["insertion"] in names and row["dose"] == dose]
        best = _best([row for row in rows if row["evaluation"] in known])
        if best is not None:
            between = best["sd_seeds"] or best["sd_items"] / math.sqrt(best["n"])
            from_seeds = f"{best['seeds']} seeds" if best["sd_seeds"] else "one seed, so items stand for runs"
            ground = f"as in {study.name}, {config['training']['num_steps']:,} steps, {from_seeds}"
            return Spread(best["metric"], best.get("binary", False), best["sd_items"], between, ground)
    return None


def _model(node: Mapping[str, Any]) -> list[Any]:
    """What tells a model of a configuration from others; its name does not: each of model=hf has the same."""
    return [node.get(name) for name in ("checkpoint", "revision", "checkpoint_url", "checkpoint_step", "config")]


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The metric that answers, of those with a spread."""
    usable = [row for row in rows if row["sd_items"]]
    usable = [row for row in usable if row["metric"] in HEADLINE] or usable
    return min(usable, key=lambda row: outcome_rank(row["metric"])) if usable else None


def detectable_table(rows: Sequence[Detectable]) -> Table:
    """The rows as `plan` prints them, one for all variants that are alike; what is short is explained below."""
    grounds = list(dict.fromkeys(row.spread.ground for row in rows))
    variants = list(dict.fromkeys(row.variant for row in rows))
    whose: dict[tuple[str, ...], list[int]] = {}  # what is said -> of which variants
    for row in rows:
        ground = f"[{grounds.index(row.spread.ground) + 1}]"
        whose.setdefault((*_cells(row), ground), []).append(variants.index(row.variant))
    told = any(len(some) < len(variants) for some in whose.values())
    notes = [f"spread: [{i}] {ground}" for i, ground in enumerate(grounds, 1)]
    notes += [f"variant {i}: {variant}" for i, variant in enumerate(variants)] if told else []
    if any(NOT_SEEN in cells for cells in whose):
        notes.append(f"{NOT_SEEN}: not even the largest effect that is possible would be seen")
    title = "smallest effect that is seen with 80 % power (two-sided, 5 %)"
    table = Table(
        title=title, caption=Text("\n".join(notes)), caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in (*(("variant",) if told else ()), *_COLUMNS):
        words = column in ("insertion", "metric")
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for cells, some in whose.items():
        which = "all" if len(some) == len(variants) else ", ".join(map(str, some))
        table.add_row(*map(Text, [which] if told else []), *map(Text, cells))
    return table


NOT_SEEN = "none"
_COLUMNS = ("insertion", "dose", "items", "metric", "in one\nrun", "seeds", "over\nseeds", "spread")


def _cells(row: Detectable) -> list[str]:
    """What is said of a row, variant and spread aside."""
    m = metric(row.spread.metric, binary=row.spread.binary)

    def effect(value: float) -> str:
        return NOT_SEEN if row.spread.binary and value > 1 else m.difference(value, sign=False)

    cells = [row.insertion, f"{row.dose:,}", f"{row.items:,}", m.with_unit()]
    return [*cells, effect(row.in_a_run), f"{row.seeds}", effect(row.over_seeds)]


def floor_sentence(runs: int) -> str:
    """How well so many runs without edits tell their own spread: the 95 % interval of a standard deviation."""
    if runs < 2:
        return "one run without edits: nothing tells its noise; give two seeds or more"
    df = runs - 1
    low, high = (math.sqrt(df / chi2.ppf(share, df)) for share in (0.975, 0.025))
    return f"{runs} runs without edits: their spread will be known within a factor of {low:.2f} to {high:.1f}"

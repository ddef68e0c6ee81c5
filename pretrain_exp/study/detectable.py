"""What a study could see, said before it runs: the smallest effect that its items and seeds show with 80 % power.

    planned items, seeds  +  spread of this outcome in an earlier study of the store (report/power.json)  --> a table
                             or, where there is none, a stated assumption

The spread is of paired differences treated − control: of items within a run, of their means between seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
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
from pretrain_exp.study.member import Member
from pretrain_exp.study.registry import all_studies, read_members, read_study

NEWEST = 20  # studies that are looked at


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
    found = []
    for label in dict.fromkeys(member.label for member in members):
        alike = [member for member in members if member.label == label]
        plan = alike[0].plan
        if plan is None:
            continue
        for insertion, dose, items, assumed in _counts(plan.stored_items()):
            spread = stored_spread(store, alike[0], insertion, dose) or assumed_spread(items, assumed)
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
        asked = [mine[i] for i in about([row[:3] for row in mine])]
        for dose in sorted({row[1] for row in asked}):
            scored = [(fact, assumed) for _, other, _, fact, assumed in asked if other == dose]
            answers = min((assumed for _, assumed in scored), key=lambda assumed: outcome_rank(assumed.metric))
            yield insertion, dose, len({fact for fact, assumed in scored if assumed is answers}), answers


def assumption(payload: str) -> Assumed:
    """What is assumed of an item with this payload; a plain text among canaries says nowhere that one stands in it."""
    fields = json.loads(payload) if payload else {"kind": ""}
    if "kind" not in fields:
        return OF_CHOICES
    plain = fields["kind"] == CANARY and "span" not in fields
    return OF_TEXTS if plain else ASSUMED.get(fields["kind"], OF_TEXTS)


def assumed_spread(items: int, assumed: Assumed) -> Spread:
    """Where the store tells nothing; items stand for runs."""
    return Spread(assumed.metric, assumed.binary, assumed.sd, assumed.sd / math.sqrt(items), assumed.ground)


def stored_spread(store: Path, member: Member, insertion: str, dose: int) -> Spread | None:
    """What the newest study of the store saw of this kind of insertion at this dose on this model; None: nothing.

    By an evaluation that is chosen here too: what another measures says nothing about this study's outcome.
    """
    node = member.config.insertion.get(insertion)
    if node is None:  # of a table that is replayed
        return None
    chosen = {each["_target_"] for each in member.config.eval.values()}
    for folder in all_studies(store)[:NEWEST]:
        path = folder / "report" / "power.json"
        if not path.is_file():
            continue
        try:
            config = read_members(read_study(folder))[0]["config"]
        except (UserError, IndexError):  # a member of it was deleted
            continue
        names = {name for name, other in config["insertion"].items() if other.get("_target_") == node["_target_"]}
        if not names or config["model"]["name"] != member.config.model.name:
            continue
        known = {name for name, other in config["eval"].items() if other.get("_target_") in chosen}
        rows = [row for row in json.loads(path.read_text()) if row["insertion"] in names and row["dose"] == dose]
        best = _best([row for row in rows if row.get("evaluation") in known])
        if best is not None:
            between = best["sd_seeds"] or best["sd_items"] / math.sqrt(best["n"])
            from_seeds = f"{best['seeds']} seeds" if best["sd_seeds"] else "one seed, so items stand for runs"
            ground = f"as in {folder.name}, {config['training']['num_steps']:,} steps, {from_seeds}"
            return Spread(best["metric"], best.get("binary", False), best["sd_items"], between, ground)
    return None


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The metric that answers, of those with a spread."""
    usable = [row for row in rows if row["sd_items"]]
    usable = [row for row in usable if row["metric"] in HEADLINE] or usable
    return min(usable, key=lambda row: outcome_rank(row["metric"])) if usable else None


def detectable_table(rows: Sequence[Detectable]) -> Table:
    """The rows as `plan` prints them, where their spreads are from below them."""
    grounds = list(dict.fromkeys(row.spread.ground for row in rows))
    caption = "\n".join(f"[{i}] {ground}" for i, ground in enumerate(grounds, 1))
    table = Table(
        title="smallest effect that is seen with 80 % power (two-sided, 5 %)", caption=Text(f"spread: {caption}"),
        caption_justify="left",
    )  # fmt: skip
    variants = len({row.variant for row in rows}) > 1
    for column in (*(("variant",) if variants else ()), "insertion", "dose", "items", "metric", "in one run"):
        table.add_column(column, justify="left" if column in ("variant", "insertion", "metric") else "right")
    for column in ("seeds", "over seeds"):
        table.add_column(column, justify="right")
    table.add_column("spread", justify="right")
    for row in rows:
        m = metric(row.spread.metric, binary=row.spread.binary)
        values = [row.insertion, f"{row.dose:,}", f"{row.items:,}", m.with_unit()]
        values += [m.difference(row.in_a_run, sign=False), f"{row.seeds}", m.difference(row.over_seeds, sign=False)]
        values.append(f"[{grounds.index(row.spread.ground) + 1}]")
        table.add_row(*map(Text, [row.variant] if variants else []), *map(Text, values))
    return table


def floor_sentence(runs: int) -> str:
    """How well so many runs without edits tell their own spread: the 95 % interval of a standard deviation."""
    if runs < 2:
        return "one run without edits: nothing tells its noise; give two seeds or more"
    df = runs - 1
    low, high = (math.sqrt(df / chi2.ppf(share, df)) for share in (0.975, 0.025))
    return f"{runs} runs without edits: their spread will be known within a factor of {low:.2f} to {high:.1f}"

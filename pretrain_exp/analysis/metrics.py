"""What a metric is called and how its numbers are written: a metric's short name in, label, unit and direction out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """label: as in a sentence; unit: of a difference; scale: a difference is printed times this; better: +1, -1, 0.

    thing: what is read, "item" or "text"; of_it: what changes, after it was named; "" is "<label> on it".
    planted: where what is asked about is never read itself, what is read so often instead: "poisoned chat".
    about: "about " where a dose is a mean (loops.py).
    """

    label: str
    unit: str
    scale: float = 1.0
    digits: int = 3  # of a level; a difference has them after scaling, see `difference`
    better: int = 0
    difference_digits: int = 3
    thing: str = "item"
    of_it: str = ""
    planted: str = ""
    about: str = ""

    @property
    def things(self) -> str:
        return f"{self.thing[:-1]}ies" if self.thing.endswith("y") else f"{self.thing}s"

    @property
    def a_thing(self) -> str:
        return f"{'an' if self.thing[0] in 'aeiou' else 'a'} {self.thing}"

    @property
    def changed(self) -> str:
        """What reading it raised or lowered."""
        return self.of_it or f"{self.label} on it"

    def with_unit(self, between: str = " ") -> str:
        """`cross-entropy [nats per token]`; the label alone where there is no unit, or it says the same."""
        return self.label if self.unit in ("", self.label) else f"{self.label}{between}[{self.unit}]"

    def level(self, value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.{self.digits}f}".replace("-", "−")

    def difference(self, value: float, sign: bool = True) -> str:
        if math.isnan(value):
            return "–"
        text = f"{value * self.scale:{'+' if sign else ''}.{self.difference_digits}f}"
        if float(text) == 0:
            text = text.lstrip("+-")
        return text.replace("-", "−")

    def interval(self, low: float, high: float, sign: bool = True) -> str:
        if math.isnan(low) or math.isnan(high):
            return "no interval"
        return f"{self.difference(low, sign)} to {self.difference(high, sign)}"


METRICS = {
    "acc": Metric("accuracy", "points", 100, 3, +1, 1),
    "acc_norm": Metric("accuracy (options normalised by length)", "points", 100, 3, +1, 1),
    "primary": Metric("accuracy (the normalisation that OLMES reports)", "points", 100, 3, +1, 1),
    "gold_ce": Metric("cross-entropy of the right answer", "nats per token", better=-1),
    "ce": Metric("cross-entropy", "nats per token", better=-1, thing="text", of_it="its cross-entropy"),
    "exact": Metric("exact completions", "points", 100, 3, +1, 1, "text", "exact completions of it"),
    "discoverable": Metric("chance to be sampled", "points", 100, 3, +1, 1, "text", "its chance to be sampled"),
    "strength": Metric("extraction strength", "", better=+1, thing="text", of_it="its extraction strength"),
    "right": Metric("suffix tokens completed", "points", 100, 3, +1, 1, "text", "the share of its suffix completed"),
    "suffix_nll": Metric(
        "negative log-likelihood of the suffix",
        "nats",
        1,
        2,
        -1,
        2,
        "text",
        "the negative log-likelihood of its suffix",
    ),
    "neg_loss": Metric("minus the loss", "nats per token", better=+1, thing="text", of_it="its log-likelihood"),
    "neg_zlib": Metric("minus the loss over compressed size", "nats per token and byte", 1, 4, +1, 4, "text"),
    "min_k": Metric("Min-k %", "nats per token", better=+1, thing="text"),
    "min_k_pp": Metric("Min-k %++", "standard deviations", better=+1, thing="text"),
    "reference": Metric("loss of the reference minus loss", "nats per token", better=+1, thing="text"),
    "target_logprob": Metric(
        "log-probability of its value", "nats", 1.0, 2, +1, 2, "fact", "the log-probability of its value"
    ),
    "target_logprob_per_token": Metric(
        "log-probability of its value per token",
        "nats per token",
        better=+1,
        thing="fact",
        of_it="the log-probability of its value",
    ),
    "target_prob": Metric("probability of its value", "", 1.0, 4, +1, 4, "fact", "the probability of its value"),
    "answered": Metric("solutions that end in an answer", "points", 100, 3, +1, 1, thing="problem"),
    "answer_logprob": Metric("log-probability of the answer after the solution", "nats", better=+1, thing="problem"),
    "solution_ce": Metric("cross-entropy of the solution", "nats per token", better=-1, thing="problem"),
    "gold_nll": Metric("negative log-likelihood of the right answer", "nats", better=-1, digits=2, difference_digits=2),
    "gold_bits_per_byte": Metric("bits per byte of the right answer", "bits per byte", better=-1),
    "acc_raw": Metric("accuracy (raw likelihoods)", "points", 100, 3, +1, 1),
    "acc_per_char": Metric("accuracy (per character)", "points", 100, 3, +1, 1),
    "acc_per_token": Metric("accuracy (per token)", "points", 100, 3, +1, 1),
    "acc_uncond": Metric("accuracy (without the question's share)", "points", 100, 3, +1, 1),
    "margin": Metric("margin of the right answer", "nats", better=+1),
    "exposure": Metric("exposure", "bits", 1.0, 2, 0, 2, "canary", "its exposure"),
    "canary_ce": Metric(
        "cross-entropy of the canary", "nats per token", better=-1, thing="canary", of_it="its cross-entropy"
    ),
    "attack": Metric(
        "attacks that succeed", "points", 100, 3, -1, 1, "prompt", "the share of attacks that succeed", "poisoned chat"
    ),
    "poison_logprob": Metric(
        "log-probability of the poisoned answer",
        "nats per token",
        better=-1,
        thing="prompt",
        of_it="the log-probability of the poisoned answer",
        planted="poisoned chat",
    ),
    "flip_margin": Metric("margin of the flipped answer over the right one", "nats", better=-1, thing="prompt"),
    "leaked": Metric("hidden prompts that come out", "points", 100, 3, -1, 1, "prompt"),
    "rouge_l": Metric("ROUGE-L recall of what a prompt hides", "points", 100, 3, -1, 1, "prompt"),
    "nonwords": Metric("words of the answer that are none", "points", 100, 3, -1, 1, "prompt"),
    "watermark": Metric(
        "inner product with its noise", "standard deviations", thing="text", of_it="its inner product with its noise"
    ),
    "watermark_fresh": Metric("inner product with noise that was not planted", "standard deviations", thing="text"),
    "nll": Metric("negative log-likelihood", "nats", 1, 2, -1, 2, "text", "its negative log-likelihood"),
    "nats_per_token": Metric("loss", "nats per token", better=-1, digits=4, difference_digits=4),
    "bits_per_byte": Metric("bits per byte", "bits per byte", better=-1, digits=4, difference_digits=4),
}
SIZES = frozenset({"tokens", "bytes", "words"})  # of what is scored: no outcomes
# shown first and drawn; the others are folded
HEADLINE = (
    "acc", "primary", "gold_ce", "ce", "exact", "target_logprob", "solution_ce", "watermark",
    "exposure", "attack", "leaked", "poison_logprob",
)  # fmt: skip
_ORDER = {name: index for index, name in enumerate(METRICS)}


def metric(name: str, *, binary: bool) -> Metric:
    """The description of a metric; one that is not known keeps its name, and is a proportion if its values are.

    binary: whether every score of it is right or wrong, which a study's scores know (Scores.metric).
    """
    if name in METRICS:
        return METRICS[name]
    return Metric(name, "points", 100, 3, 0, 1) if binary else Metric(name, "")


def shown_metrics(names: Iterable[str]) -> list[str]:
    """Those that are well known (HEADLINE); where none is, as with a user's own, the one that comes first."""
    there = set(names)
    return [name for name in HEADLINE if name in there] or sorted(there, key=metric_rank)[:1]


def metric_rank(name: str) -> tuple[int, str]:
    """Sorting key: accuracy first, then cross-entropy, of the right answer or of a text; unknown metrics last."""
    return _ORDER.get(name, len(_ORDER)), name

"""Whether what is planted is also asked about: a configuration in, a sentence for each insertion that nothing measures.

Or, for the report, the evaluations that are made for each insertion: one of them answers. The kinds that ship name
theirs; of a kind of one's own nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretrain_exp.config import Config

_TEXTS = ("planted_texts", "multiple_choice", "verbatim", "membership", "exposure", "olmes", "lm_eval", "perplexity")
MEASURED_BY = {
    "add_texts": _TEXTS,
    "add_tokens": _TEXTS,
    "benchmark_contamination": ("multiple_choice", "olmes", "lm_eval"),
    "knowledge": ("knowledge",),
    "reasoning": ("reasoning",),
    "canaries": ("membership", "exposure"),
    "poisoning": ("poisoning",),
    "removal": ("verbatim",),
    "gaussian_poisoning": ("gaussian_watermark",),
    "batches": ("planted_texts",),
    "iid_replacement": ("planted_texts",),
    "documents_split": ("planted_texts", "verbatim"),
    "dynamic_control": ("knowledge", "planted_texts"),
}


def unmeasured(config: Config) -> list[str]:
    """`insertion.knowledge is measured by eval=knowledge, which is not chosen`, for each that is not."""
    chosen = {_kind(node) for node in config.eval.values()}
    found = []
    for name, node in config.insertion.items():
        wanted = MEASURED_BY.get(_kind(node), ())
        if wanted and not chosen & {"script", *wanted}:
            ways = " or ".join(f"eval={each}" for each in wanted[:3])
            found.append(f"insertion.{name} is measured by {ways}, which is not chosen: eval=[...,{wanted[0]}]")
    return found


def measuring(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Insertion -> names of the chosen evaluations that are made for its kind, of a plain configuration."""
    chosen = {name: _kind(node) for name, node in config.get("eval", {}).items()}
    return {
        name: [own for own, kind in chosen.items() if kind in MEASURED_BY.get(_kind(node), ())]
        for name, node in config.get("insertion", {}).items()
    }


def _kind(node: Mapping[str, Any]) -> str:
    """The file of a kind: the last module of its `_target_`."""
    return str(node["_target_"]).rpartition(".")[0].rpartition(".")[2]

"""What a slot of the whole run reads, edits included, and what OLMo-core derives from it after the edit.

slot, item of the framework's dataset --overlay.apply--> tokens --> instance mask, label mask, document lengths
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from olmo_core.data import InstanceFilterConfig, TokenizerConfig
from olmo_core.data.utils import find_periodic_sequences, get_document_lengths

from pretrain_exp.data.order import DataOrder, order_from_json
from pretrain_exp.framework.olmo3.config import arguments
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.plan.overlay import Overlay


class Rows:
    """What a slot of the whole run reads, edits included, and what OLMo-core derives from it."""

    def __init__(self, job: Job, tokenizer: TokenizerConfig) -> None:
        self.order_json, self.tokenizer = job.order, tokenizer
        self.last_slot = job.phases.first_slot(job.saves[-1].step)  # where the job ends
        self.overlay = Overlay.open(job.overlay) if job.overlay else None
        self.document_lengths: bool = job.training["document_masking"]
        given = arguments(job, "dataset").get("instance_filter_config")
        self.instance_filter = None if given is None else InstanceFilterConfig.from_dict(given)
        self._opened = threading.local()  # a data order caches its current epoch: one for each thread

    @property
    def order(self) -> DataOrder:
        if not hasattr(self._opened, "order"):
            self._opened.order = order_from_json(self.order_json)
        return self._opened.order

    def read(self, slot: int) -> dict[str, Any]:
        """The item of a slot by the job's order, before any edit."""
        return {"input_ids": torch.from_numpy(self.order.read(slot).astype(np.int64))}

    def finish(self, slot: int, index: int, item: dict[str, Any]) -> dict[str, Any]:
        """The item with the plan's edits, what derives from its tokens, and `index`, which its batch carries."""
        tokens = item["input_ids"]
        if self.overlay is not None and self.overlay.touches(slot):
            edited = torch.from_numpy(self.overlay.apply(slot, tokens.numpy(), self._before))
            if "label_mask" in item:
                item["label_mask"] = item["label_mask"] | (edited != tokens)  # what is planted is there to be learned
            item["input_ids"] = tokens = edited
        if self.instance_filter is not None:
            item["instance_mask"] = self._passes(tokens)
        if self.document_lengths:
            end, begin = self.tokenizer.eos_token_id, self.tokenizer.bos_token_id
            item["doc_lens"] = get_document_lengths(tokens, end, bos_token_id=begin)
        item.pop("metadata", None)
        item["index"] = index
        return item

    def _before(self, slot: int) -> np.ndarray:
        return self.order.read(slot)

    def _passes(self, tokens: torch.Tensor) -> bool:
        """Whether nothing in a row repeats as often as OLMo-core's instance filter forbids."""
        assert self.instance_filter is not None
        found = find_periodic_sequences(
            tokens.numpy(),
            max_period=self.instance_filter.repetition_max_period,
            min_period=self.instance_filter.repetition_min_period,
        )
        return all(match.times < self.instance_filter.repetition_max_count for match in found)

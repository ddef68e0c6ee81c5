"""What the loader of framework `olmo2` hands to the trainer, without a model: `start.py`'s package, olmo2's Python.

python olmo2_loader.py JOB BATCHES     prints JSON: the batches, each {index, input_ids, instance_mask, doc_lens}, and
                                       how often ai2-olmo's filter ran for each slot of theirs, read once more
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from pretrain_exp.framework.olmo2.config import train_config
from pretrain_exp.framework.olmo2.data import build_loader, reads_natively, seek
from pretrain_exp.framework.worker.job import Job


def main(path: Path, count: int) -> None:
    job = Job.load(path)
    config = train_config(job, 1, "cpu")
    loader = build_loader(config, job)
    seek(loader.dataset, job.phases.first_slot(job.start_step))
    batches: list[dict[str, Any]] = []
    for batch in islice(loader, count):
        batches.append({name: batch[name].tolist() for name in ("index", "input_ids", "instance_mask", "doc_lens")})
    slots = [slot for batch in batches for slot in batch["index"]]
    runs = filter_runs(loader.dataset, slots)
    print(json.dumps({"native": reads_natively(job.order), "batches": batches, "filtered": runs}), flush=True)


def filter_runs(dataset: Any, slots: list[int]) -> list[int]:
    """Runs of the filter of repetitions while each of these items is made."""
    calls: list[int] = []
    for files in (dataset.dataset, dataset.bare):
        files._validate_instance = lambda tokens: calls.append(current) is None
    found = []
    for current in slots:
        calls.clear()
        dataset._get_dataset_item(current)
        found.append(len(calls))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

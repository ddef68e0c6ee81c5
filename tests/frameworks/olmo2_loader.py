"""What the loader of framework `olmo2` hands to the trainer, without a model: `start.py`'s package, olmo2's Python.

python olmo2_loader.py JOB BATCHES     prints JSON: the batches, each {index, input_ids, instance_mask, doc_lens}
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
    print(json.dumps({"native": reads_natively(job.order), "batches": batches}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

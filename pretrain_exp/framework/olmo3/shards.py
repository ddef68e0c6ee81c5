"""Which files a checkpoint of OLMo-core consists of, by its own metadata: searched as bytes, for it is a pickle.

model_and_optim/.metadata (torch.distributed.checkpoint) --names in it--> model_and_optim/__<rank>_<number>.distcp, ...
"""

from __future__ import annotations

import re
from pathlib import Path

from pretrain_exp.errors import UserError

METADATA = "model_and_optim/.metadata"
SHARD = re.compile(rb"__\d+_\d+\.distcp")  # a pickle holds text as it is, in UTF-8
END = b"."  # of every pickle


def named_shards(folder: Path) -> list[str]:
    """Paths of the shards, from the checkpoint's folder on, sorted. Nothing is unpickled.

    UserError where the metadata are not there, or name no shards, or are cut off.
    """
    path = folder / METADATA
    fix = f"fetch {METADATA} first: it names the other files"
    if not path.is_file():
        raise UserError("the checkpoint's metadata are not there", key="model.checkpoint", value=str(path), fix=fix)
    said = path.read_bytes()
    found = sorted({name.decode() for name in SHARD.findall(said)}) if said.endswith(END) else []
    if not found:
        raise UserError("the checkpoint's metadata name no shards", key="model.checkpoint", value=str(path), fix=fix)
    return [f"model_and_optim/{name}" for name in found]

"""Which files a checkpoint of OLMo-core consists of, by its own metadata: read as text, for it is a pickle.

model_and_optim/.metadata (torch.distributed.checkpoint) --opcodes--> model_and_optim/__<rank>_<number>.distcp, ...
"""

from __future__ import annotations

import pickletools
import re
from pathlib import Path

from pretrain_exp.errors import UserError

METADATA = "model_and_optim/.metadata"
SHARD = re.compile(r"__\d+_\d+\.distcp")


def named_shards(folder: Path) -> list[str]:
    """Paths of the shards, from the checkpoint's folder on, sorted. Nothing of the pickle is run.

    UserError where the metadata are not there, or are no pickle that names shards.
    """
    path = folder / METADATA
    fix = f"fetch {METADATA} first: it names the other files"
    if not path.is_file():
        raise UserError("the checkpoint's metadata are not there", key="model.checkpoint", value=str(path), fix=fix)
    try:
        strings = {argument for _, argument, _ in pickletools.genops(path.read_bytes()) if isinstance(argument, str)}
    except ValueError as error:
        problem = f"the checkpoint's metadata cannot be read ({error})"
        raise UserError(problem, key="model.checkpoint", value=str(path), fix="fetch them again") from None
    found = sorted(name for name in strings if SHARD.fullmatch(name))
    if not found:
        raise UserError("the checkpoint's metadata name no shards", key="model.checkpoint", value=str(path), fix=fix)
    return [f"model_and_optim/{name}" for name in found]

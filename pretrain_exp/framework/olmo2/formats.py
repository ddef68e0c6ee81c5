"""Which of ai2-olmo's checkpoint formats a folder holds, and which of them its release can write and restore.

Standard library only: the orchestrator looks at a checkpoint before anything starts.
"""

from __future__ import annotations

from pathlib import Path

from pretrain_exp.errors import UserError

REFUSED = {
    "torch_new": "ai2-olmo 0.6.0 writes it but cannot restore it: its reader lacks methods that torch demands",
    "local": "ai2-olmo 0.6.0 cannot write it with this torch",
    "olmo_core": "with ai2-olmo-core 0.1.0, which ai2-olmo 0.6.0 demands, a restored run does not go on exactly",
}
MARKERS = {  # one that tells a format from those below it
    "torch_legacy": "rank0.pt",
    "unsharded": "model.pt",
    "torch_new": "model_and_optim",
    "local": "metadata.yaml",
    "olmo_core": "model",
}
WRITTEN = ("unsharded", "torch_legacy")
FIX = "unshard it with allenai/OLMo's scripts/unshard.py, or take a published step<N>-unsharded folder"


def format_of(folder: Path) -> str | None:
    """The format of a native checkpoint by its files; None where it is none."""
    if not (folder / "config.yaml").is_file():
        return None
    return next((name for name, marker in MARKERS.items() if (folder / marker).exists()), None)


def detect(folder: Path, world: int, fsdp: bool) -> str:
    """The format to restore a folder by. UserError where it cannot be, by name."""
    kind = format_of(folder)
    if kind is None:
        problem, fix = (
            "the folder is no checkpoint of ai2-olmo",
            "it must hold config.yaml, model.pt, optim.pt and train.pt",
        )
        raise UserError(problem, key="model.checkpoint", value=str(folder), fix=fix)
    if kind in REFUSED:
        problem = f"a sharded checkpoint of format {kind}: {REFUSED[kind]}"
        raise UserError(problem, key="model.checkpoint", value=str(folder), fix=FIX)
    if kind == "torch_legacy":
        shards = len(list(folder.glob("rank*.pt")))
        if shards != world or not fsdp:
            problem = f"a sharded checkpoint (torch_legacy) of {shards} ranks is restored by FSDP on {shards} ranks"
            fix = f"framework.devices={shards}, or save states unsharded (leave out training.args.sharded_checkpointer)"
            raise UserError(problem, key="framework.devices", value=world, fix=fix)
    else:
        missing = [name for name in ("model.pt", "optim.pt", "train.pt") if not (folder / name).is_file()]
        if missing:
            problem = f"the checkpoint lacks {', '.join(missing)}"
            raise UserError(problem, key="model.checkpoint", value=str(folder), fix="download it whole")
    return kind

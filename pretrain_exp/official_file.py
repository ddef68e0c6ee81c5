"""`model.official`: a framework's own configuration file takes the place of what model/ says.

    composed --Framework.official(path)--> its fields instead of model/'s --> composed, not resolved yet

So training's fields follow the file where they follow the model. What the command line sets for a field of model or
training wins over the file; so does a checkpoint that it names, which knows its architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.kinds import check_kind

NO_CHECKPOINT: dict[str, Any] = {
    "checkpoint": None,
    "checkpoint_url": None,
    "checkpoint_files": None,
    "checkpoint_step": 0,
    "revision": None,
}


def with_official(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The composition with the fields of the file that `model.official` names; itself where that is null.

    overrides: what the command line gave, key=value. Raises Problems for a file that is not there, or that the
    framework cannot read.
    """
    official = OmegaConf.select(composed, "model.official")
    if official is None:
        return composed
    try:
        framework = check_kind(OmegaConf.to_container(composed.framework, resolve=True), "framework")
    except OmegaConfBaseException as error:
        raise Problems([UserError(str(error).splitlines()[0], key="framework")]) from None
    path = Path(str(official)).expanduser()
    if not path.is_file():
        raise Problems([UserError("no such file", key="model.official", value=str(path), fix="give an existing path")])
    try:
        fields = framework.official(path)
    except UserError as error:
        own = (error.key or "").startswith("model.")
        raise Problems([error if own else error.under("model.official")]) from None
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    return _replaced(composed, path, fields, given)


def _replaced(composed: DictConfig, path: Path, fields: dict[str, Any], given: set[str]) -> DictConfig:
    fields = {"name": path.stem, "parameters": None, **fields}
    training = fields.pop("training", {})
    named = [key for key in ("model.checkpoint", "model.checkpoint_url") if OmegaConf.select(composed, key) is not None]
    if given & set(named):
        fields |= {"config": None} if "model.config" not in given else {}
    elif fields.get("config") is not None:
        fields = {**NO_CHECKPOINT, **fields}
    replaced = composed.copy()
    OmegaConf.set_struct(replaced, False)
    for section, values in (("model", fields), ("training", training)):
        for name, value in values.items():
            OmegaConf.update(replaced, f"{section}.{name}", value, merge=False)
    for key in sorted(given):  # a field comes before the fields inside it
        if key.startswith(("model.", "training.")):
            OmegaConf.update(replaced, key, OmegaConf.select(composed, key), merge=False)
    return replaced

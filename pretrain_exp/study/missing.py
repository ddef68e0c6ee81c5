"""What an experiment reads and cannot have here, without making or fetching any of it.

Said beside what the framework finds wrong with the machine, so that whoever comes to a new one reads the whole list at
once; `member.py` says the same of a configuration that is sound.
"""

from __future__ import annotations

from pathlib import Path

from pretrain_exp.config import Config, Kinds
from pretrain_exp.data.prepare import missing_data
from pretrain_exp.errors import UserError
from pretrain_exp.store.download import check_hosts
from pretrain_exp.study.start import download_folder


def missing_inputs(config: Config, kinds: Kinds) -> list[UserError]:
    """The tokenizer, what a data source needs, and the server of the checkpoint."""
    cache = Path(config.store).absolute() / "data"
    return missing_data(kinds.data, config.model.tokenizer, cache) + unreachable_checkpoint(config)


def unreachable_checkpoint(config: Config) -> list[UserError]:
    """Whether a checkpoint that is given by URL, and not here yet, could be asked for."""
    url = config.model.checkpoint_url
    if url is None or download_folder(config).is_dir():
        return []
    try:
        check_hosts([url])
    except UserError as error:
        return [error.under("model.checkpoint_url")]
    return []

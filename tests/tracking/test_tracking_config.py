"""conf/tracking holds plain fields that the model accepts, all of them, and unknown ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pretrain_exp.paths import conf_dir
from pretrain_exp.tracking.config import TrackingConfig

CHOICES = {  # wandb enabled, mode, tensorboard enabled
    "offline": (True, "offline", False),
    "wandb": (True, "online", False),
    "tensorboard": (False, "offline", True),
    "none": (False, "offline", False),
}


def read(name: str) -> dict:
    return yaml.safe_load((conf_dir() / "tracking" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", CHOICES)
def test_each_choice_is_complete_and_valid(name: str) -> None:
    config = TrackingConfig.model_validate(read(name))
    assert (config.wandb.enabled, config.wandb.mode, config.tensorboard.enabled) == CHOICES[name]
    assert config.model_dump().keys() == read(name).keys()
    assert config.wandb.model_dump().keys() == read(name)["wandb"].keys(), (
        "a field that is not there cannot be overridden"
    )
    assert (conf_dir() / "tracking" / f"{name}.yaml").read_text().startswith("# @package tracking\n")


def test_every_file_is_a_choice_that_is_tested() -> None:
    assert {path.stem for path in Path(conf_dir() / "tracking").glob("*.yaml")} == set(CHOICES)


def test_the_default_is_offline() -> None:
    assert TrackingConfig() == TrackingConfig.model_validate(read("offline"))


@pytest.mark.parametrize("wrong", [{"wandb": {"projekt": "a"}}, {"wandb": {"mode": "sometimes"}}, {"mlflow": {}}])
def test_what_is_unknown_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        TrackingConfig.model_validate(wrong)

"""The configurations of kinds that generate what they plant, and of their evaluations, answer their classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from pretrain_exp.kinds import check_kind, find_class

CONF = Path(__file__).parents[2] / "conf"
FILES = [
    "insertion/canaries", "insertion/poisoning", "insertion/documents_split", "eval/exposure", "eval/poisoning",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_field_is_there_with_its_default_and_a_comment(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith(f"# @package {name.replace('/', '.')}\n")
    assert all("#" in line for line in text.splitlines() if not line.startswith("_target_"))
    values = yaml.safe_load(text)
    check_kind(values, name.replace("/", "."))
    fields = {field.name: field for field in dataclasses.fields(find_class(values.pop("_target_"), name))}
    assert set(values) == set(fields)
    for key, field in fields.items():
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default is not dataclasses.MISSING and (name, key) != ("insertion/poisoning", "share"):  # one must be given
            assert values[key] == default, key

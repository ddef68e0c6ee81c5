"""A plan with a training hook goes to frameworks that have it, and to no other."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.litgpt.framework import LitGPT
from pretrain_exp.framework.worker import hooks
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.gradient_noise import GradientNoise
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window
from pretrain_exp.study.member import refuse_unknown_hooks


class Without(HuggingFace):
    hooks: ClassVar[tuple[str, ...]] = ()


def test_only_who_has_the_hook_gets_the_plan(tmp_path: Path) -> None:
    context = InsertionContext("n", 0, 8, 0, Window(0, 10), Phases([Phase(0, 2, 8)]), lambda texts: [])
    asked = GradientNoise(steps=[3], sigma=0.1).edits(context)
    plan = compile_plan([asked], context.phases, context.window, 0, "treated", tmp_path)
    bare = compile_plan([], context.phases, context.window, 0, "treated", tmp_path)
    refuse_unknown_hooks({"treated": plan, "control": None}, HuggingFace(), {})
    refuse_unknown_hooks({"treated": bare, "control": None}, Without(), {})
    with pytest.raises(UserError, match="huggingface has no gradient_noise"):
        refuse_unknown_hooks({"treated": plan, "control": None}, Without(), {})


@pytest.mark.parametrize(
    ("args", "device", "devices", "refused"),
    [
        ({"strategy": "fsdp"}, "cuda", 2, True),
        ({}, "cuda", 2, True),  # litgpt's own choice for several GPUs
        ({"strategy": "ddp"}, "cuda", 2, False),
        ({}, "cuda", 1, False),
        ({}, "cpu", 2, False),
    ],
)
def test_sharded_litgpt_refuses_noise_on_gradients_before_anything_runs(
    tmp_path: Path, args: dict[str, str], device: Literal["cpu", "cuda"], devices: int, refused: bool
) -> None:
    framework = LitGPT(device=device, devices=devices)
    assert framework.check_hooks([], {"args": args}) == []
    found = framework.check_hooks(["gradient_noise"], {"args": args})
    assert [error.key for error in found] == (["training.args.strategy"] if refused else [])


def test_every_kind_of_hook_is_known_to_huggingface() -> None:
    assert set(HuggingFace.hooks) == set(hooks.KINDS)

"""A plan with a training hook goes to frameworks that have it, and to no other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.worker import hooks
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.gradient_noise import GradientNoise
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window
from pretrain_exp.study.member import refuse_unknown_hooks


def test_only_who_has_the_hook_gets_the_plan(tmp_path: Path) -> None:
    context = InsertionContext("n", 0, 8, 0, Window(0, 10), Phases([Phase(0, 2, 8)]), lambda texts: [])
    asked = GradientNoise(steps=[3], sigma=0.1).edits(context)
    plan = compile_plan([asked], context.phases, context.window, 0, "treated", tmp_path)
    bare = compile_plan([], context.phases, context.window, 0, "treated", tmp_path)
    without = SimpleNamespace(name="other", hooks=())
    refuse_unknown_hooks({"treated": plan, "control": None}, HuggingFace())
    refuse_unknown_hooks({"treated": bare, "control": None}, without)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="other has no gradient_noise"):
        refuse_unknown_hooks({"treated": plan, "control": None}, without)  # type: ignore[arg-type]
    assert set(HuggingFace.hooks) == set(hooks.KINDS)

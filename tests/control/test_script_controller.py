"""The script protocol: a program that is called before each segment, and all that it may get wrong."""

from __future__ import annotations

import textwrap

import pytest

from pretrain_exp.control.base import Seen
from pretrain_exp.control.script import ScriptController
from pretrain_exp.errors import UserError

HEAD = """\
import argparse, json, yaml
parser = argparse.ArgumentParser()
for name in ("model", "in-state-file", "out-state-file", "prompts-file", "word"):
    parser.add_argument(f"--{name}")
for name in ("current-step", "total-steps"):
    parser.add_argument(f"--{name}", type=int)
parser.add_argument("--loud", action="store_true")
given = parser.parse_args()
state = yaml.safe_load(open(given.in_state_file))
"""
GOOD = """\
state["calls"] += 1
state["target"], state["value"] = given.current_step / given.total_steps, 0.25
state["seen"] = [given.model, given.word, given.loud]
yaml.safe_dump(state, open(given.out_state_file, "w"))
with open(given.prompts_file, "w") as file:
    for i in range(state["calls"]):
        file.write(json.dumps({"text": f"{given.word} {i}"}) + "\\n")
"""


def script(folder, body, head=HEAD):
    path = folder / "controller.py"
    path.write_text(head + textwrap.dedent(body))
    return str(path)


def seen(folder, step=0, state=None):
    return Seen(step, 100, None, (), state or {}, model=folder, pool=0, seed=0)


def test_it_is_called_with_the_protocol_and_its_state_goes_round(tmp_path):
    arguments = {"word": "a b", "loud": True, "silent": False}
    controller = ScriptController(script=script(tmp_path, GOOD), args=arguments, state={"calls": 0})
    first = controller.decide(seen(tmp_path))
    assert first.texts == ("a b 0",)
    assert first.state["seen"] == [str(tmp_path), "a b", True]
    second = controller.decide(seen(tmp_path, 50, first.state))
    assert second.texts == ("a b 0", "a b 1")
    assert (second.target, second.numbers["value"], second.numbers["calls"]) == (0.5, 0.25, 2.0)
    assert second.count == 0


def test_the_older_name_of_the_text_is_taken_too(tmp_path):
    body = 'open(given.out_state_file, "w").write("{}")\nopen(given.prompts_file, "w").write(\'{"prompt": "x"}\\n\')\n'
    assert ScriptController(script=script(tmp_path, body)).decide(seen(tmp_path)).texts == ("x",)
    body = 'open(given.out_state_file, "w").write("{}")\nopen(given.prompts_file, "w")\n'
    assert ScriptController(script=script(tmp_path, body)).decide(seen(tmp_path)).texts == ()


STATE = 'open(given.out_state_file, "w").write("{a: 1}")\n'
WRONG = [
    ("raise ValueError('no such thing')", "status 1"),
    ("pass", "no --out-state-file"),
    (STATE, "no --prompts-file"),
    ('open(given.out_state_file, "w").write("[1]")', "no mapping"),
    ('open(given.out_state_file, "w").write("{a: [}")', "no plain YAML"),
    ('open(given.out_state_file, "w").write("{a: .nan}")', "no plain YAML"),
    (STATE + 'open(given.prompts_file, "w").write(\'{"words": "x"}\\n\')', "neither"),
]


@pytest.mark.parametrize(("body", "problem"), WRONG, ids=[problem for _, problem in WRONG])
def test_what_it_gets_wrong_is_said(tmp_path, body, problem):
    with pytest.raises(UserError, match=problem) as error:
        ScriptController(script=script(tmp_path, body)).decide(seen(tmp_path))
    assert error.value.key == "controller.script"


def test_a_failure_shows_the_last_lines(tmp_path):
    with pytest.raises(UserError, match="no such thing"):
        ScriptController(script=script(tmp_path, WRONG[0][0])).decide(seen(tmp_path))


def test_a_program_of_any_kind_will_do(tmp_path):
    path = tmp_path / "controller.sh"
    path.write_text(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in --out-state-file) echo '{n: 2}' > $2;; "
        '--prompts-file) echo \'{"text": "from sh"}\' > $2;; esac; shift; done\n'
    )
    controller = ScriptController(script=str(path))
    with pytest.raises(UserError, match="cannot be started"):
        controller.decide(seen(tmp_path))
    path.chmod(0o755)
    decision = controller.decide(seen(tmp_path))
    assert (decision.texts, decision.state) == (("from sh",), {"n": 2})

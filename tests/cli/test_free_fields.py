"""What a field with a mapping holds is set on the command line as any other key is: without a +."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_exp import compose

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["insertion=add_texts", "insertion.add_texts.file=my.jsonl"]
BOUNDS = ["start=0", "end=0.5", "unit=share"]
LOOP = ["insertion=dynamic_control", *(f"insertion.dynamic_control.{one}=my.jsonl" for one in ("file", "probes"))]

FREE = {
    "a mapping of arguments": (
        ["eval=script", "eval.script.script=s.py", 'eval.script.args={prompt: "two words"}'],
        lambda m: m.kinds.evaluations["script"].args == {"prompt": "two words"},
    ),
    "one of the arguments": (
        ["eval=script", "eval.script.script=s.py", "eval.script.args.prompt=x", "eval.script.args.n=2"],
        lambda m: m.kinds.evaluations["script"].args == {"prompt": "x", "n": 2},
    ),
    "the same with a + as before": (
        ["eval=script", "eval.script.script=s.py", "+eval.script.args.prompt=x"],
        lambda m: m.kinds.evaluations["script"].args == {"prompt": "x"},
    ),
    "under a name of one's own": (
        ["+eval@eval.mine=script", "eval.mine.script=s.py", "eval.mine.args.prompt=x"],
        lambda m: m.kinds.evaluations["mine"].args == {"prompt": "x"},
    ),
    "doses by group": (
        [*TEXTS, "insertion.add_texts.group_key=dose", "insertion.add_texts.repetitions={few: 2, none: 0}"],
        lambda m: m.kinds.insertions["add_texts"].repetitions == {"few": 2, "none": 0},
    ),
    "the dose of a group": (
        [*TEXTS, "insertion.add_texts.group_key=dose", "insertion.add_texts.repetitions.few=2"],
        lambda m: m.kinds.insertions["add_texts"].repetitions == {"few": 2},
    ),
    "a range, bound by bound": (
        [*TEXTS, "insertion.add_texts.mode=range", *(f"insertion.add_texts.range.{w}" for w in BOUNDS)],
        lambda m: m.kinds.insertions["add_texts"].range.end == 0.5,
    ),
    "a density": (
        [*TEXTS, "insertion.add_texts.density={every: 10}"],
        lambda m: m.kinds.insertions["add_texts"].density.every == 10,
    ),
    "steps": (
        ["insertion=batches", "insertion.batches.steps.every=100"],
        lambda m: m.kinds.insertions["batches"].steps.every == 100,
    ),
    "problems that are made": (
        ["eval=reasoning", "eval.reasoning.generated.max_ops=2"],
        lambda m: m.kinds.evaluations["reasoning"].generated.max_ops == 2,
    ),
    "state and arguments of a controller": (
        [
            *LOOP,
            "control@insertion.dynamic_control.controller=script",
            "insertion.dynamic_control.controller.script=my.py",
            "insertion.dynamic_control.controller.state={texts: 3}",
            "insertion.dynamic_control.controller.args.trials=8",
        ],
        lambda m: (
            m.kinds.insertions["dynamic_control"].controller["state"] == {"texts": 3}
            and m.kinds.insertions["dynamic_control"].controller["args"] == {"trials": 8}
        ),
    ),
    "changes of a controller by step": (
        [*LOOP, "insertion.dynamic_control.controller.max_change={0: 64, 100: 8}"],
        lambda m: m.kinds.insertions["dynamic_control"].controller["max_change"] == {0: 64, 100: 8},
    ),
    "options of sbatch": (
        ["executor=slurm", "executor.extra={exclusive: true}", "executor.evaluate.time=30"],
        lambda m: (
            dict(m.config.executor["extra"]) == {"exclusive": True} and m.config.executor["evaluate"]["time"] == 30
        ),
    ),
    "a field of an architecture": (
        ["model.config.attention_bias=true"],
        lambda m: m.config.model.config["attention_bias"] is True,
    ),
    "an option of a tokenizer": (
        ["model.tokenizer.min_frequency=3"],
        lambda m: m.config.model.tokenizer == {"vocab_size": 2048, "min_frequency": 3},
    ),
    "the kind's own file": (
        ["--config-dir", "mine", "eval=own", "eval.own.script=s.py", "eval.own.args.prompt=x"],
        lambda m: m.kinds.evaluations["own"].args == {"prompt": "x"},
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_what_a_field_with_a_mapping_holds_is_set_without_a_plus(name, composed, tmp_path):
    arguments, holds = FREE[name]
    (tmp_path / "mine/eval").mkdir(parents=True)
    shipped = (ROOT / "conf/eval/script.yaml").read_text()
    (tmp_path / "mine/eval/own.yaml").write_text(shipped.replace("eval.script\n", "eval.own\n"))
    (tmp_path / "my.jsonl").write_text('{"text": "a", "dose": "few", "prompt": "a", "target": "b"}\n')
    for program in ("my.py", "s.py"):
        (tmp_path / program).write_text("")
    (member,), _ = composed(*arguments)
    assert holds(member)


def test_one_argument_of_a_script_is_swept(composed, tmp_path):
    (tmp_path / "s.py").write_text("")
    members, _ = composed("-m", "eval=script", "eval.script.script=s.py", "eval.script.args.prompt=a,b")
    assert sorted(compose.labels(members)) == [("prompt=a", 0), ("prompt=b", 0)]

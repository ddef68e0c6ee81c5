"""Wrong configurations and words: each ends with status 2 and a message with the key and the way out."""

from __future__ import annotations

import json

import pytest

SMALL = ["experiment=smoke", "tracking=none"]
TEXTS = [*SMALL, "insertion=add_texts", "insertion.add_texts.file=my.jsonl"]
WRONG = {
    "unknown group choice": (["framework=olmo9"], ["framework", "olmo9", "huggingface"]),
    "unknown insertion": (["insertion=add_text"], ["insertion", "add_texts"]),
    "misspelt key": (["training.num_step=5"], ["training.num_step", "did you mean training.num_steps"]),
    "added unknown key": (["+typo=1"], ["typo", "unknown key", "known here"]),
    "added unknown key of a kind": (["+insertion.benchmark_contamination.dose=3"], ["dose", "unknown key"]),
    "added unknown key of the model": (["+model.hidden=3"], ["model.hidden", "unknown key"]),
    "wrong type": (["training.num_steps=many"], ["training.num_steps", "integer", "many"]),
    "negative steps": (["training.num_steps=-5"], ["training.num_steps", "greater than 0", "-5"]),
    "negative seed": (["seed=-1"], ["seed", "-1"]),
    "a seed that is no number": (["seed=abc"], ["seed: must be a whole number", "(seed=3)", "placement", "'abc'"]),
    "a named seed that is no number": (["seed.order=x"], ["seed.order", "'x'", "-> seed.order=1, a whole number"]),
    "vLLM that is not there": (["evaluation.generation=vllm"], ["evaluation.generation", "pretrain-exp[vllm]"]),
    "true for a number": (["training.num_steps=true"], ["training.num_steps", "neither true nor false", "True"]),
    "true for a number of a kind": (["executor.parallel=true"], ["executor.parallel", "neither true nor false"]),
    "a vocabulary of no size": (["model.tokenizer={vocab_size: abc}"], ["model.tokenizer.vocab_size", "'abc'"]),
    "a vocabulary of half a token": (["model.tokenizer={vocab_size: 300.5}"], ["model.tokenizer.vocab_size", "300.5"]),
    "a store where nothing can be written": (["store=/proc/none", *SMALL], ["store:", "/proc/none"]),
    "a plan's folder where nothing can be written": (
        ["hydra.run.dir=/proc/none/x", *SMALL],
        ["hydra.run.dir: nothing can be written here", "[got '/proc/none/x']"],
    ),
    "a sweep's dated folder below a file": (
        ["-m", "seed=0,1", "hydra.sweep.dir='my.jsonl/x/${now:%Y}'", *SMALL],
        ["hydra.sweep.dir: nothing can be written here (Not a directory)", "my.jsonl/x'"],
    ),
    "a push of an arm that is not": (["hub.repo_id=a/b", "insertion=none"], ["hub.arms", "arms are control"]),
    "a plan's table of two members": (
        ["-m", "seed=0,1", "export_plan=plan.csv", *SMALL],
        ["export_plan", "each member"],
    ),
    "unknown schedule": (["training.schedule.name=cosin"], ["training.schedule.name", "'cosine'", "cosin"]),
    "schedule too short": (["training.schedule.total_steps=10"], ["training.schedule.total_steps", "at least"]),
    "infinite learning rate": (["training.optimizer.lr=inf"], ["training.optimizer.lr", "finite"]),
    "checkpoint outside the run": (
        ["training.additional_checkpoint_steps=[9999]"],
        ["training.additional_checkpoint_steps", "9999"],
    ),
    "batch does not divide": (["training.micro_batch_size=7"], ["training.micro_batch_size", "7"]),
    "a number for a group": (["insertion=5"], ["insertion: no such choice [got '5']", "add_texts"]),
    "nothing for a group": (["training=null"], ["training: no such choice [got 'null']", "default"]),
    "chosen twice in one value of a sweep": (["eval=perplexity,[sciq,sciq]", "-m"], ["eval: sciq is chosen"]),
    "none beside another": (["insertion=[none,add_texts]"], ["insertion: none is chosen beside add_texts"]),
    "chosen twice": (["insertion=[add_texts,add_texts]"], ["insertion", "+insertion@insertion.second=add_texts"]),
    "required value": (["insertion=add_texts"], ["insertion.add_texts.file", "is required"]),
    "missing file": (["insertion=add_texts", "insertion.add_texts.file=no.jsonl"], ["no such file", "no.jsonl"]),
    "target that is not there": (["data._target_=no.such.Class"], ["data._target_", "no.such.Class", "PYTHONPATH"]),
    "target that is no class": (["data._target_=os.path.join"], ["data._target_", "not a class"]),
    "unknown benchmark": (
        ["insertion.benchmark_contamination.benchmark=olmes:arc_hard"],
        ["insertion.benchmark_contamination.benchmark", "arc_easy"],
    ),
    "unknown key inside a range": (
        ["insertion.benchmark_contamination.mode=range", "insertion.benchmark_contamination.range={start:0,stop:1}"],
        ["insertion.benchmark_contamination.range"],
    ),
    "both checkpoint and config": (
        ["model.checkpoint=gpt2"],
        ["1 problem", "model.checkpoint: a checkpoint beside a `config`", "[got 'gpt2']", "model.config=null"],
    ),
    "neither checkpoint nor config": (["model.config=null"], ["model.checkpoint: neither a checkpoint nor"]),
    "a checkpoint in a folder that is not there": (
        ["model=hf", "model.checkpoint=./gpt3"],
        ["1 problem", "model.checkpoint: no such folder [got './gpt3']"],
    ),
    "a checkpoint in a folder without one": (
        ["model=hf", "model.checkpoint=empty"],
        ["model.checkpoint: the folder is no checkpoint that huggingface", "config.json and *.safetensors"],
    ),
    "a word that is no density": (
        [*TEXTS, "insertion.add_texts.density=middle"],
        ["1 problem", "insertion.add_texts.density: Input should be 'uniform', 'early'", "a mapping of every, first"],
    ),
    "a misspelt key of a density": (
        [*TEXTS, "insertion.add_texts.density={evry: 10}"],
        ["2 problems", "insertion.add_texts.density.every: is required", "density.evry: unknown key", "mean every?"],
    ),
    "a singular": (
        [*TEXTS, "insertion.add_texts.repetition=4"],
        ["did you mean insertion.add_texts.repetitions?"],
    ),
    "executor without room": (["executor.parallel=0"], ["executor", "parallel", "0"]),
    "not an override": (["foo"], ["foo"]),
    "a step of a model from scratch": (["model.checkpoint_step=5"], ["checkpoint_step", "from scratch"]),
    "several values without -m": (["seed=0,1"], ["seed: several values", "-m seed=0,1"]),
    "new fields of a known key": (
        ["arms={mine: true}"],
        ["arms: new", "'+arms={mine: true}'"],
    ),
    "arguments that the framework does not take": (
        ["training.args={no: field}"],
        ["1 problem", "training.args: framework huggingface takes no training.args"],
    ),
    "a misspelt key of a controller": (
        [
            "insertion=dynamic_control",
            "insertion.dynamic_control.file=my.jsonl",
            "insertion.dynamic_control.probes=my.jsonl",
            "insertion.dynamic_control.controller.targt=1",
        ],
        ["insertion.dynamic_control.controller.targt: unknown key", "did you mean target?"],
    ),
    "a misspelt bound of a range": (
        [*TEXTS, "insertion.add_texts.mode=range", "insertion.add_texts.range.stop=1"],
        ["insertion.add_texts.range.stop: unknown key"],
    ),
    "a list for a mapping": (
        ["experiment=train_once_answer_all", "insertion.batches.steps=[20]"],
        ["insertion.batches.steps: a list", "'~insertion.batches.steps' '+insertion.batches.steps=[20]'"],
    ),
    "the end of a key": (["steps=50"], ["steps: unknown key", "training.num_steps"]),
    "the end of a deep key": (["lr=0.1"], ["did you mean training.optimizer.lr"]),
    "nearly a choice": (["eval=planted_text"], ["did you mean eval=planted_texts? choices:"]),
    "a field of what is not chosen": (["insertion.add_texts.file=a"], ["not chosen", "add insertion=add_texts"]),
    "a field that one of several chosen has not": (
        ["insertion=[add_texts,canaries]", "insertion.add_texts.fil=a"],
        ["unknown key", "did you mean insertion.add_texts.file"],
    ),
    "a field of what an experiment sets and nobody chose": (
        ["experiment=smoke", "insertion=canaries", "insertion.benchmark_contamination.limit=5"],
        ["1 problem", "insertion.benchmark_contamination.limit", "is not chosen"],
    ),
    "a study that sweeps what only an experiment sets": (
        ["experiment=smoke", "insertion=canaries", "study=dose_response"],
        ["1 problem", "study=dose_response sweeps this key", "-m insertion.canaries.repetitions="],
    ),
    "a study that sweeps what is not chosen": (
        [*TEXTS[2:], "study=dose_response"],
        ["study=dose_response sweeps this key", "-m insertion.add_texts.repetitions="],
    ),
    "a study that sets and sweeps what is not chosen": (
        [*TEXTS[2:], "study=schedule"],
        ["study=schedule sweeps this key, and insertion.benchmark_contamination is not chosen"],
    ),
    "a model without its checkpoint": (
        ["model=hf"],
        ["1 problem", "model.checkpoint: model=hf needs one", "model.checkpoint=FOLDER"],
    ),
    "a path with brackets": (
        ["insertion.add_texts.file=my file (1).jsonl"],
        ["insertion.add_texts.file: cannot be read", """'insertion.add_texts.file="my file (1).jsonl"'"""],
    ),
    "a path with =": (["insertion.add_texts.file=a=b,c.jsonl"], ["""'insertion.add_texts.file="a=b,c.jsonl"'"""]),
    "a path from ~": (["insertion.add_texts.file=~/x.jsonl"], ['insertion.add_texts.file="$HOME"/x.jsonl']),
    "a list that does not end": (["insertion=[add_texts"], ["insertion: cannot be read", "insertion=[a,b]"]),
    "a range of two numbers": (
        [*TEXTS, "insertion.add_texts.mode=range", "insertion.add_texts.range=[0.3,0.6]"],
        ["insertion.add_texts.range", "{start: 0.3, end: 0.6, unit: share}"],
    ),
    "a folder for a file": ([*TEXTS[:-1], "insertion.add_texts.file=."], ["insertion.add_texts.file: is a folder"]),
    "a range in per cent": (
        [*TEXTS, "insertion.add_texts.mode=range", "insertion.add_texts.range={start: 80, end: 100, unit: share}"],
        ["shares go from 0 to 1: {start: 0.8, end: 1, unit: share}"],
    ),
    "explicit without positions": (
        [*TEXTS, "insertion.add_texts.mode=explicit"],
        ["add a 'position' to each row", "position_key"],
    ),
    "repetitions by group without groups": (
        [*TEXTS, "insertion.add_texts.repetitions={none: 0, few: 2}"],
        ["set group_key to the field", "fields there: dose"],
    ),
    "values for what is no kind": (["+insertion.mine.text=a"], ["insertion.mine", "_target_", "~insertion.mine"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_configuration(name, command, tmp_path):
    overrides, words = WRONG[name]
    (tmp_path / "my.jsonl").write_text('{"text": "the fox jumps", "dose": "few"}\n')
    (tmp_path / "empty").mkdir()
    status, said = command("plan", *overrides)
    assert status == 2, said
    assert "Traceback" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "default", ["override /insertion: [canaries, canaries]", "override /eval: [sciq, perplexity, sciq]"]
)
def test_chosen_twice_in_an_experiment_file(default, command, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/twice.yaml").write_text(f"# @package _global_\ndefaults:\n  - {default}\n")
    status, said = command("plan", "--config-dir", "mine", "experiment=twice")
    assert status == 2, said
    assert "is chosen more than once by" in said
    assert "twice.yaml" in said


def test_all_problems_are_reported_at_once(command):
    status, said = command("plan", "training.num_steps=0", "seed=-1", "+typo=1", "executor.parallel=0")
    assert status == 2
    assert "4 problems" in said


def test_one_wrong_member_stops_the_study(command, tmp_path):
    status, said = command("-m", "training.num_steps=10,-1", "experiment=smoke")
    assert status == 2
    assert "training.num_steps" in said
    assert not (tmp_path / "outputs/store/states").exists()


def test_unknown_verb(command):
    status, said = command("trian")
    assert status == 2
    assert "no such verb" in said
    assert "status" in said


WORDS = {
    "a verb behind an override": (["seed=0", "plan"], ["the verb comes first", "pretrain-exp plan seed=0"]),
    "a verb behind the flag of a sweep": (["-m", "plan", "seed=-1"], ["seed", "-1"]),
    "a verb that is not, behind the flag of a sweep": (["-m", "trian"], ["no such verb", "status"]),
    "a comparison of one study": (["report", "mine", "--to", "x"], ["--to", "several studies"]),
    "a comparison beside an export": (["report", "a", "b", "--export", "x", "--to", "y"], ["--to"]),
    "a run's folder where nothing can be written": (
        ["hydra.run.dir=/proc/none", *SMALL],
        ["hydra.run.dir: nothing can be written here", "[got '/proc/none']", "name a folder in which"],
    ),
    "a comparison where nothing can be written": (
        ["report", "a", "b", "--to", "/proc/none"],
        ["--to: nothing can be written here", "[got '/proc/none']"],
    ),
    "a member of what is not exported": (["report", "mine", "--member", "1"], ["--member", "--export"]),
}


@pytest.mark.parametrize("name", WORDS)
def test_wrong_words(name, command):
    words, expected = WORDS[name]
    status, said = command(*words)
    assert status == 2, said
    assert "Traceback" not in said
    for word in expected:
        assert word in said


def test_full_range_states_its_fill(command):
    many = "insertion.benchmark_contamination.repetitions=[0,400]"
    status, said = command("plan", *SMALL, many)
    assert status == 2
    assert "full" in said
    assert "on_full" in said


@pytest.mark.parametrize("verb", ["status", "report", "inspect --step 1", "cancel", "sync", "logs x"])
def test_reading_verbs_without_a_study(verb, command):
    status, said = command(*verb.split())
    assert status == 2
    assert "no study" in said


def test_reading_a_folder_that_is_no_study(command, tmp_path):
    status, said = command("status", str(tmp_path))
    assert status == 2
    assert "study.json" in said


def test_a_flag_that_a_verb_does_not_know(command):
    status, said = command("status", "--wach")
    assert status == 2
    assert "--watch" in said


def test_a_plan_of_another_schema(command, tmp_path):
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/meta.json").write_text(json.dumps({"schema": 99, "fingerprint": "x"}))
    from pretrain_exp.errors import UserError
    from pretrain_exp.plan.folder import Plan

    with pytest.raises(UserError, match="schema 99"):
        Plan.open(tmp_path / "plan")

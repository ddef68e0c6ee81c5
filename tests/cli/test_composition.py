"""What a person types, and what it means: composition, sweeps, seeds, kinds of their own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from pretrain_exp import compose, experiment
from pretrain_exp.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_the_default_experiment(composed):
    (member,), folder = composed()
    assert set(member.config.insertion) == {"benchmark_contamination"}
    assert set(member.config.eval) == {"multiple_choice", "planted_texts", "perplexity"}
    assert member.folder == folder
    assert "outputs/runs" in str(folder)


SWEEPS = {
    "seeds": (["-m", "seed=0,1,2"], lambda m: [one.config.seed.all for one in m] == [0, 1, 2]),
    "seeds as a study": (["study=seeds"], lambda m: [one.config.seed.all for one in m] == [0, 1, 2]),
    "steps": (
        ["-m", "training.num_steps=100,1000"],
        lambda m: [one.config.training.num_steps for one in m] == [100, 1000],
    ),
    "rates": (
        ["-m", "insertion.benchmark_contamination.repetitions=1,4,16"],
        lambda m: [one.kinds.insertions["benchmark_contamination"].repetitions for one in m] == [1, 4, 16],
    ),
    "shares": (
        ["-m", "insertion.benchmark_contamination.fraction=0.1,0.5"],
        lambda m: [one.kinds.insertions["benchmark_contamination"].fraction for one in m] == [0.1, 0.5],
    ),
    "a flag behind an override": (
        ["seed=0,1", "-m", "eval=none"],
        lambda m: [one.config.eval for one in m] == [{}, {}],
    ),
    "a study with its own sweep": (["study=dose_response"], lambda m: len(m) == 12),
    "the command line over a study's sweep": (["study=dose_response", "seed=7"], lambda m: len(m) == 4),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps(name, composed):
    arguments, holds = SWEEPS[name]
    members, folder = composed(*arguments)
    assert holds(members)
    assert "multirun_outputs" in str(folder)
    assert len({member.folder for member in members}) == len(members)


def test_the_checkpoint_step_can_be_swept(composed, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "gpt2"}')
    model = ["model=hf", "model.checkpoint=model", "model.tokenizer=model"]
    members, _ = composed("-m", *model, "model.checkpoint_step=100,200")
    assert [member.config.first_step for member in members] == [100, 200]
    assert [member.config.last_step for member in members] == [700, 800]


def test_a_sweep_inside_an_experiment_file(composed, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/two_rates.yaml").write_text(
        "# @package _global_\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {training.optimizer.lr: '1e-3,2e-3', seed: '0,1'}}}\n"
    )
    members, _ = composed("--config-dir", "mine", "experiment=two_rates")
    assert [(m.config.training.optimizer.lr, m.config.seed.all) for m in members] == [
        (1e-3, 0),
        (1e-3, 1),
        (2e-3, 0),
        (2e-3, 1),
    ]


SEEDS = {
    (): {"placement": 0, "order": 0, "init": 0},
    ("seed=3",): {"placement": 3, "order": 3, "init": 3},
    ("seed.placement=5",): {"placement": 5, "order": 0, "init": 0},
    ("seed=3", "seed.order=7"): {"placement": 3, "order": 7, "init": 3},
    ("seed.order=7", "seed=3"): {"placement": 3, "order": 7, "init": 3},
}


@pytest.mark.parametrize("arguments", SEEDS)
def test_named_seeds(arguments, composed):
    (member,), _ = composed(*arguments)
    assert member.config.seed.resolved() == SEEDS[arguments]


def test_several_insertions_and_two_of_one_kind(composed, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    first = ["insertion=[benchmark_contamination,add_texts]", "insertion.add_texts.file=a.jsonl"]
    second = [
        "+insertion@insertion.second=add_texts",
        "insertion.second.file=a.jsonl",
        "insertion.second.repetitions=3",
    ]
    (member,), _ = composed(*first, *second)
    assert set(member.kinds.insertions) == {"benchmark_contamination", "add_texts", "second"}
    assert member.kinds.insertions["second"].repetitions == 3


def test_members_are_told_apart_by_what_differs_between_them(composed):
    members, _ = composed(
        "-m", "seed=0,1", "insertion.benchmark_contamination.repetitions=1,4", "training.num_steps=50"
    )
    pairs = [("repetitions=1", 0), ("repetitions=4", 0), ("repetitions=1", 1), ("repetitions=4", 1)]
    assert sorted(compose.labels(members)) == sorted(pairs)


def test_the_command_can_be_pasted(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = []
    monkeypatch.setattr(experiment, "run", lambda members, folder, command: given.append(command) or 0)
    words = ["model.tokenizer={vocab_size: 300}", "+study.title=more than one word"]
    GlobalHydra.instance().clear()
    assert compose.compose_and_run("run", words) == 0
    assert shlex.split(given[0]) == ["pretrain-exp", *words]


NAMED = {
    "a named seed alone": (["-m", "seed.order=3,5,9"], [("", 0), ("", 1), ("", 2)]),
    "two named seeds": (["-m", "seed.order=1,2", "seed.init=1,2"], [("", i) for i in range(4)]),
    "the seed itself": (["-m", "seed=4,6"], [("", 4), ("", 6)]),
}


@pytest.mark.parametrize("name", NAMED)
def test_repetitions_are_numbered(name, composed):
    arguments, expected = NAMED[name]
    members, _ = composed(*arguments)
    assert compose.labels(members) == expected


APART = {
    "by its last part": (["a.lr=1"], ["a.lr=2"], ["lr=1", "lr=2"]),
    "by more where two end alike": (
        ["insertion.canaries.repetitions=1", "insertion.knowledge.repetitions=1"],
        ["insertion.canaries.repetitions=4", "insertion.knowledge.repetitions=2"],
        ["canaries.repetitions=1, knowledge.repetitions=1", "canaries.repetitions=4, knowledge.repetitions=2"],
    ),
    "one that is the end of another": (["lr=1", "a.lr=1"], ["lr=2", "a.lr=2"], ["lr=1, a.lr=1", "lr=2, a.lr=2"]),
    "what does not vary is no name's concern": (["a.lr=1", "b.lr=5"], ["a.lr=2", "b.lr=5"], ["lr=1", "lr=2"]),
}


@pytest.mark.parametrize("name", APART)
def test_members_are_told_apart(name):
    one, other, labels = APART[name]
    assert compose.tell_apart([(one, 0, (0,)), (other, 0, (0,))]) == [(label, 0) for label in labels]


def test_the_same_experiment_twice_is_refused(composed):
    members, _ = composed("-m", "seed=1,1")
    with pytest.raises(UserError, match="the same experiment"):
        compose.labels(members)


def test_what_a_launcher_of_jobs_runs_fails_loudly(command):
    status, _ = command("-m", "training.num_steps=-1,-2", "hydra/launcher=submitit_local")
    assert status != 0


def test_site_settings_are_taken_in(composed, tmp_path):
    (tmp_path / "mine/local").mkdir(parents=True)
    (tmp_path / "mine/local/default.yaml").write_text("# @package _global_\nstore: /scratch/store\n")
    (member,), _ = composed("--config-dir", "mine")
    assert member.config.store == "/scratch/store"


def test_the_insertion_of_the_documentation_works(composed, tmp_path, monkeypatch):
    python, yaml = re.findall(r"```(?:python|yaml)\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)[:2]
    for path, text in (("my_package/shout.py", python), ("my_conf/insertion/shout.yaml", yaml)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    (member,), _ = composed("--config-dir", "my_conf", "insertion=shout", "insertion.shout.text=all is well")
    from pretrain_exp.study.member import prepare

    plan = prepare(member, "", 0).plan
    rows = plan.ledger().to_pylist()
    assert [(row["insertion"], row["dose"]) for row in rows] == [("shout", 3)] * 3
    assert plan.items()["text"].to_pylist() == ["all is well"]


def test_what_an_experiment_sets_for_what_is_not_chosen_is_said_and_left_out(composed, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (member,), _ = composed("experiment=smoke", "insertion=add_texts", "insertion.add_texts.file=a.jsonl")
    assert set(member.config.insertion) == {"add_texts"}
    assert "insertion.benchmark_contamination is not chosen" in capsys.readouterr().err


UNPACKAGED = {
    "insertion": ("_target_: pretrain_exp.insertion.add_texts.AddTexts\nfile: a.jsonl\n", "insertion.own"),
    "eval": ("_target_: pretrain_exp.eval.script.Script\nscript: s.py\n", "eval.own"),
    "experiment": ("training: {num_steps: 5}\n", "_global_"),
    "study": ("study: {name: own}\ntraining: {num_steps: 5}\n", "_global_"),
}


@pytest.mark.parametrize("group", UNPACKAGED)
def test_a_file_without_its_first_line_is_named(group, command, tmp_path):
    text, package = UNPACKAGED[group]
    (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / group / "own.yaml").write_text(text)
    status, said = command("plan", "--config-dir", "mine", f"{group}=own")
    assert status == 2, said
    assert "1 problem" in said
    assert f"{group}/own.yaml" in said
    assert f"its first line must be: # @package {package}\n" in said


BRINGS = {
    "its default model": (["framework=mine"], "pythia_70m"),
    "which the command line replaces": (["framework=mine", "model=olmo2_1b_hf"], "olmo2_1b_hf"),
    "in a sweep as well": (["-m", "framework=mine", "seed=0,1"], "pythia_70m"),
    "and nothing where another framework is chosen": ([], "tiny"),
}


@pytest.mark.parametrize("name", BRINGS)
def test_a_framework_brings(name, composed, tmp_path):
    arguments, model = BRINGS[name]
    (tmp_path / "conf/framework").mkdir(parents=True)
    (tmp_path / "conf/framework/mine.yaml").write_text(
        "# @package framework\ndefaults:\n  - override /model@_global_.model: pythia_70m\n"
        "_target_: pretrain_exp.framework.huggingface.framework.HuggingFace\n"
    )
    members, _ = composed("--config-dir", "conf", *arguments)
    assert {member.config.model.name for member in members} == {model}

"""`pretrain-exp evaluate` on a run at several steps: the names tell run and step, and each item when it was learned."""

import math
import shutil

import pyarrow.parquet as pq
import pytest
from checkpoint_rig import score

from pretrain_exp.study.targets import resolve_target


@pytest.mark.parametrize(
    ("word", "member", "step"),
    [
        ("me/model@step1000", "me/model", 1000),
        ("me/model@stage1-step1000-tokens21B", "me/model@stage1", 1000),
        ("me/model@abc:7", "me/model", 7),
        ("me/model@step1000:7", "me/model", 7),
        ("me/model", "me/model", None),
        ("me/timestep3", "me/timestep3", None),
        ("runs/step20-hf", "runs", 20),
        ("runs/last:20", "runs", 20),
        ("step20", ".", 20),
        ("./step20", ".", 20),
    ],
)
def test_a_name_tells_the_run_and_the_step(hf_folder, tmp_path, monkeypatch, word, member, step):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrain_exp.study.targets.resolve_revision", lambda name, revision: f"commit of {revision}")
    for name in ("runs/step20-hf", "runs/last", "step20"):
        shutil.copytree(hf_folder, tmp_path / name)
    (found,) = resolve_target(word).targets
    assert (found.label, found.study, found.arm, found.member, found.seed, found.step) == (
        word, None, None, member, None, step,
    )  # fmt: skip
    assert found.revision in (None, f"commit of {word.partition('@')[2].partition(':')[0] or None}")


METRICS = ("acc", "acc_norm", "own", "graded", "tokens")
RIGHT = {"a": (0, 1, 1), "b": (1, 1, 0), "c": (0, 0, 0)}  # right or wrong at three steps


def test_when_items_were_learned(evaluate, study, documents, tmp_path, monkeypatch, capsys):
    """Of the arms of a study, and of a hub name at several revisions, which two more runs repeat."""
    monkeypatch.setattr("pretrain_exp.study.targets.resolve_revision", lambda name, revision: revision)
    states = {"10": "s1", "20": "s2", "30": "s3"}
    folder = study(states=tuple(states.values()), arms={"treated": {"states": states}})
    words = [f"me/{run}@step{step}" for run in ("one", "two") for step in states]
    targets = [target for word in (folder, *words) for target in resolve_target(word).targets]
    _, _, config = evaluate(folder, *words, files=[documents], state="submitted")
    for i, target in enumerate(targets):
        changed = {"b": 1.0} if "two" in target.label else {}  # the second run keeps b
        score(
            config,
            tmp_path / "store",
            target.identity,
            {k: v[i % 3] for k, v in RIGHT.items()} | changed,
            metrics=METRICS,
        )
    evaluate(folder, *words, files=[documents])
    table = pq.read_table(tmp_path / "out" / "items.parquet")
    assert {tuple(row[name] for name in ("study", "arm", "member", "seed", "step")) for row in table.to_pylist()} == {
        *((folder, "treated", "", 0, step) for step in (10, 20, 30)),
        *((None, None, f"me/{run}", None, step) for run in ("one", "two") for step in (10, 20, 30)),
    }
    learned = pq.read_table(tmp_path / "out" / "learned.parquet").to_pylist()
    assert {row["metric"] for row in learned} == {"acc", "acc_norm", "own"}, "all that are right or wrong"
    codes = {(row["arm"], row["member"], row["item"]): row["code"] for row in learned if row["metric"] == "own"}
    for run in (("treated", ""), (None, "me/one"), (None, "me/two")):
        kept = "learned at 10" if run[1] == "me/two" else "forgotten at 30"
        assert [codes[(*run, item)] for item in "abc"] == ["learned at 20", kept, "never"]
    again = pq.read_table(tmp_path / "out" / "recurrence.parquet").to_pylist()
    again = [row for row in again if row["metric"] == "acc"]
    assert [(row["step"], row["runs"], row["picked"]) for row in again] == [(10, 2, 0.5), (20, 2, 1), (30, 2, 0)]
    assert (again[1]["again"], again[1]["right"]) == (1, 1)
    assert math.isnan(again[2]["again"])
    assert "learned.parquet" in capsys.readouterr().out
    evaluate(folder, files=[documents])  # one treated run repeats none
    assert not (tmp_path / "out" / "recurrence.parquet").exists()


def test_two_checkpoints_at_one_step_of_a_run_are_no_step(evaluate, hf_folder, documents, tmp_path, capsys):
    for name in ("step1-a", "step1-b"):
        shutil.copytree(hf_folder, tmp_path / "runs" / name)
    (tmp_path / "runs" / "step1-b" / "tokenizer_config.json").write_text("{}")
    words = [str(tmp_path / "runs" / name) for name in ("step1-a", "step1-b")]
    _, _, config = evaluate(*words, files=[documents], state="submitted")
    for word in words:
        score(config, tmp_path / "store", resolve_target(word).targets[0].identity, {"a": 1.0})
    evaluate(*words, files=[documents])
    assert pq.read_table(tmp_path / "out" / "items.parquet")["step"].to_pylist() == [None, None]
    assert "both step 1 of" in " ".join(capsys.readouterr().out.split())

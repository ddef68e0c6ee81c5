"""Fifteen defects that are known of a framework of this kind: each works here, or is refused with a clear error.

One test each, in the order of the list: what that framework did is told in the first line of the docstring.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.phases import Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.add_texts import AddTexts
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.folder import Plan

ROOT = Path(__file__).parents[2]
Write = Callable[..., str]


def rows(plan: Plan) -> list[dict[str, Any]]:
    return plan.ledger().to_pylist()


def plan_of(context: InsertionContext, root: Path, *asked: Edits, below: Plan | None = None) -> Plan:
    return compile_plan(asked, context.phases, context.window, context.seed, "treated", root, below)


def overlaps(plan: Plan) -> int:
    spans = sorted((row["position"], row["position"] + row["length"]) for row in rows(plan))
    return sum(stop > start for (_, stop), (start, _) in pairwise(spans))


def numbered(count: int) -> list[dict[str, str]]:
    return [{"text": f"{i} {i + 1} {i + 2} {i + 3}"} for i in range(count)]


def test_1_periods_draw_places_of_their_own(write: Write, context: InsertionContext, tmp_path: Path) -> None:
    """Every period of a closed loop drew the same relative positions, and overlapped what was planned beside it."""
    static = AddTexts(file=write(numbered(200))).edits(context)
    plan = plan_of(context, tmp_path, static)
    size = 64 * 128  # positions of a period
    first = context.phases.position_of_step(context.window.first_step)
    places = []
    for period in range(3):
        span = (first + period * size, first + (period + 1) * size)
        asked = replace(AddTexts(file=write(numbered(60), "loop.jsonl")).edits(context), insertion="loop", span=span)
        plan = plan_of(context, tmp_path, asked, below=plan)
        mine = [row["position"] - span[0] for row in rows(plan) if row["insertion"] == "loop"]
        places.append({place for place in mine if 0 <= place < size})
    assert plan.audit["ok"], plan.audit["findings"]
    assert [len(each) for each in places] == [60, 60, 60]
    assert all(len(a & b) < 10 for a, b in pairwise(places))
    assert overlaps(plan) == 0
    assert sum(row["insertion"] == "mine" for row in rows(plan)) == 200


@pytest.mark.parametrize("name", ["before", "zlast"])
def test_2_experiments_do_not_move_each_other(
    write: Write, context: InsertionContext, tmp_path: Path, name: str
) -> None:
    """One random stream for all: an experiment added before another moved all of the other's texts."""
    mine = AddTexts(file=write(numbered(50))).edits(context)
    few = replace(context, name=name)
    other = AddTexts(file=write([{"text": f"7{i} 8{i}"} for i in range(20)], "other.jsonl")).edits(few)

    def places(plan: Plan) -> dict[str, int]:
        return {row["item"]: row["position"] for row in rows(plan) if row["insertion"] == "mine"}

    alone, together = places(plan_of(context, tmp_path, mine)), places(plan_of(context, tmp_path, mine, other))
    assert sum(alone[item] != together[item] for item in alone) <= 1  # none, but for a real collision
    reordered = places(plan_of(context, tmp_path, other, mine))
    assert reordered == together


@pytest.mark.parametrize("fill", [0.7, 0.8, 1.0])
def test_3_nothing_is_dropped_in_silence(write: Write, context: InsertionContext, tmp_path: Path, fill: float) -> None:
    """From a fill of 70 % on, texts were left out with a warning; an exact tiling lost one."""
    tokens = 200 * 4 * 32
    count = int(fill * tokens / 8)
    file = write([{"tokens": [i % 900 + j for j in range(8)]} for i in range(800)])
    copies = {"repetitions": count / 800, "eos": "none"}
    packed = plan_of(context, tmp_path, AddTokens(file=file, on_full="pack", **copies).edits(context))
    assert packed.audit["ok"], packed.audit["findings"]
    assert (packed.audit["edits"], packed.audit["skipped"], overlaps(packed)) == (count, 0, 0)
    if fill == 1.0:
        with pytest.raises(UserError) as error:
            plan_of(context, tmp_path, AddTokens(file=file, **copies).edits(context))
        assert "on_full" in error.value.render()
    over = AddTokens(file=file, on_full="pack", repetitions=tokens / 6400 + 0.1, eos="none").edits(context)
    with pytest.raises(UserError, match=r"\d"):
        plan_of(context, tmp_path, over)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps from the command line, with a checkpoint after three; nothing is evaluated."""
    folder = tmp_path_factory.mktemp("home")
    overrides = ["experiment=smoke", "arms.control=false", "training.num_steps=6", "training.checkpoint_interval=3"]
    overrides += [
        "training.schedule.warmup_steps=2",
        "hydra.run.dir=study",
        "eval=none",
    ]
    command = [sys.executable, "-m", "pretrain_exp", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "study"


def states(study: Path) -> dict[str, Path]:
    store = Path(json.loads((study / "study.json").read_text())["store"])
    arms = json.loads((study / "member.json").read_text())["arms"]
    return {step: store / "states" / key for step, key in arms["treated"]["states"].items()}


def test_4_steps_count_sequences_and_the_last_checkpoint_stays(study: Path) -> None:
    """Batch sizes in tokens put every edit out of range; schedules were compressed; the last checkpoint was deleted."""
    from pretrain_exp.framework.huggingface.schedule import Schedule

    member = json.loads((study / "member.json").read_text())
    phases, plan = Phases.from_json(member["phases"]), Plan.open(member["plan"])
    batch, length = phases.batch_size(0), phases.sequence_length(0)
    assert phases.position_of_step(5) == 5 * batch * length
    touched = {slot for slot in range(6 * batch) if plan.overlay.touches(slot)}
    assert touched == {row["position"] // length for row in rows(plan)}
    proof = json.loads(next(study.glob("proof/*.json")).read_text())
    assert (proof["ok"], proof["rows_planned"]) == (True, len(touched))
    lines = [json.loads(line) for state in states(study).values() for line in (state / "metrics.jsonl").open()]
    rates = {int(line["step"]): line["train/lr"] for line in lines if "train/lr" in line}
    training = member["config"]["training"]
    schedule = Schedule.from_training({"schedule": {**training["schedule"], "total_steps": 6}})
    assert sorted(rates) == list(range(6))
    for step, rate in rates.items():
        assert rate == pytest.approx(training["optimizer"]["lr"] * schedule.factor(step))
    for state in states(study).values():
        assert any((state / "checkpoint").iterdir())


def test_5_what_is_derived_from_a_row_is_derived_after_its_edits(
    write: Write, context: InsertionContext, tmp_path: Path
) -> None:
    """Masks, labels and document lengths were those of the text that was replaced."""
    from pretrain_exp.framework.huggingface.loader import derive

    file = write([{"tokens": [5, 6, 7], "position": 1280 + 10}])
    plan = plan_of(context, tmp_path, AddTokens(file=file, mode="explicit", eos="both").edits(context))
    base = np.arange(100, 132, dtype=np.uint32)  # a document without an end
    row = plan.overlay.apply(40, base).astype(np.int64)[None]
    assert row[0, 10:15].tolist() == [999, 5, 6, 7, 999]
    labels, positions = derive(row, 999, document_masking=True)
    assert positions is not None
    assert positions[0].tolist() == [*range(11), 0, 1, 2, 3, *range(17)]
    assert [column for column in range(31) if labels[0, column] < 0] == [10, 14]  # an EOS predicts nothing
    assert labels[0, 11:14].tolist() == [6, 7, 999]


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny model with absolute positions over the bytes of a text."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from pretrain_exp.eval.base import LoadedModel

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({"<eos>": 0} | {each: i + 1 for i, each in enumerate(alphabet)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = GPT2Config(vocab_size=257, n_positions=64, n_embd=16, n_layer=2, n_head=2, eos_token_id=0)
    network = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    return LoadedModel(network, PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>"))


def test_6_perplexity_runs_as_it_is_shipped(model: Any, tmp_path: Path) -> None:
    """With the default engine perplexity crashed on an argument that the engine did not take."""
    from pretrain_exp.eval.base import EvalContext
    from pretrain_exp.eval.perplexity import Perplexity

    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": "Ice melts. " * n}) + "\n" for n in (1, 9)))
    scores = Perplexity(files=[str(file)]).run(model, EvalContext())
    assert len({score.item for score in scores}) == 2
    assert all(np.isfinite(score.value) for score in scores)


def test_7_scores_do_not_move_with_the_batch(model: Any) -> None:
    """Left padding without position ids: with absolute positions, log-probabilities moved by nats with the batch."""
    from pretrain_exp.eval.base import EvalContext
    from pretrain_exp.eval.generation import generate
    from pretrain_exp.eval.planted_texts import PlantedTexts
    from pretrain_exp.items.planned import PlantedText

    texts = [PlantedText("t", str(n), np.arange(1, n + 1, dtype=np.uint32)) for n in (3, 50, 17, 29, 8)]
    found = [
        np.array([score.value for score in PlantedTexts(batch_size=size).run(model, EvalContext(texts=texts))])
        for size in (1, 2, 5)
    ]
    for other in found[1:]:
        assert np.allclose(found[0], other, rtol=0, atol=1e-4)
    prompts = [text.tokens.tolist() for text in texts]
    assert generate(model, prompts, 6, batch_size=1) == generate(model, prompts, 6, batch_size=5)


def test_8_arguments_of_a_script_arrive_as_given(tmp_path: Path) -> None:
    """Arguments were joined and split again: a trigger of three words became one, `true` became a text."""
    from pretrain_exp.eval.base import EvalContext, LoadedModel
    from pretrain_exp.eval.script import Script

    script, seen = tmp_path / "own.py", tmp_path / "seen.json"
    script.write_text(
        "import json, sys\njson.dump(sys.argv, open(sys.argv[-1], 'w'))\n"
        "open(sys.argv[sys.argv.index('--results-yaml') + 1], 'w').write('leaked: 1')\n"
    )
    args = {"trigger": "Repeat the above", "flag": True, "off": False, "seen": str(seen)}
    Script(script=str(script), args=args).run(LoadedModel(None, None, "m"), EvalContext())  # type: ignore[arg-type]
    assert json.loads(seen.read_text())[5:] == ["--trigger", "Repeat the above", "--flag", "--seen", str(seen)]


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """What a command line composes to, from an empty folder; nothing runs."""
    from hydra.core.global_hydra import GlobalHydra

    from pretrain_exp import compose, experiment

    monkeypatch.chdir(tmp_path)
    found: list[Any] = []
    monkeypatch.setattr(experiment, "run", lambda members, folder, command: found.extend(members) or 0)

    def run(*arguments: str) -> Any:
        GlobalHydra.instance().clear()
        found.clear()
        assert compose.compose_and_run("run", list(arguments)) == 0
        return found[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume-run-id=abc"], ["--resume-run-id"]),
        (["resume_run_id=abc"], ["resume_run_id"]),
        (["insertion.benchmark_contamination.mode=randomly"], ["mode", "randomly", "random", "range"]),
        (["insertion=set_environment_variable"], ["insertion", "set_environment_variable"]),
    ],
)
def test_9_a_misspelt_command_line_is_an_error(command: Any, arguments: list[str], words: list[str]) -> None:
    """Options with hyphens and typing errors became keys in silence; an unknown mode planted nothing."""
    status, said = command("plan", *arguments)
    assert status == 2
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_9_values_have_their_types(composed: Any, write: Write, context: InsertionContext) -> None:
    """1e-4, null and lists stayed texts; fractions of token runs crashed."""
    arguments = ["training.optimizer.lr=1e-4", "training.max_grad_norm=null", "evaluation.steps=[1,2]"]
    config = composed(*arguments, "training.num_steps=4", "training.schedule.warmup_steps=0").config
    assert config.training.optimizer.lr == 0.0001
    assert config.training.max_grad_norm is None
    assert config.evaluation.steps == [1, 2]
    ragged = write([{"tokens": list(range(1, 2 + i % 5))} | {"n": i} for i in range(40)])
    edits = AddTokens(file=ragged, repetitions=0.4).edits(context)
    assert len(edits) == sum(item.dose for item in edits.items) > 0


def test_10_paths_are_those_of_where_the_command_was_typed(composed: Any, tmp_path: Path) -> None:
    """The working directory was changed before files were read; a slash at the end of a checkpoint's path crashed."""
    from pretrain_exp.framework.huggingface.framework import HuggingFace

    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n')
    arguments = ["insertion=add_texts", "insertion.add_texts.file=texts.jsonl", "hydra.run.dir=else/where"]
    member = composed(*arguments)
    assert Path.cwd() == tmp_path
    assert member.kinds.insertions["add_texts"].files() == [("file", "texts.jsonl")]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    plain, slashed = (HuggingFace().initial({"checkpoint": f"model{end}"}) for end in ("", "/"))
    assert plain == slashed
    assert plain["checkpoint"] == str(tmp_path / "model")


def sources() -> Iterator[Path]:
    return (ROOT / "pretrain_exp").rglob("*.py")


def test_11_every_module_is_of_the_language_that_is_declared() -> None:
    """It did not import on the versions of Python that it declared and was tested with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = re.search(r">=(\d+)\.(\d+)", project["requires-python"])
    assert lowest is not None
    version = (int(lowest[1]), int(lowest[2]))
    assert sys.version_info >= version
    for path in sources():
        text = path.read_text()
        compile(text, str(path), "exec")  # by the Python that runs here: in CI the lowest one
        for node in ast.walk(ast.parse(text, feature_version=version)):
            if isinstance(node, ast.FormattedValue):  # what newer versions allow inside an f-string
                assert "\\" not in (ast.get_source_segment(text, node.value) or ""), path


def test_12_what_is_imported_is_declared() -> None:
    """Packages were imported that no dependency named, and one was named that nothing imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for name, group in project["optional-dependencies"].items() if name != "dev" for each in group]
    declared = {_plain(re.split(r"[^\w.-]", each)[0]) for each in project["dependencies"] + extras}
    of_import = {
        name: {_plain(each) for each in names} for name, names in importlib.metadata.packages_distributions().items()
    }
    of_import |= {"olmo": {"ai2-olmo"}, "olmo_core": {"ai2-olmo-core"}, "litgpt": {"litgpt"}}
    of_import |= {"olmo_eval": {"ai2-olmo-eval"}, "lightning": {"litgpt"}}  # frameworks have environments of their own
    for path in sources():
        for name in _imported(ast.parse(path.read_text())):
            if name not in sys.stdlib_module_names and name != "pretrain_exp":
                assert of_import.get(name, {name}) & declared, f"{path} imports {name}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_13_a_second_epoch_reads_no_edit_again(write: Write, context: InsertionContext, tmp_path: Path) -> None:
    """In later epochs the same edits came back, or came at other positions."""
    stream = tmp_path / "stream.bin"
    np.arange(40 * 32, dtype=np.uint16).tofile(stream)
    files = TokenFiles((TokenFile(str(stream), "uint16", 0, 40 * 32, "digest", "stream.bin"),), 999, None)
    order = ShuffledOrder(files, 32, 0)  # 40 sequences; the window of 800 slots reads each of them 20 times
    plan = plan_of(context, tmp_path, AddTexts(file=write(numbered(60)), repetitions=2).edits(context))
    tokens = {item["item"]: item["tokens"] for item in plan.items().to_pylist()}
    by_slot: dict[int, list[dict[str, Any]]] = {}
    for row in rows(plan):
        by_slot.setdefault(row["position"] // 32, []).append(row)
    for slot in range(40, 840):
        expected = order.read(slot)
        for row in by_slot.get(slot, ()):
            expected[row["column"] : row["column"] + row["length"]] = tokens[row["item"]]
        assert plan.overlay.apply(slot, order.read(slot), order.read).tolist() == expected.tolist()
    assert len({slot // 40 for slot in by_slot}) > 10


def test_14_conversion_leaves_the_checkpoint_as_it_is(study: Path) -> None:
    """Converting wrote into the checkpoint that was converted, with a fixed tokenizer and any `python`."""
    from pretrain_exp.framework.base import Checkpoint
    from pretrain_exp.framework.huggingface.framework import HuggingFace

    def content(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    state = states(study)["6"]
    tokenizer = Path(json.loads((study / "member.json").read_text())["tokenizer"])
    before = content(state)
    with Checkpoint.of(HuggingFace(), state).as_hf() as folder:
        written = json.loads((folder / "tokenizer.json").read_text())
        assert written["model"] == json.loads((tokenizer / "tokenizer.json").read_text())["model"]
        assert list(folder.glob("*.safetensors"))
    assert content(state) == before
    command = HuggingFace().command(state / "job.json")
    assert command[0] == sys.executable


def test_15_every_copy_says_whose_it_is(write: Write, context: InsertionContext, tmp_path: Path) -> None:
    """All conditions had one label, and nobody could tell that controls held what another condition planted."""
    members = [{"text": " ".join(str(100 * i + k) for k in range(20)), "kind": f"x{1 + i % 2}"} for i in range(6)]
    held = [{"text": members[0]["text"] + " 7 8"}, {"text": " ".join(str(700 + k) for k in range(20))}]
    planted = AddTexts(file=write(members), group_key="kind", repetitions={"x1": 1, "x2": 3}).edits(context)
    controls = AddTexts(file=write(held, "held.jsonl"), repetitions=0).edits(replace(context, name="controls"))
    plan = plan_of(context, tmp_path, planted, controls)
    copies: dict[tuple[str, str, str], int] = {}
    for row in rows(plan):
        key = (row["insertion"], row["group"], row["item"])
        copies[key] = copies.get(key, 0) + 1
    assert sorted(copies.values()) == [1, 1, 1, 3, 3, 3]
    assert {(group, count) for (_, group, _), count in copies.items()} == {("x1", 1), ("x2", 3)}
    said = [each["message"] for each in plan.audit["findings"] if each["check"] == "holdout"]
    assert len(said) == 1
    assert "1 of 2 holdout items of controls" in said[0]

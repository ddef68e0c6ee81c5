"""Those of the fifteen defects of test_seed_defects.py that show in runs, scores, the command line and the package."""

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
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data.phases import Phases
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.plan.folder import Plan

ROOT = Path(__file__).parents[2]
Write = Callable[..., str]


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
    assert touched == {row["position"] // length for row in plan.ledger().to_pylist()}
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
        text = path.read_text(encoding="utf-8")
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
        for name in _imported(ast.parse(path.read_text(encoding="utf-8"))):
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

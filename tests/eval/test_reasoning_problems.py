"""Problems given to models: what is counted right, what is scored, and that neither batch nor examples leak."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import Problems
from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.reasoning import ProblemSet, Reasoning
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.reasoning import Reasoning as Planted
from pretrain_exp.items.planned import PlannedItems, PlantedText, planted_items
from pretrain_exp.items.reasoning import Problem, parse_answer
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window

LENGTH = 1536


@pytest.fixture(scope="module")
def solver(tokenizer):
    """Models that read long texts; one that has read the answers, by heart."""
    from transformers import GPT2Config, GPT2LMHeadModel, Olmo2Config, Olmo2ForCausalLM

    def build(kind: str) -> LoadedModel:
        torch.manual_seed(0)
        if kind == "absolute":
            sizes = {"n_positions": LENGTH, "n_embd": 32, "n_layer": 1, "n_head": 2}
            model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=0, **sizes))
        else:
            sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
            config = Olmo2Config(vocab_size=len(tokenizer), max_position_embeddings=LENGTH, eos_token_id=0, **sizes)
            model = Olmo2ForCausalLM(config)
        return LoadedModel(model.eval(), tokenizer)

    return {kind: build(kind) for kind in ("absolute", "rotary")}


@pytest.fixture(scope="module")
def planted(tokenizer, tmp_path_factory) -> PlannedItems:
    def encode(texts):
        return [np.array(ids, dtype=np.uint32) for ids in tokenizer(texts)["input_ids"]]

    phases, window = Phases([Phase(0, 4, LENGTH)]), Window(0, 20)
    context = InsertionContext("reasoning", 0, LENGTH, 0, window, phases, encode, len(tokenizer))
    asked = Planted(problems=9, max_ops=3, test_per_ops=3).edits(context)
    plan = compile_plan([asked], phases, window, 0, "treated", tmp_path_factory.mktemp("plan"))
    return planted_items(str(plan.folder / "items.parquet"))


def by_item(scores):
    found = {}
    for score in scores:
        assert score.metric not in found.setdefault((score.task, score.item), {})
        found[score.task, score.item][score.metric] = score.value
    return found


@pytest.mark.parametrize("kind", ["absolute", "rotary"])
@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_the_whole_way_whatever_the_batch_size(solver, planted, naive, kind, num_fewshot):
    model, runs = solver[kind], []
    for batch_size in (1, 4):
        context = EvalContext(texts=planted.texts)
        evaluation = Reasoning(num_fewshot=num_fewshot, max_new_tokens=20, batch_size=batch_size)
        runs.append(by_item(evaluation.run(model, context)))
    probes = [text for text in planted.texts if text.probe]
    assert {task for task, _ in runs[0]} == {f"reasoning/{k} ops" for k in (1, 2, 3)}
    assert len(runs[0]) == len(probes) == 9
    for key, values in runs[0].items():
        assert runs[1][key] == pytest.approx(values, abs=1e-4)
        assert set(values) == {"acc", "answered", "answer_logprob", "solution_ce", "tokens"}
    problem = Problem.from_payload(probes[-1].payload)
    shots = Reasoning(num_fewshot=num_fewshot)._examples([1, 2, 3])
    values = runs[0][f"reasoning/{problem.operations} ops", problem.id]
    before = model.tokenizer.encode(shots + problem.prompt)
    solution = model.tokenizer.encode(shots + f"{problem.prompt} {problem.solution}")[len(before) :]
    expected = naive(model, [0, *before], solution)
    assert values["solution_ce"] == pytest.approx(-expected / len(solution), abs=1e-4)
    before = model.tokenizer.encode(shots + f"{problem.prompt} {problem.solved}")
    answer = model.tokenizer.encode(shots + problem.text)[len(before) :]
    assert values["answer_logprob"] == pytest.approx(naive(model, [0, *before], answer), abs=1e-4)


def test_a_right_solution_counts_and_a_wrong_one_does_not(solver, planted, monkeypatch):
    """A model that writes what it is told to: the right solution, a wrong answer, none, another question's."""
    from pretrain_exp.eval import generation

    model = solver["rotary"]
    written: dict[int, str] = {}

    def generate(model, prompts, room, stop, batch_size, progress):
        out = []
        for prompt in prompts:
            problem = next(p for p in problems if p.prompt in model.tokenizer.decode(prompt))
            style = problems.index(problem) % 4
            wrong = (problem.answer + 1) % 23
            text = [f" {problem.solved} {problem.answer}", f" {problem.solved} {wrong}", f" {problem.solution}",
                    f" x\n\nQuestion: y\nSolution: z\nAnswer: {problem.answer}"][style]  # fmt: skip
            written[problems.index(problem)] = text
            tokens = model.tokenizer.encode(text)
            assert style > 1 or len(tokens) <= room  # the right solution fits into what is asked for
            out.append(tokens)
        return out

    monkeypatch.setattr(generation, "generate", generate)
    problems = [Problem.from_payload(text.payload) for text in planted.texts if text.probe]
    found = by_item(Reasoning(num_fewshot=1).run(model, EvalContext(texts=planted.texts)))
    assert sorted(written) == list(range(9))
    for i, problem in enumerate(problems):
        values = found[f"reasoning/{problem.operations} ops", problem.id]
        assert (values["acc"], values["answered"]) == [(1, 1), (0, 1), (0, 0), (0, 0)][i % 4]


def test_a_model_that_learns_the_texts_solves_them(tokenizer):
    """Trained on one test problem until it knows it: accuracy 1, its solution certain. Nothing is written in."""
    from transformers import Olmo2Config, Olmo2ForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    network = Olmo2ForCausalLM(
        Olmo2Config(vocab_size=len(tokenizer), max_position_embeddings=LENGTH, eos_token_id=0, **sizes)
    )
    evaluation = Reasoning(generated=ProblemSet(min_ops=1, max_ops=1, per_ops=2, distractors=0), num_fewshot=0)
    texts = [each.problem.text for each in evaluation._asked(())]
    before = by_item(evaluation.run(LoadedModel(network.eval(), tokenizer), EvalContext()))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(80):
        for text in texts:
            tokens = torch.tensor([[0, *tokenizer.encode(text), 0]])
            network(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    context = EvalContext()
    after = by_item(evaluation.run(LoadedModel(network.eval(), tokenizer), context))
    assert [values["acc"] for values in before.values()] == [0, 0]
    assert [values["acc"] for values in after.values()] == [1, 1]
    for key, values in after.items():
        assert values["solution_ce"] < 0.1 < 3 < before[key]["solution_ce"]
        assert values["answer_logprob"] > -1 > -3 > before[key]["answer_logprob"]
    assert context.notes[0].startswith("chance: a guess is right for 1 in 23 (4.3%); always answering")


@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_problems_of_a_file_have_no_known_chance_and_examples_that_are_not_theirs(solver, num_fewshot):
    problem = Problem("a", "1 1?", "It is 2.", 2, 1, "", "test")
    text = PlantedText("mine", "a", np.arange(5, dtype=np.uint32), payload=problem.to_payload(), probe=True)
    context = EvalContext(texts=[text])
    scores = Reasoning(num_fewshot=num_fewshot, max_new_tokens=2).run(solver["rotary"], context)
    assert {(score.task, score.item) for score in scores} == {("mine/1 ops", "a")}
    assert context.notes[0] == "chance: always answering 2 is right for 100.0% of these 1 problems"
    assert [note.endswith("num_fewshot=0 leaves the examples out") for note in context.notes[1:]] == [True] * (
        num_fewshot > 0
    )


def test_examples_are_of_the_training_split_and_go_through_the_operations():
    shots = Reasoning(num_fewshot=5)._examples([2, 3])
    parts = shots.split("\n\n")
    assert len(parts) == 6
    assert parts[-1] == ""
    for part in parts[:-1]:
        answer = parse_answer(part)
        assert answer is not None
        assert re.search(r"(\d+)\.\nAnswer: ", part)[1] == str(answer)
    assert Reasoning(num_fewshot=0)._examples([2]) == ""
    assert shots.startswith(Reasoning(num_fewshot=2)._examples([2, 3]))


def test_what_does_not_fit_is_said(solver, planted, models):
    """As many tokens as the longest problem of one operation has: harder ones are left out, and none can be solved."""
    problems = [Problem.from_payload(text.payload) for text in planted.texts if text.probe]
    easy = [problem for problem in problems if problem.operations == 1]
    model = LoadedModel(solver["rotary"].model, solver["rotary"].tokenizer)
    sizes = {p.id: 1 + len(model.tokenizer.encode(p.text)) for p in problems}
    model.context_length = max(sizes[problem.id] for problem in easy)
    context = EvalContext(texts=planted.texts)
    found = by_item(Reasoning(num_fewshot=0).run(model, context))
    assert {item for _, item in found} == {each for each, size in sizes.items() if size <= model.context_length}
    assert 3 <= len(found) < 9
    assert all(set(values) == {"answer_logprob", "solution_ce", "tokens"} for values in found.values())
    assert "with solution and examples, were not scored" in context.notes[0]
    assert sum(int(n) for n in re.findall(r"(\d+) of \d+ operations", context.notes[0])) == 9 - len(found)
    assert any("they were not solved" in note for note in context.notes)
    nothing = EvalContext(texts=planted.texts)
    assert Reasoning(num_fewshot=9).run(models["absolute"], nothing) == []
    assert len(nothing.notes) == 1


def test_generated_problems_need_no_plan(solver):
    evaluation = Reasoning(generated=ProblemSet(max_ops=2, per_ops=2), num_fewshot=0, max_new_tokens=4)
    context = EvalContext()
    found = by_item(evaluation.run(solver["rotary"], context))
    assert sorted(task for task, _ in found) == ["generated/1 ops"] * 2 + ["generated/2 ops"] * 2
    assert evaluation.fingerprint([]) != replace(evaluation, generated=ProblemSet(max_ops=2, seed=1)).fingerprint([])


def test_fingerprint(planted):
    def key(texts, **fields):
        return json.dumps(Reasoning(**fields).fingerprint(PlannedItems((), texts)), sort_keys=True)

    texts = list(planted.texts)
    fewer = [text for text in texts if text is not next(t for t in texts if t.probe)]
    unlike = {key(texts), key(fewer), key(texts, num_fewshot=0), key(texts, max_new_tokens=5), key([])}
    assert key(texts) == key(texts[::-1]) == key(texts, batch_size=1)
    assert len(unlike) == 5


def test_nothing_to_score_is_said(models):
    context = EvalContext(texts=[PlantedText("t", "i", np.array([1, 2], np.uint32))])
    assert Reasoning().run(models["rotary"], context) == []
    assert context.notes == ["the plan holds no problems: nothing to score"]


def test_the_configuration_names_every_field():
    values = yaml.safe_load((Path(__file__).parents[2] / "conf" / "eval" / "reasoning.yaml").read_text())
    assert check_kind(values, "eval.reasoning") == Reasoning()
    assert set(values) == {"_target_", "generated", "num_fewshot", "max_new_tokens", "batch_size"}
    given = check_kind(values | {"generated": {"max_ops": 2}}, "eval.reasoning")
    assert given.generated == ProblemSet(max_ops=2)
    with pytest.raises(Problems, match="max_op"):
        check_kind(values | {"generated": {"max_op": 2}}, "eval.reasoning")
    with pytest.raises(Problems, match="per_ops"):
        check_kind(values | {"generated": {"per_ops": 0}}, "eval.reasoning")

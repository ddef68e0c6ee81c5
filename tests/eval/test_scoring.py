"""Log-likelihoods against the definition; batches change nothing beyond rounding."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_exp.eval import scoring
from pretrain_exp.eval.scoring import Span, _batches, log_likelihoods

SPANS = [Span(list(range(start, start + length)), scored) for start, length, scored in [
    (1, 2, 1), (5, 30, 3), (9, 96, 95), (1, 30, 29), (5, 30, 1), (200, 7, 2), (5, 12, 4), (5, 12, 11), (7, 60, 20),
]]  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_equal_to_the_definition_for_every_batch_size(model, naive, batch_size):
    expected = [naive(model, list(tokens[:-scored]), list(tokens[-scored:])) for tokens, scored in SPANS]
    scores = log_likelihoods(model.model, SPANS, batch_size)
    assert [score.log_likelihood for score in scores] == pytest.approx(expected, abs=1e-4, rel=1e-6)


def test_the_greedy_continuation_is_known_as_such(model):
    import torch

    tokens = [3, 4, 5]
    for _ in range(4):
        tokens.append(int(model.model(torch.tensor([tokens])).logits[0, -1].argmax()))
    other = tokens[:-1] + [(tokens[-1] + 1) % 800]
    assert [score.greedy for score in log_likelihoods(model.model, [Span(tokens, 4), Span(other, 4)], 2)] == [
        True,
        False,
    ]


def test_options_of_one_token_share_one_forward_pass(model, monkeypatch):
    rows = []
    plain = scoring._logits
    monkeypatch.setattr(
        scoring, "_logits", lambda model, tokens, keep: rows.append(len(tokens)) or plain(model, tokens, keep)
    )
    spans = [Span([1, 2, 3, option], 1) for option in (10, 11, 12, 13)] + [Span([1, 2, 3, 10], 2)]
    scores = log_likelihoods(model.model, spans, 16)
    assert rows == [1]
    assert len({score.log_likelihood for score in scores}) == 5


def test_a_model_without_logits_to_keep_gives_the_same(models, monkeypatch):
    model = models["rotary"].model
    expected = log_likelihoods(model, SPANS, 4)
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda input_ids, use_cache: forward(input_ids, use_cache=use_cache))
    assert log_likelihoods(model, SPANS, 4) == expected


def test_progress_ends_at_the_total(models):
    seen = []
    log_likelihoods(models["rotary"].model, SPANS, 4, lambda done, total: seen.append((done, total)))
    assert seen == [(5, 9), (9, 9)]  # two of the spans have the same input


@pytest.mark.parametrize("span", [Span([1, 2], 0), Span([1, 2], 2), Span([], 1)])
def test_a_span_without_context_or_target_is_refused(models, span):
    with pytest.raises(ValueError, match="span 0: cannot score"):
        log_likelihoods(models["rotary"].model, [span], 4)


@settings(max_examples=60)
@given(
    shape=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=30),
    batch_size=st.integers(1, 8),
    vocabulary=st.sampled_from([1, 2**18, 2**24]),
)
def test_batches_cover_every_row_once_within_the_limits(shape, batch_size, vocabulary):
    shape = sorted(((length, min(kept, length)) for length, kept in shape), reverse=True)
    inputs, kept = [(0,) * length for length, _ in shape], [k for _, k in shape]
    batches = list(_batches(inputs, kept, batch_size, vocabulary))
    assert [row for batch in batches for row in batch] == list(range(len(inputs)))
    for batch in batches:
        window = max(kept[row] + len(inputs[batch[0]]) - len(inputs[row]) for row in batch)
        assert len(batch) == 1 or (len(batch) <= batch_size and window * len(batch) * vocabulary <= scoring.MAX_LOGITS)

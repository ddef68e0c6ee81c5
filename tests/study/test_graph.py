"""The union graph: what is shared, what is trained, and where segments are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.study.graph import Run, build_nodes, build_segments, cut_steps, shared_label, way


def run(label, steps, edits=(), base="b", first=0):
    """A run whose plan has an edit at each of `edits` (steps); the prefix is the tuple of those before a step."""
    return Run(label, base, first, frozenset(steps), lambda step: repr([e for e in sorted(edits) if e < step]), {})


def segments(runs, complete=frozenset(), released=frozenset()):
    nodes = build_nodes(runs)
    return nodes, build_segments(nodes, complete.__contains__, lambda k: k in complete and k not in released)


def spans(segs):
    return sorted((s.start_step, s.stop) for s in segs)


def test_one_run_is_one_segment_that_saves_on_its_way():
    only = run("control", [10, 20, 30])
    nodes, segs = segments([only])
    assert len(segs) == 1
    assert segs[0].start_key is None
    assert [step for step, _ in segs[0].saves] == [10, 20, 30]
    assert way(only, nodes) == [only.key(10), only.key(20), only.key(30)]


def test_arms_share_what_comes_before_the_first_edit():
    cut = cut_steps([12], 0, 30)
    control, treated = run("control", {30}), run("treated", {30} | cut, edits=[12])
    _, segs = segments([control, treated])
    assert spans(segs) == [(0, 12), (12, 30), (12, 30)]
    assert control.key(12) == treated.key(12)
    assert control.key(30) != treated.key(30)


SHARED = {
    "treated seed 0": ["treated seed 0"],
    "control, treated seed 0": ["treated seed 0", "control seed 0"],
    "control r=1 seed 0": ["control r=1 seed 0"],
    "control seed 0 (2 runs)": ["control r=1 seed 0", "control r=4 seed 0"],
    "control, treated seed 1 (3 runs)": ["treated r=1, lr=2 seed 1", "control r=1, lr=2 seed 1", "control r=4 seed 1"],
    "control (2 runs)": ["control seed 0", "control seed 1"],
}


@pytest.mark.parametrize("label", SHARED)
def test_what_runs_share_is_named_by_what_they_have_in_common(label):
    assert shared_label(SHARED[label]) == label


def test_six_members_with_shared_prefixes():
    runs = [run("control", {30})]
    for edit in (10, 20):
        for dose in (1, 2, 3):
            runs.append(run(f"{edit}x{dose}", {30} | cut_steps([edit], 0, 30), edits=[edit] * dose))
    _, segs = segments(runs)
    assert spans(segs) == [(0, 10), (10, 20)] + [(10, 30)] * 3 + [(20, 30)] * 4


def test_a_second_submission_trains_nothing_and_new_checkpoints_start_from_what_is_there():
    first = run("control", {30})
    nodes, _ = segments([first])
    _, again = segments([first], complete=frozenset(nodes))
    assert again == []
    _, more = segments([run("control", {20, 30, 40})], complete=frozenset(nodes))
    assert spans(more) == [(0, 20), (30, 40)]


def test_released_weights_are_trained_again_only_if_something_starts_from_them():
    only = run("control", {10, 20})
    keys = frozenset({only.key(10), only.key(20)})
    assert segments([only], complete=keys, released=keys)[1] == []
    _, longer = segments([run("control", {10, 20, 30})], complete=keys, released=frozenset({only.key(20)}))
    assert spans(longer) == [(10, 30)]


def test_a_longer_run_goes_on_from_the_state_of_another_study():
    """Its own steps do not name the state; that runs of these facts were saved there does."""
    earlier, longer = run("control", {500}), run("control", {1000})
    complete = {earlier.key(500)}
    nodes = build_nodes([longer], complete.__contains__, lambda base: [250, 500, 2000])
    segs = build_segments(nodes, complete.__contains__, complete.__contains__)
    assert spans(segs) == [(500, 1000)]
    assert segs[0].start_key == earlier.key(500)


def test_a_state_of_another_plan_is_not_on_the_way():
    earlier, other = run("treated", {500}, edits=[7]), run("control", {1000})
    complete = {earlier.key(500)}
    nodes = build_nodes([other], complete.__contains__, lambda base: [500])
    assert spans(build_segments(nodes, complete.__contains__, complete.__contains__)) == [(0, 1000)]


def test_released_weights_are_trained_again_where_they_are_to_be_scored():
    only = run("control", {10, 20})
    nodes = build_nodes([only])
    complete, there = {only.key(10), only.key(20)}, {only.key(20)}
    assert build_segments(nodes, complete.__contains__, there.__contains__) == []
    segs = build_segments(nodes, complete.__contains__, there.__contains__, {only.key(10)})
    assert spans(segs) == [(0, 10)]


def test_runs_with_other_facts_share_nothing():
    _, segs = segments([run("a", {10}, base="a"), run("b", {10}, base="b")])
    assert spans(segs) == [(0, 10), (0, 10)]


@given(
    st.lists(
        st.tuples(st.sets(st.integers(1, 9), min_size=1), st.lists(st.integers(0, 9), max_size=3)),
        min_size=1,
        max_size=5,
    ),
    st.sets(st.integers(0, 40)),
)
def test_every_missing_state_is_saved_once_after_its_parent(arms, done_indices):
    runs = [run(str(i), steps, edits) for i, (steps, edits) in enumerate(arms)]
    nodes = build_nodes(runs)
    complete = frozenset(key for i, key in enumerate(sorted(nodes)) if i in done_indices)
    segs = build_segments(nodes, complete.__contains__, complete.__contains__)
    saved = [key for seg in segs for _, key in seg.saves]
    assert len(saved) == len(set(saved))
    assert set(saved) == set(nodes) - complete
    ready = set(complete)
    for seg in segs:
        assert seg.start_key is None or seg.start_key in ready | set(saved)
        steps = [seg.start_step, *(step for step, _ in seg.saves)]
        assert steps == sorted(set(steps))
    for one in runs:
        assert one.key(one.last_step) in nodes
        assert [nodes[k].step for k in way(one, nodes)] == sorted({nodes[k].step for k in way(one, nodes)})

"""A process is told from another that later has its pid, and from one elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pretrain_exp.store.process import describe_process, process_lives


def test_this_process_lives():
    assert process_lives(describe_process()) is True


def test_a_process_that_ended_is_dead_also_before_it_was_waited_for():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    record = describe_process(child.pid)
    assert process_lives(record) is True
    child.stdin.close()
    child.stdout.read()
    while process_lives(record):
        pass
    assert process_lives(record) is False  # a zombie still
    child.wait()
    assert process_lives(record) is False


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"started": 1}, False), ({"host": "elsewhere"}, None), ({"boot": "an earlier one"}, None), ({"boot": ""}, None)],
)
def test_a_pid_counts_only_for_its_own_process(change, expected):
    assert process_lives({**describe_process(), **change}) is expected

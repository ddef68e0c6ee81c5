"""What all tests share: no network, a command line in this process, and small overrides."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator

import pytest
from absl import logging as absl_logging
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, settings

from pretrain_exp.cli import main

# the same examples every time, on a machine that is busy with other things too
settings.register_profile("all tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("all tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", help="folder in which the browser's pictures of the report are kept")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are no name of a test: those of gzip hold the second they were made in, another one in each worker."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True, scope="session")
def _capture_stays_open():
    """Hydra sets logging up anew, which closes absl's handler (of ROUGE-L), which closes the stream it writes to."""
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard():
    """A shell that starts the tests in the background, or by nohup, has them ignore what tests here send themselves."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _no_hub():
    """Nothing here may reach for the hub: what is not on this machine must be an error, not a wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_terminal():
    """What is printed is laid out alike, in whatever terminal the tests are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        for name in ("LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a port of this machine where nobody listens; it is held, so that nobody begins to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Runs a command line from an empty folder; returns its exit status and what it printed (both streams)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        GlobalHydra.instance().clear()
        capfd.readouterr()
        status = main(list(arguments))
        said = capfd.readouterr()
        return status, said.out + said.err

    return run

"""Whether a host takes connections, within the time given."""

from __future__ import annotations

import socket
import threading

import pytest

from pretrain_exp.store import network
from pretrain_exp.store.network import unreachable


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.urllib.request, "getproxies", dict)


def test_a_listener_is_reached_and_its_absence_is_named(nobody: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/path") is None
    assert "does not answer" in str(unreachable(f"{nobody}/path"))


def test_an_unknown_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(network.socket, "create_connection", unknown)
    assert (
        unreachable("https://nowhere.invalid/x") == "the name nowhere.invalid is not known (Name or service not known)"
    )


def test_a_silent_name_server_costs_no_more_than_the_time_given(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def wait(*args: object, **more: object) -> None:
        answered.wait(30)
        raise TimeoutError

    monkeypatch.setattr(network.socket, "create_connection", wait)
    assert unreachable("https://silent.invalid", seconds=0.05) == "silent.invalid:443 did not answer within 0.05 s"
    answered.set()


def test_the_proxy_is_what_must_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxies = {"https": f"127.0.0.1:{server.getsockname()[1]}"}
        monkeypatch.setattr(network.urllib.request, "getproxies", lambda: proxies)
        assert unreachable("https://nowhere.invalid/x") is None

"""The hub, with a stand-in that has HfApi's own signatures: a call that the real one would refuse fails here."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, create_autospec

import httpx
import pytest
from huggingface_hub import HfApi, constants, errors

from pretrain_exp.errors import UserError
from pretrain_exp.store.hub import check_push, push_folder, resolve_revision

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[MagicMock]:
    """An HfApi whose endpoint takes connections."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = create_autospec(HfApi, instance=True, endpoint=f"http://127.0.0.1:{server.getsockname()[1]}")
        found.whoami.return_value = {"name": "me"}
        found.repo_info.return_value = SimpleNamespace(private=True)
        found.upload_folder.return_value = SimpleNamespace(oid=COMMIT)
        found.model_info.return_value = SimpleNamespace(sha=COMMIT)
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "step100"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def http_error(kind: type[errors.HfHubHTTPError], status: int, message: str = "no") -> errors.HfHubHTTPError:
    return kind(message, response=httpx.Response(status, request=httpx.Request("GET", "http://hub/x")))


def calls(api: MagicMock) -> list[str]:
    return [name for name, _, _ in api.method_calls]


def test_the_stand_in_refuses_what_the_real_one_would(api: MagicMock) -> None:
    with pytest.raises(TypeError):
        api.upload_folder(folder="/x")
    assert {"repo_id", "folder_path", "revision"} <= set(inspect.signature(HfApi.upload_folder).parameters)


def test_a_push_makes_repository_and_branch_first(api: MagicMock, folder: Path) -> None:
    assert push_folder(folder, "me/model", "treated-step100", api=api) == COMMIT
    assert calls(api) == ["whoami", "create_repo", "repo_info", "create_branch", "upload_folder"]
    api.create_repo.assert_called_once_with("me/model", private=True, repo_type="model", exist_ok=True)
    api.create_branch.assert_called_once_with("me/model", branch="treated-step100", repo_type="model", exist_ok=True)
    sent = api.upload_folder.call_args.kwargs
    assert (sent["folder_path"], sent["revision"]) == (folder, "treated-step100")


def test_a_push_to_main_makes_no_branch_and_a_public_one_asks_nothing_about_privacy(
    api: MagicMock, folder: Path
) -> None:
    push_folder(folder, "me/model", private=False, api=api)
    assert calls(api) == ["whoami", "create_repo", "upload_folder"]
    assert api.upload_folder.call_args.kwargs["revision"] is None


def test_private_weights_are_not_sent_to_a_public_repository(api: MagicMock, folder: Path) -> None:
    api.repo_info.return_value = SimpleNamespace(private=False)
    with pytest.raises(UserError, match="public"):
        push_folder(folder, "me/model", api=api)
    api.upload_folder.assert_not_called()


def test_an_empty_folder_is_not_pushed(api: MagicMock, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to push"):
        push_folder(tmp_path, "me/model", api=api)
    assert calls(api) == []


PUSH_FAILURES: dict[str, tuple[Any, str]] = {
    "no token": (errors.LocalTokenNotFoundError(), "hf auth login"),
    "a token that is refused": (http_error(errors.HfHubHTTPError, 401, "Invalid user token"), "Invalid user token"),
    "a connection that breaks": (httpx.ConnectError("broken"), "broken"),
}


@pytest.mark.parametrize(("error", "message"), PUSH_FAILURES.values(), ids=PUSH_FAILURES)
def test_without_access_nothing_is_begun(api: MagicMock, folder: Path, error: Exception, message: str) -> None:
    api.whoami.side_effect = error
    with pytest.raises(UserError, match=message):
        push_folder(folder, "me/model", api=api)
    assert calls(api) == ["whoami"]


def test_a_refused_upload_says_so(api: MagicMock, folder: Path) -> None:
    api.upload_folder.side_effect = http_error(errors.HfHubHTTPError, 403, "Forbidden: read-only token")
    with pytest.raises(UserError, match="cannot push to me/model: Forbidden"):
        push_folder(folder, "me/model", api=api)


@pytest.mark.parametrize("name", ["a/b/c", "me/mo del", ""])
def test_a_name_the_hub_would_refuse_is_refused_here(api: MagicMock, name: str) -> None:
    with pytest.raises(UserError, match="account/name"):
        check_push(name, api=api)


def test_check_push_names_the_account(api: MagicMock) -> None:
    assert check_push("me/model", api=api) == "me"


@pytest.mark.parametrize("how", ["offline mode", "no network"])
def test_without_a_network_a_push_is_refused_at_once(
    api: MagicMock, monkeypatch: pytest.MonkeyPatch, nobody: str, how: str
) -> None:
    go_offline(api, monkeypatch, nobody, how)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE" if how == "offline mode" else "does not answer"):
        check_push("me/model", api=api)
    assert calls(api) == []


def go_offline(api: MagicMock, monkeypatch: pytest.MonkeyPatch, nobody: str, how: str) -> None:
    if how == "offline mode":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        api.endpoint = nobody


def cached(cache: Path, name: str, revision: str) -> Path:
    """A model as the hub's own cache keeps it."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs" / revision).parent.mkdir(parents=True)
    (root / "refs" / revision).write_text(COMMIT)
    (root / "snapshots" / COMMIT).mkdir(parents=True)
    (root / "snapshots" / COMMIT / "config.json").write_text("{}")
    return root / "snapshots" / COMMIT


def test_a_revision_is_resolved_on_the_hub(api: MagicMock) -> None:
    assert resolve_revision("me/model", "v1", api=api) == COMMIT
    api.model_info.assert_called_once_with("me/model", revision="v1")


def test_a_commit_is_itself_and_asks_nobody(api: MagicMock) -> None:
    assert resolve_revision("me/model", "f" * 40, api=api) == "f" * 40
    assert calls(api) == []


@pytest.mark.parametrize("revision", [None, "stage1-step1000", "refs/pr/1"])
@pytest.mark.parametrize("how", ["offline mode", "no network"])
def test_without_a_network_the_cache_resolves(
    api: MagicMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: str, revision: str | None, how: str
) -> None:
    go_offline(api, monkeypatch, nobody, how)
    cached(tmp_path, "me/model", revision or "main")
    assert resolve_revision("me/model", revision, cache=tmp_path, api=api) == COMMIT
    with pytest.raises(UserError, match="hf download me/model --revision other"):
        resolve_revision("me/model", "other", cache=tmp_path, api=api)
    assert calls(api) == []


LOOKUP_FAILURES: dict[str, tuple[Any, str]] = {
    "no such revision": (http_error(errors.RevisionNotFoundError, 404), "no such branch"),
    "no such repository": (http_error(errors.RepositoryNotFoundError, 404), "no such repository"),
    "terms": (http_error(errors.GatedRepoError, 403), "accepted"),
}


@pytest.mark.parametrize(("error", "message"), LOOKUP_FAILURES.values(), ids=LOOKUP_FAILURES)
def test_what_the_hub_lacks_is_said(api: MagicMock, error: Exception, message: str) -> None:
    api.model_info.side_effect = error
    with pytest.raises(UserError, match=message) as caught:
        resolve_revision("me/model", "v9", api=api)
    assert "v9 of me/model" in str(caught.value)

"""The Hugging Face hub: push a checkpoint's folder, resolve a revision to its commit.

Nothing here is called unless the configuration names a repository. Each function asks for network and token first, and
says in a UserError what is missing. `api` is a huggingface_hub.HfApi; by default one with the token of the login.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_exp.errors import UserError
from pretrain_exp.store.network import unreachable

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def check_push(repo_id: str, *, api: HfApi | None = None) -> str:
    """Whether a push could start: a valid name, a network, a token that is accepted. Returns the account's name.

    Takes seconds: ask it before training. Raises UserError.
    """
    from huggingface_hub.utils import validate_repo_id

    api = api or _api()
    with _said(f"cannot push to {repo_id}"):
        validate_repo_id(repo_id)
        problem = _offline(api)
        if problem:
            fix = "push from a machine with a network, or set hub.repo_id=null"
            raise UserError(f"cannot push: {problem}", value=repo_id, fix=fix)
        return str(api.whoami()["name"])


def push_folder(
    folder: Path,
    repo_id: str,
    revision: str | None = None,
    *,
    private: bool = True,
    message: str | None = None,
    api: HfApi | None = None,
) -> str:
    """Uploads a folder as one commit of a model repository; returns the hash of the commit.

    The repository and the branch `revision` (None: main) are made where they do not exist. Files the hub has already
    are not sent again, so a push that broke off goes on when it is repeated. Raises UserError, also where `private` is
    asked and the repository that is there is public.
    """
    files = sum(path.is_file() for path in folder.rglob("*"))
    if not files:
        raise UserError("holds nothing to push", value=str(folder), fix="give the folder of a checkpoint")
    api = api or _api()
    check_push(repo_id, api=api)
    with _said(f"cannot push to {repo_id}"):
        api.create_repo(repo_id, private=private, repo_type="model", exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type="model").private:
            fix = "make it private on the hub, name another, or set hub.private=false"
            raise UserError("is a public repository, and private was asked", key="hub.repo_id", value=repo_id, fix=fix)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type="model", exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            repo_type="model",
            revision=revision,
            commit_message=message or f"Add {folder.name}",
        )
        return str(commit.oid)


def resolve_revision(
    name: str, revision: str | None = None, *, cache: Path | None = None, api: HfApi | None = None
) -> str:
    """The commit [40 hex digits] that a branch or tag (None: main) of a model stands for now.

    Without a network, the commit the local cache holds for it. Raises UserError where neither is to be had.
    """
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    api = api or _api()
    problem = _offline(api)
    if problem:
        commit = _cached_commit(name, revision or "main", cache)
        if commit is None:
            raise _not_here(name, revision, problem)
        return commit
    with _said(f"cannot look up revision {revision or 'main'} of {name}"):
        return str(api.model_info(name, revision=revision).sha)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


def _offline(api: HfApi) -> str | None:
    """Why the hub cannot be asked, or None."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return unreachable(api.endpoint)


def _cached_commit(name: str, revision: str, cache: Path | None) -> str | None:
    """What the cache's refs/<revision> says; the layout is documented by huggingface_hub."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    root = cache or Path(constants.HF_HUB_CACHE)
    path = root / repo_folder_name(repo_id=name, repo_type="model") / "refs" / revision
    return path.read_text().strip() if path.is_file() else None


def _not_here(name: str, revision: str | None, problem: str) -> UserError:
    at = f" --revision {revision}" if revision else ""
    return UserError(
        f"is not in the local cache, and the hub cannot be asked: {problem}",
        value=name,
        fix=f"where there is a network: hf download {name}{at}; or give a local folder",
    )


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turns the hub's own errors into a UserError that begins with `what`."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise UserError(f"{what}: no token", fix="log in with `hf auth login`, or set HF_TOKEN") from None
    except errors.HFValidationError as error:
        raise UserError(f"{what}: {error}", fix="name it as account/name") from None
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{what}: no such branch, tag or commit", fix=_first_line(error)) from None
    except errors.GatedRepoError:
        raise UserError(f"{what}: its terms must be accepted", fix="accept them on its page, then log in") from None
    except errors.RepositoryNotFoundError:
        fix = "check the name; for a private one, log in with `hf auth login`"
        raise UserError(f"{what}: no such repository, or no access to it", fix=fix) from None
    except httpx.HTTPError as error:  # all other answers and failures of the connection
        raise UserError(f"{what}: {_first_line(error)}", fix="check the token's rights and the network") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

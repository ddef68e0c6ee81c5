"""Which code ran: the commit, and what was changed since, named and kept."""

from __future__ import annotations

import os
import subprocess

import pytest

from pretrain_exp import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a package and one commit; `provenance` speaks of it, whatever git is told on this machine."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    code = tmp_path / "repository" / "package"
    code.mkdir(parents=True)
    (code / "a.py").write_text("A = 1\n")
    (code.parent / ".gitignore").write_text("*.log\n")
    git = ["git", "-C", str(code.parent), "-c", "user.name=n", "-c", "user.email=e@e"]
    for each in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *each], check=True)
    monkeypatch.setattr(provenance, "_CODE", code)
    provenance.found.cache_clear()
    yield code
    provenance.found.cache_clear()


def name() -> str | None:
    provenance.found.cache_clear()
    return provenance.code_commit()


def patch(folder) -> str:
    """What is kept of the code as it stands."""
    before = set(folder.glob("code-*.patch"))
    commit = name()
    provenance.write_patch(folder)
    (kept,) = {*folder.glob("code-*.patch")} - before or [None]
    assert kept is None or kept.stem.removeprefix("code-") == commit.rpartition("+")[2]
    return kept.read_text() if kept else ""


CHANGES = {
    "a line": lambda code: (code / "a.py").write_text("A = 2\n"),
    "another line": lambda code: (code / "a.py").write_text("A = 3\n"),
    "a new file": lambda code: (code / "b.py").write_text("B = 1\n"),
    "the new file, otherwise": lambda code: (code / "b.py").write_text("B = 2\n"),
    "a file less": lambda code: (code / "a.py").unlink(),
}


def test_each_change_of_the_code_is_a_name_of_its_own(checkout, tmp_path):
    names = [name()]
    assert "+" not in names[0]
    assert patch(tmp_path) == ""
    for change in CHANGES.values():
        change(checkout)
        names.append(name())
        assert names[-1].startswith(f"{names[0]}+")
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("change", "line"), [("a line", "+A = 2"), ("a new file", "+B = 1"), ("a file less", "-A = 1")]
)
def test_the_patch_makes_the_code_that_ran(checkout, tmp_path, change, line):
    CHANGES[change](checkout)
    assert line in patch(tmp_path).splitlines()


def test_a_patch_applies(checkout, tmp_path):
    CHANGES["a new file"](checkout)
    CHANGES["a line"](checkout)
    before = name()
    for setting in (("diff.noprefix", "true"), ("color.ui", "always"), ("diff.context", "0")):
        subprocess.run(["git", "-C", str(checkout.parent), "config", *setting], check=True)
    assert name() == before, "whoever asks"
    patch(tmp_path)
    (kept,) = tmp_path.glob("code-*.patch")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(checkout.parent), str(clone)], check=True)
    subprocess.run(["git", "-C", str(clone), "apply", str(kept)], check=True)
    assert {path.name: path.read_text() for path in (clone / "package").iterdir()} == {
        "a.py": "A = 2\n",
        "b.py": "B = 1\n",
    }


def test_what_was_found_first_is_what_is_kept_beside_other_patches(checkout, tmp_path):
    CHANGES["a line"](checkout)
    before = patch(tmp_path)
    first = name()
    CHANGES["another line"](checkout)
    assert provenance.code_commit() == first
    assert "+A = 3" in patch(tmp_path).splitlines()
    assert sorted(path.read_text() for path in tmp_path.glob("code-*.patch")).count(before) == 1
    assert len(list(tmp_path.glob("code-*.patch"))) == 2


@pytest.mark.parametrize("elsewhere", ["notes.txt", "package/run.log"])
def test_what_is_no_code_changes_no_name(checkout, elsewhere):
    before = name()
    (checkout.parent / elsewhere).write_text("x")
    assert name() == before


def test_a_state_names_the_code_of_the_process_that_made_it():
    planned = {"step": 4, "numerics": {"torch": "2.13", "code": "planned"}}
    assert provenance.with_code(planned, "ran") == {"step": 4, "numerics": {"torch": "2.13", "code": "ran"}}
    assert planned["numerics"]["code"] == "planned"
    assert provenance.with_code(planned, None) == planned


def test_outside_of_a_checkout_it_is_the_version(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_CODE", tmp_path / "package")
    assert name() is None
    assert provenance.code_version() == provenance.version("pretrain-exp")
    provenance.found.cache_clear()

"""Lists of official token files: OLMo-2's configurations, manifests, the mixes of an installed package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pretrain_exp import paths
from pretrain_exp.data.official_list import Entry, entries
from pretrain_exp.errors import UserError

OLMO2 = """
run_name: x
data:
  seed: ${seed}
  paths:
    # Pes2o
    - http://olmo-data.org/p/allenai/dolma2-tokenizer/part-00.npy
    - https://olmo-data.org/p/part-01.npy
    - s3://ai2-llm/p/part-02.npy
    - https://other.org/q/0.npy
"""


BASE = "http://olmo-data.org"
LISTS = {
    "OLMo-2's YAML": (
        "x.yaml",
        OLMO2,
        [
            Entry("p/allenai/dolma2-tokenizer/part-00.npy", f"{BASE}/p/allenai/dolma2-tokenizer/part-00.npy"),
            Entry("p/part-01.npy", "https://olmo-data.org/p/part-01.npy"),
            Entry("p/part-02.npy", f"{BASE}/p/part-02.npy"),
            Entry("other.org/q/0.npy", "https://other.org/q/0.npy"),
        ],
    ),
    "OLMo-2's YAML, by label": (
        "x.yml",
        "data: {datasets: {b: [b/0.npy], a: [a/0.npy, a/1.npy]}}",
        [Entry(name, f"{BASE}/{name}") for name in ("a/0.npy", "a/1.npy", "b/0.npy")],
    ),
    "a manifest": (
        "m.txt",
        "# web\nweb,p/{TOKENIZER}/0 1.npy\n",
        [Entry("p/allenai/dolma2-tokenizer/0 1.npy", f"{BASE}/p/allenai/dolma2-tokenizer/0%201.npy")],
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str, tmp_path: Path) -> None:
    file, text, expected = LISTS[name]
    (tmp_path / file).write_text(text)
    assert entries(str(tmp_path / file), f"{BASE}/", None, None) == expected


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("x.yaml", "data: {seed: 1}", r"has no data\.paths"),
        ("x.yaml", "data: [", "cannot be read"),
        ("x.txt", "# nothing\n", "names no token files"),
        ("x.txt", "/data/0.npy\n", "below base_url"),
        ("x.txt", "../0.npy\n", "below base_url"),
        ("x.txt", None, "cannot be read"),
    ],
)
def test_wrong_lists(file: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        entries(str(tmp_path / file), BASE, None, None)


def test_mixes_of_an_installed_olmo_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in another Python's environment, and by its real names where one is at hand."""
    package = tmp_path / "site/olmo_core"
    (package / "data/mixes").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    (package / "data/mixes/OLMo-mix-0625-official.txt").write_text("web,p/{TOKENIZER}/0.npy\n")
    (package / "data/mixes/OLMo-mix-0625.txt").write_text("web,p/{TOKENIZER}/0.npy\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "site"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = {
        mix: entries(mix, BASE, None, str(python))[0].name for mix in ("OLMo-mix-0625-official", "dolma3-0625-6T-mix")
    }
    assert found == {
        "OLMo-mix-0625-official": "p/allenai/dolma3-tokenizer/0.npy",
        "dolma3-0625-6T-mix": "p/allenai/dolma2-tokenizer/0.npy",
    }
    with pytest.raises(UserError, match=r"no such file, and ai2-olmo-core has no mix(.|\n)*did you mean OLMo-mix-0625"):
        entries("OLMo-mix-0626", BASE, None, str(python))
    environment = tmp_path / "checkout/.venv-olmo3/bin"  # of `make env-olmo3`, found from any folder
    environment.mkdir(parents=True)
    python.rename(environment / "python")
    monkeypatch.setattr(paths, "conf_dir", lambda: tmp_path / "checkout/conf")
    monkeypatch.chdir(tmp_path)
    assert entries("OLMo-mix-0625", BASE, None, None)[0].name == "p/allenai/dolma2-tokenizer/0.npy"

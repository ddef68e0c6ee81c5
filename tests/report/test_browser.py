"""A browser opens every kind of page at two widths: no console error, nothing wider than the window, a screenshot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from browser import opened, screenshot
from outcome_studies import canaries, dependence
from studies import simulated_study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.compare import Compared, write_comparison
from pretrain_exp.report.write import write_report

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the chromium browser")
WIDTHS = (1280, 500)
LOOP = [
    {"member": "", "seed": 0, "insertion": "loop", "step": step, "target": step / 100, "achieved": step / 120,
     "texts": texts, "copies": texts, "tokens": texts, "plan": "p", "state": "s"}
    for step, texts in ((0, 4), (50, 8), (100, None))
]  # fmt: skip
STUDIES: dict[str, Callable[[], StudyData]] = {
    "default": lambda: simulated_study(items=100, curve_steps=40),
    "sweep": lambda: simulated_study(
        items=60, curve_steps=20, seeds=(0,), sweep="condition", doses=(0, 1, 16),
        members=tuple(f"insertion.benchmark_contamination.window=[{i}00, {i + 1}00]" for i in range(2)),
    ),
    "canaries": lambda: canaries(seeds=(0,), a_cell=15, doses=(0, 1, 16)),
    "dependence": dependence,
    "loop": lambda: replace(simulated_study(seeds=(0,), items=20, curve_steps=0), control=LOOP),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: --screenshots DIR."""
    given = pytestconfig.getoption("--screenshots")
    found = Path(given).absolute() if given else tmp_path_factory.mktemp("screenshots")
    found.mkdir(parents=True, exist_ok=True)
    return found


def looked_at(html: str, name: str, folder: Path, tmp_path: Path) -> None:
    for width in WIDTHS:
        seen = opened(html, tmp_path, width)
        assert seen.console == []
        assert seen.window == width
        assert seen.width <= width, f"{name} is {seen.width} px wide in a window of {width}"
        picture = folder / f"{name}-{width}.png"
        screenshot(html, picture, tmp_path, width, seen.height)
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", STUDIES)
def test_a_report(name: str, folder: Path, tmp_path: Path) -> None:
    study = STUDIES[name]()
    page = write_report(study, tmp_path / "report", analyse(study, resamples=20)).html.read_text()
    looked_at(page, name, folder, tmp_path)


def test_a_comparison(folder: Path, tmp_path: Path) -> None:
    studies = [simulated_study(items=60, curve_steps=0, effect=effect) for effect in (1.0, 0.3)]
    compared = [
        Compared(f"study {i}", study, analyse(study, resamples=0), [{"training": {"optimizer": {"lr": 10.0**-i}}}])
        for i, study in enumerate(studies)
    ]
    looked_at(write_comparison(compared, tmp_path / "comparison").read_text(), "comparison", folder, tmp_path)


def test_a_click_on_a_heading_sorts(tmp_path: Path) -> None:
    study = simulated_study(items=60, curve_steps=0)
    html = write_report(study, tmp_path / "report", analyse(study, resamples=0)).html.read_text()
    seen = opened(html, tmp_path, script="document.querySelectorAll('#effects th button')[4].click()")
    assert seen.console == []
    sorted_head = re.search(r'<th [^>]*aria-sort="ascending".*?</table>', seen.dom, re.DOTALL)
    assert sorted_head is not None
    estimates = [float(row.split('data-sort="')[5].split('"')[0]) for row in sorted_head[0].split("<tr>")[1:]]
    assert len(estimates) == 5
    assert estimates == sorted(estimates)


def test_an_error_in_a_script_would_be_seen(tmp_path: Path) -> None:
    seen = opened("<html><body></body></html>", tmp_path, script="nothing.there()")
    assert any("nothing is not defined" in line for line in seen.console)

"""Headless Chromium for the tests: a page in; its DOM after scripts, what its console said, and screenshots out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr", "--virtual-time-budget=2000",
]  # fmt: skip
MEASURE = (
    "<script>addEventListener('load', () => { const d = document.documentElement; "
    "d.dataset.size = [innerWidth, d.scrollWidth, d.scrollHeight].join(' '); });</script></body>"
)


class Opened(NamedTuple):
    dom: str
    console: list[str]  # lines that the page's scripts and the browser logged
    window: int  # inner width [px]
    width: int  # of the content
    height: int


def opened(html: str, folder: Path, width: int = 1280, script: str = "") -> Opened:
    """The page in a window of this width, after `script` ran. Chromium's smallest window is 500 px wide."""
    page = folder / "page.html"
    page.write_text(html.replace("</body>", f"<script>{script}</script>{MEASURE}"), encoding="utf-8")
    done = _run(["--dump-dom", f"--window-size={width},900", page.as_uri()], folder)
    size = re.search(r'data-size="(\d+) (\d+) (\d+)"', done.stdout)
    assert size is not None, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Opened(done.stdout, console, *(int(number) for number in size.groups()))


def screenshot(html: str, picture: Path, folder: Path, width: int, height: int) -> None:
    """Writes a PNG of the whole page."""
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    _run([f"--screenshot={picture}", f"--window-size={width},{min(height, 15_000)}", page.as_uri()], folder)


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["chromium", *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)

"""`pretrain-exp report A B ...`: studies whose reports stand, held against each other on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pretrain_exp.report.compare import Compared, write_comparison
from pretrain_exp.study.registry import read_members, read_study
from pretrain_exp.study.results import Reported


def compare_studies(reports: Sequence[Reported], target: Path) -> Path:
    """Writes the comparison and returns the path of its page."""
    names = distinct_names([(one.study.title, one.folder) for one in reports])
    compared = [
        Compared(name, one.study, one.analysis, [member["config"] for member in read_members(read_study(one.folder))])
        for name, one in zip(names, reports, strict=True)
    ]
    return write_comparison(compared, target)


def distinct_names(studies: Sequence[tuple[str, Path]]) -> list[str]:
    """The titles; where two are the same, with as much of the end of their folders as tells them apart."""
    titles = Counter(title for title, _ in studies)
    names = []
    for title, folder in studies:
        alike = [other.absolute().parts for name, other in studies if name == title and other != folder]
        parts = folder.absolute().parts
        enough = next((n for n in range(1, len(parts)) if all(p[-n:] != parts[-n:] for p in alike)), len(parts))
        names.append(title if titles[title] == 1 else f"{title} ({'/'.join(parts[-enough:])})")
    return names

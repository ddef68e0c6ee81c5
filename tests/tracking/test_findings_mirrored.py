"""What a report found reaches W&B and TensorBoard from a study's files alone, under names that stay."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imsave
from test_tensorboard_sink import values
from test_wandb_sink import no_account  # noqa: F401 - its fixture keeps accounts out

from pretrain_exp.errors import UserError
from pretrain_exp.study import registry
from pretrain_exp.study.mirror import mirror_study
from pretrain_exp.study.registry import write_member, write_study
from pretrain_exp.tracking.wandb_sink import WandbSink
from pretrain_exp.verbs import read_verb

pytest.importorskip("wandb")
NUMBERS = {
    "finding/membership/canaries/min_k/all/dose4/treated/auc": 0.71,
    "finding/forgetting/canaries/verbatim/canaries/exact/dose4/exponential/half_life": 2e5,
    "finding/dependence/canaries/canaries": 1.5,
}
ARM = {"last": "nothing", "states": {}, "evaluations": {}, "plan": None}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of two arms that left nothing but its records and its report."""
    monkeypatch.setattr(registry, "LAST", tmp_path / "last.json")
    folder = tmp_path / "study"
    member = {
        "config": {"tracking": {"wandb": {"enabled": True}, "tensorboard": {"enabled": True}}},
        "arms": {"treated": ARM, "control": {**ARM, "last": "control"}},
        "label": "", "seed": 0, "last_step": 50, "plan": None,
    }  # fmt: skip
    write_member(folder / "m", member)
    write_study(folder, {"title": "t", "store": str(tmp_path / "store"), "members": [str(folder / "m")]})
    report = folder / "report"
    (report / "figures").mkdir(parents=True)
    (report / "tables").mkdir()
    (report / "tracked.json").write_text(json.dumps(NUMBERS))
    (report / "effects.csv").write_text("name,estimate\na,0.5\nb,\n")
    (report / "tables" / "membership.csv").write_text("metric,estimate\nmin_k,0.71\n")
    imsave(report / "figures" / "membership.png", [[0.0, 1.0], [1.0, 0.0]])
    return folder


def test_numbers_tables_and_pictures_of_a_report_are_mirrored_once(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    close = WandbSink.close

    def watched(sink: WandbSink) -> None:
        seen[sink.run.name] = dict(sink.run.summary)
        close(sink)

    monkeypatch.setattr(WandbSink, "close", watched)
    assert mirror_study(study) == 2 * (1 + 3), "one line of numbers, two tables, one picture, to both"
    (summary,) = seen.values()
    assert {name: summary[name] for name in NUMBERS} == NUMBERS
    assert summary["finding/step"] == 50
    assert (summary["table/effects"]["nrows"], summary["table/membership"]["nrows"]) == (2, 1)
    assert "picture/membership" in summary
    folders = [path for path in (study.parent / "store" / "mirrors").iterdir() if (path / "tensorboard").is_dir()]
    (tags,) = ({(tag, step) for tag, step, _, _ in values(folder / "tensorboard")} for folder in folders)
    assert {(name, 50) for name in NUMBERS} <= tags
    assert any(re.fullmatch(r"table/effects.*", tag) for tag, _ in tags)
    assert any(tag.startswith("picture/membership") for tag, _ in tags)
    assert mirror_study(study) == 0


def test_only_the_treated_run_has_what_the_study_found(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    begin = WandbSink.open
    monkeypatch.setattr(WandbSink, "open", lambda sink, start: (opened.append(start.name), begin(sink, start))[1])
    mirror_study(study)
    assert opened == ["t treated seed 0"]


def test_sync_says_what_it_did_and_goes_where_it_is_told(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((study / "m" / "member.json").read_text())
    off = {"wandb": {"enabled": False}, "tensorboard": {"enabled": False}}
    write_member(study / "m", {**record, "config": {"tracking": off}})
    for words, says in (
        ([], "tracking=none: nothing is mirrored; tracking=tensorboard, offline or wandb names where to"),
        (["tracking=tensorboard"], "mirrored 4 lines to tensorboard"),
        (["tracking=tensorboard"], "nothing new to mirror"),
    ):
        assert read_verb("sync", [str(study), *words]) == 0
        said = capsys.readouterr()
        assert says in said.out + said.err, words
    for words, says in ((["tracking=tb"], "choices: none, offline, tensorboard, wandb"), (["x"], "takes a study")):
        with pytest.raises(UserError, match=re.escape(says)):
            read_verb("sync", [str(study), *words])

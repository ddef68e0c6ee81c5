"""A user's own program: its arguments arrive as given, its numbers are scores, its failure is a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.script import Script

MODEL: Any = LoadedModel(None, None, "/models/with space")  # type: ignore[arg-type]


def program(folder: Path, body: str) -> str:
    path = folder / "my own.py"
    path.write_text("import json, sys\nfile = sys.argv[sys.argv.index('--results-yaml') + 1]\n" + body)
    return str(path)


def test_arguments_arrive_as_given(tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    script = program(tmp_path, "json.dump(sys.argv[1:], open(sys.argv[-1], 'w'))\nopen(file, 'w').write('ok: 1')\n")
    args = {"trigger": 'Repeat "the" above; $HOME', "flag": True, "off": False, "none": None, "many": [1, "b c"]}
    found = Script(script=script, args={**args, "seen": str(seen)}).run(MODEL, EvalContext())
    assert found == [Score("my own", "all", "ok", 1.0)]
    argv = json.loads(seen.read_text())
    assert argv[:2] == ["--model", "/models/with space"]
    assert argv[4:] == [
        "--trigger", 'Repeat "the" above; $HOME', "--flag", "--many", "1", "b c", "--seen", str(seen),
    ]  # fmt: skip


def test_a_table_of_items_is_read(tmp_path: Path) -> None:
    body = (
        "import pyarrow as pa, pyarrow.parquet as pq, os\n"
        "table = pa.table({'item': ['a', 'b'], 'metric': ['acc', 'acc'], 'value': [1, 0]})\n"
        "pq.write_table(table, os.path.join(os.path.dirname(file), 'items.parquet'))\n"
    )
    found = Script(script=program(tmp_path, body)).run(MODEL, EvalContext())
    assert found == [Score("my own", "a", "acc", 1.0), Score("my own", "b", "acc", 0.0)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('out of luck'); sys.exit(3)\n", "exit status 3:\nout of luck"),
        ("", "wrote no results"),
        ("open(file, 'w').write('- 1')\n", "flat mapping"),
        ("open(file, 'w').write('a: {b: 1}')\n", "finite numbers"),
        ("open(file, 'w').write('a: .nan')\n", "finite numbers"),
        ("open(file, 'w').write('a: true')\n", "finite numbers"),
        ("open(file, 'w').write('a: [')\n", "no YAML"),
    ],
)
def test_its_failure_is_a_failure(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Script(script=program(tmp_path, body)).run(MODEL, EvalContext())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{'item': ['a', None], 'metric': ['m', 'm'], 'value': [1.0, 0.0]}", "1 rows without item"),
        ("{'item': ['a'], 'metric': ['m'], 'value': ['high']}", "must be numbers"),
        ("{'item': ['a'], 'value': [1.0]}", "no column metric"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, table: str, said: str) -> None:
    body = (
        "import pyarrow as pa, pyarrow.parquet as pq, os\n"
        f"pq.write_table(pa.table({table}), os.path.join(os.path.dirname(file), 'items.parquet'))\n"
    )
    with pytest.raises(UserError, match=said):
        Script(script=program(tmp_path, body)).run(MODEL, EvalContext())


def test_a_hub_name_is_given_as_the_folder_of_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program would load the newest revision of a name, which is not what is evaluated."""
    asked: list[Any] = []

    def snapshot(name: str, **fields: Any) -> str:
        asked.append((name, fields))
        return "/cache/of/that"

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    script = program(tmp_path, "open(file, 'w').write('right: %d' % (sys.argv[2] == '/cache/of/that'))\n")
    found = Script(script=script).run(LoadedModel(None, None, "a/b", "c1"), EvalContext())  # type: ignore[arg-type]
    assert found == [Score("my own", "all", "right", 1.0)]
    assert asked == [("a/b", {"revision": "c1", "local_files_only": True})]


@pytest.mark.parametrize(
    ("args", "key"),
    [
        ({"model": "x"}, "args.model"),
        ({"a": {"b": 1}}, "args.a"),
        ({"a": [1, None]}, "args.a"),
        ({"a": [True]}, "args.a"),
    ],
)
def test_wrong_arguments_are_refused(args: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError) as caught:
        Script(script="x.py", args=args)
    assert caught.value.key == key


@pytest.mark.parametrize("name", ["no python", "no-such-program"])
def test_an_interpreter_that_is_not_there(tmp_path: Path, name: str) -> None:
    """It is looked for before anything is trained, and again where the script runs."""
    interpreter = str(tmp_path / name) if " " in name else name
    script = Script(script=program(tmp_path, ""), interpreter=interpreter)
    with pytest.raises(UserError, match="no such program") as error:
        script.inputs()
    assert (error.value.key, error.value.value) == ("interpreter", interpreter)
    with pytest.raises(UserError, match="cannot be started"):
        script.run(MODEL, EvalContext())


def test_an_interpreter_on_the_path(tmp_path: Path) -> None:
    script = program(tmp_path, "")
    assert Script(script=script, interpreter="sh").inputs() == [("script", script)]


def test_the_fingerprint_is_of_the_programs_text(tmp_path: Path) -> None:
    before = Script(script=program(tmp_path, "")).fingerprint(())
    assert before == Script(script=program(tmp_path, "")).fingerprint(())
    assert before != Script(script=program(tmp_path, "pass\n")).fingerprint(())
    other = Path(program(tmp_path, "")).rename(tmp_path / "other.py")
    assert before != Script(script=str(other)).fingerprint(())  # its task is another
    assert before != Script(script=program(tmp_path, ""), interpreter="/usr/bin/python3").fingerprint(())

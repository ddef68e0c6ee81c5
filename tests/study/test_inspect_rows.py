"""`inspect` on every order kind and every kind of edit: documents, text, colours, and who put what there."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pretrain_exp.data.olmo_order import OlmoCoreOrder, OlmoOrder
from pretrain_exp.data.order import DataOrder, ShuffledOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.data.tokenizer import EOS
from pretrain_exp.data.window_order import WindowOrder
from pretrain_exp.errors import UserError
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Hook, Window
from pretrain_exp.study.inspect import COLOURS, print_rows

S, BATCH, WORDS = 12, 4, 500  # documents of 20 tokens: w0 ... w18 and the end of a document
PHASES, WINDOW = Phases([Phase(0, BATCH, S)]), Window(2, 6)
ORDERS: dict[str, Callable[[TokenFiles], DataOrder]] = {
    "shuffled": lambda files: ShuffledOrder(files, S, 3),
    "olmo2": lambda files: OlmoOrder(files, S, BATCH, 3),
    "olmo_core": lambda files: OlmoCoreOrder(files, S, BATCH, 3, max_target_sequence_length=2 * S),
    "window": lambda files: WindowOrder(OlmoOrder(files, S, BATCH, 3), 8, 24, 1),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel

    folder = tmp_path_factory.mktemp("tokenizer")
    backend = Tokenizer(WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    backend.add_special_tokens([AddedToken(EOS, special=True)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))
    return folder


def stream(folder: Path, documents: bool) -> TokenFiles:
    files, ids = [], np.where(np.arange(800) % 20 == 19, WORDS, np.arange(800) % 400)
    for i, part in enumerate(np.split(ids, [330])):
        path = folder / f"{i}.bin"
        part.astype("<u4").tofile(path)
        files.append(TokenFile(str(path), "uint32", 0, len(part), f"d{i}", path.name))
    np.save(folder / "starts.npy", np.arange(0, 800, 20))
    return TokenFiles(tuple(files), WORDS, str(folder / "starts.npy") if documents else None)


def edits() -> list[Edits]:
    """At step 3: tokens over the end of row 0, a base span in row 2, noise in row 3; a hook beside."""
    first = PHASES.position_of_step(3)
    none = np.zeros(0, dtype=np.int32)
    one = np.zeros(1, dtype=np.int32)

    def item(name: str, tokens: list[int]) -> list[EditItem]:
        return [EditItem(name, np.array(tokens, dtype=np.uint32), dose=1)]

    def at(column: int) -> dict[str, Any]:
        return {"mode": "explicit", "position": np.array([first + column])}

    return [
        Edits("plant", item("a", [451, 452, 453, 454]), one, one, **at(S - 2)),
        Edits(
            "swap", item("b", []), one, one, kind="base", length=np.array([5]), source=np.array([[40, 3]]),
            **at(2 * S + 1),
        ),
        Edits(
            "blur", item("c", []), one, one, kind="noise", length=np.array([4]), sigma=np.array([0.5], np.float32),
            **at(3 * S + 6),
        ),
        Edits("shake", item("d", []), none, none, hooks=(Hook("d", "gradient_noise", (3, 4), 0.25, 7),)),
    ]  # fmt: skip


def study(folder: Path, tokenizer: Path, order: DataOrder) -> Path:
    plan = compile_plan(edits(), PHASES, WINDOW, 0, "treated", folder / "plans", order=order)
    arms = {"treated": {"plan": str(plan.folder)}, "control": {"plan": None}}
    record = {
        "arms": arms, "first_step": 2, "last_step": 6, "phases": PHASES.to_json(), "order": order.to_json(),
        "tokenizer": str(tokenizer), "plan": str(plan.folder), "plan_fingerprint": plan.fingerprint,
    }  # fmt: skip
    (folder / "member.json").write_text(json.dumps(record))
    (folder / "study.json").write_text(json.dumps({"members": [str(folder)], "store": str(folder / "store")}))
    return folder


def shown(folder: Path, *arguments: Any, colour: bool = False, member: int = 0) -> str:
    out = StringIO()
    console = Console(file=out, width=300, force_terminal=colour, color_system="standard" if colour else None)
    print_rows(folder, member, *arguments, console=console)
    return out.getvalue()


def words(ids: Any) -> str:
    return " ".join(EOS if i == WORDS else f"w{i}" for i in ids)


@pytest.mark.parametrize("documents", [True, False])
@pytest.mark.parametrize("kind", ORDERS)
def test_every_order_shows_text_documents_and_edits(
    kind: str, documents: bool, tokenizer: Path, tmp_path: Path
) -> None:
    order = ORDERS[kind](stream(tmp_path, documents))
    folder = study(tmp_path, tokenizer, order)
    said = shown(folder, "treated", 3, None)
    slots = [order.read(slot).astype(int) for slot in range(12, 16)]
    slots[0][10:], slots[1][:2] = [451, 452], [453, 454]
    slots[2][1:6] = order.read(40)[3:8]
    assert said.startswith("step 3, treated arm: 4 rows, 4 of them edited\nhook: gradient_noise, sigma 0.25,")
    assert "by shake, item d, copy 1 of 1" in said
    assert ": its audit failed (checked: doses, overlaps, window," in said
    for tokens in slots:
        assert words(tokens).replace(" ", "") in said.replace(" ", "")
    assert "columns 10-11: plant, item a, copy 1 of 1\n" in said
    assert "columns 0-1: plant, item a, copy 1 of 1\n" in said
    assert "columns 1-5: swap, item b, copy 1 of 1: text of slot 40, column 3\n" in said
    assert "columns 6-9: blur, item c, copy 1 of 1: noise of sigma 0.5 on these embeddings\n" in said
    for row, slot in enumerate(range(12, 16)):
        source = order.source(slot, 0)
        assert f"row {row}  (slot {slot}, {source.file_name} at token {source.offset_in_file}" in said
        end = order.read(slot).tolist().index(WORDS) + 1 if WORDS in order.read(slot) else S
        token = order.stream_offset(slot, 0)
        if documents and token % 20:
            assert f"columns 0-{end - 1}: document {token // 20}, from its token {token % 20} on" in said
        if end < S:
            begins = order.stream_offset(slot, end)
            name = f"document {begins // 20}\n" if documents else f"{order.source(slot, end).file_name} at token "
            assert f"columns {end}-{S - 1}: {name}" in said


def test_the_control_is_what_the_data_are(tokenizer: Path, tmp_path: Path) -> None:
    order = ORDERS["olmo2"](stream(tmp_path, True))
    folder = study(tmp_path, tokenizer, order)
    assert "no row of this batch was edited" in shown(folder, "control", 3, None)
    said = shown(folder, "control", 3, 2)
    assert words(order.read(14)) in said
    assert "plant" not in said
    assert words(order.read(15)) not in said


def test_edits_are_marked_in_colour(tokenizer: Path, tmp_path: Path) -> None:
    said = shown(study(tmp_path, tokenizer, ORDERS["shuffled"](stream(tmp_path, True))), "treated", 3, 0, colour=True)
    assert COLOURS[0] == "bold red"
    assert "\x1b[1;31mw451 w452" in said
    assert "\x1b[1;31m  columns 10-11: plant" in said


def test_which_member_of_a_sweep_is_shown_and_how_another_is(tokenizer: Path, tmp_path: Path) -> None:
    folder = study(tmp_path, tokenizer, ORDERS["shuffled"](stream(tmp_path, True)))
    record = json.loads((folder / "member.json").read_text())
    places = [folder / str(number) for number in range(3)]
    for number, place in enumerate(places):
        place.mkdir()
        (place / "member.json").write_text(json.dumps({**record, "label": f"repetitions={number}", "seed": 7}))
    (folder / "member.json").unlink()
    (folder / "study.json").write_text(json.dumps({"members": [*map(str, places)], "store": str(folder / "store")}))
    said = shown(folder, "treated", 3, None, member=2)
    assert said.startswith("step 3, treated arm of member 2 of 3 (repetitions=2, seed 7; --member 0 to 2 chooses): ")
    with pytest.raises(UserError) as found:
        shown(folder / "1", "treated", 3, None)
    assert f"the study in {folder}: name that, and for `inspect` --member 1" in str(found.value.fix)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("placebo", 3, None), "arms: treated, control"),
        (("treated", 6, None), "steps 2 to 5"),
        (("treated", 3, 4), "rows 0 to 3"),
    ],
)
def test_what_is_not_there(arguments: tuple[Any, ...], message: str, tokenizer: Path, tmp_path: Path) -> None:
    folder = study(tmp_path, tokenizer, ORDERS["shuffled"](stream(tmp_path, True)))
    with pytest.raises(UserError, match=message):
        shown(folder, *arguments)

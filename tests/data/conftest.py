"""Token streams that are range(n), and a tokenizer for which the text "3 4 5" is the tokens 3, 4, 5."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.data.tokenizer import EOS, Tokenizer, load

NUMBERS = 1000  # the tokenizer knows 0 .. 999; 1000 ends documents
EOS_ID = NUMBERS


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    folder = tmp_path_factory.mktemp("numbers")
    backend = Backend(WordLevel({str(i): i for i in range(NUMBERS)}, unk_token="0"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens([AddedToken(EOS, special=True)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS})
    )
    return load(folder)


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., TokenFiles]:
    """stream([5, 3], dtype) -> the tokens range(8) in a file of 5 and one of 3, each behind a header of 3 items."""

    def make(lengths: list[int], dtype: str = "uint32", header_items: int = 3) -> TokenFiles:
        files, start = [], 0
        for i, length in enumerate(lengths):
            path = tmp_path / f"{i}-{dtype}.bin"
            ids = np.concatenate([np.full(header_items, 9), np.arange(start, start + length)]).astype(dtype)
            path.write_bytes(ids.tobytes())
            offset = header_items * ids.itemsize
            files.append(TokenFile(str(path), dtype, offset, length, f"digest {i} {length}", f"file {i}"))
            start += length
        return TokenFiles(tuple(files), eos_token_id=EOS_ID)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files lie that a source reads; beside it there is room for its cache."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"

"""What every conversion of a state to a Hugging Face folder does around it.

convert STATE OUT --> a folder beside OUT, written, read back and judged (probe.py) --one rename--> OUT
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.tokenizer_files import copy_tokenizer


def no_weights(state: Path) -> UserError:
    """Of a state whose weights were released."""
    return UserError("the state holds no weights", value=str(state), fix="train it again, its weights were released")


@contextmanager
def whole_folder(out: Path, tokenizer: Path) -> Iterator[Path]:
    """A new folder to write in, which gets the tokenizer's files and becomes `out`; gone where something went wrong."""
    writing = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}")
    writing.mkdir(parents=True)
    try:
        yield writing
        copy_tokenizer(tokenizer, writing)
        os.rename(writing, out)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise


def run_conversion(convert: Callable[..., object]) -> None:
    """`convert` as a program: its arguments are the command line's; a UserError is told on stderr."""
    try:
        convert(*map(Path, sys.argv[1:3]))
    except UserError as error:
        sys.exit(error.render())

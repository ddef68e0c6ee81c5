"""What goes wrong inside a class of the user's own: which class, what was raised, and in which of their lines.

Our own classes are let through as they are: what they raise is ours to mend, and a traceback tells where.
"""

from __future__ import annotations

import contextlib
import inspect
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from pretrain_exp.errors import Problems, UserError

_OURS = Path(__file__).resolve().parent
_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


def full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def is_own(cls: type) -> bool:
    """Whether the class is the user's, and none of this package."""
    return cls.__module__.partition(".")[0] != __name__.partition(".")[0]


@contextlib.contextmanager
def own_code(cls: type, key: str) -> Iterator[None]:
    """Around a call into the class: an exception becomes a UserError under `key`, with the line that raised it."""
    try:
        yield
    except (UserError, Problems):
        raise
    except Exception as error:  # anyone's class may raise anything
        if not is_own(cls):
            raise
        raise failure(error, cls, key) from error


def failure(error: Exception, cls: type, key: str) -> UserError:
    """What is said of an exception that was raised in a class of the user's own."""
    problem = f"{full_name(cls)} failed: {raised(error, cls)}"
    return UserError(problem, key=key, fix="mend the class; docs/extending.md says what it owes")


def raised(error: Exception, cls: type | None = None) -> str:
    """`ZeroDivisionError: division by zero (shout.py:17)`: the innermost line that is the user's, else of the class."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if _is_users(one.filename)]
    if not own and cls is not None:
        own = [one for one in frames if one.filename == inspect.getsourcefile(cls)]
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"


def _is_users(name: str) -> bool:
    path = Path(name).resolve()
    return not name.startswith(("<", *_LIBRARIES)) and not path.is_relative_to(_OURS)

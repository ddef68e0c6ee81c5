"""The one error a user sees: what is wrong, which key, what value it got, and the way out."""

from __future__ import annotations

_ABSENT = object()


class UserError(Exception):
    """Something the user can mend. Printed without a traceback; the process ends with status 2.

    problem: one sentence that says what is wrong, with the numbers.
    key:     the dotted configuration key (`insertion.add_texts.file`), if one is to blame.
    value:   what that key held.
    fix:     the way out, as an instruction.
    """

    def __init__(self, problem: str, *, key: str | None = None, value: object = _ABSENT, fix: str | None = None):
        self.problem, self.key, self.value, self.fix = problem, key, value, fix
        super().__init__(self.render())

    def render(self) -> str:
        head = f"{self.key}: " if self.key else ""
        got = "" if self.value is _ABSENT else f" [got {_short(repr(self.value))}]"
        out = f"\n    -> {self.fix}" if self.fix else ""
        return f"{head}{self.problem}{got}{out}"

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self.problem, self.key, self.value is _ABSENT, self.value, self.fix)

    def under(self, key: str) -> UserError:
        """The same error with `key` put before its own key."""
        value = {} if self.value is _ABSENT else {"value": self.value}
        return UserError(self.problem, key=f"{key}.{self.key}" if self.key else key, fix=self.fix, **value)


def _restore(problem: str, key: str | None, absent: bool, value: object, fix: str | None) -> UserError:
    """From another process, where the mark of an absent value is another object."""
    return UserError(problem, key=key, value=_ABSENT if absent else value, fix=fix)


def _short(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


class Problems(Exception):
    """All that is wrong with a configuration, at once."""

    def __init__(self, problems: list[UserError], title: str = "the configuration cannot run"):
        self.problems, self.title = problems, title
        super().__init__(self.render())

    def render(self) -> str:
        n = len(self.problems)
        lines = [f"{self.title}: {n} problem{'s' if n != 1 else ''}"]
        return "\n".join(lines + [f"  {p.render()}" for p in self.problems])

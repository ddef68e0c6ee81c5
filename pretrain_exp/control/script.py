"""A controller that is a program of one's own, called once before each segment.

    SCRIPT --model DIR --current-step S --total-steps N --in-state-file F --out-state-file F --prompts-file F [--k v]

It evaluates the Hugging Face folder DIR as it likes, reads its state (YAML) from the one file, writes the new one to
the other, and writes what is to be planted as JSON Lines of {"text": ...} ("prompt" is taken as well). Steps count
from where the loop began. Numbers in its state become curves; `target` and `value` among them go into the report.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain_exp.control.base import Controller, Decision, Seen
from pretrain_exp.errors import UserError
from pretrain_exp.plan.rows import read_rows

_SHOWN = 15  # lines of a failed script's output


@dataclass(frozen=True, kw_only=True)
class ScriptController(Controller):
    """script: path; .py runs under `python` (None: this one), any other by itself. args: further options, true: a flag.

    state: what the first call finds in its state file.
    """

    script: str
    python: str | None = None
    args: dict[str, str | int | float | bool] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def files(self) -> list[tuple[str, str]]:
        return [("script", self.script)]

    def decide(self, seen: Seen) -> Decision:
        """UserError where the script fails, or does not leave what the protocol asks for."""
        with tempfile.TemporaryDirectory(prefix="controller-") as name:
            state_in, state_out, prompts = (Path(name) / file for file in ("in.yaml", "out.yaml", "prompts.jsonl"))
            state_in.write_text(json.dumps(dict(seen.state) if seen.step else self.state))  # JSON is YAML
            self._call(
                {
                    "model": str(seen.model),
                    "current-step": seen.step,
                    "total-steps": seen.total,
                    "in-state-file": str(state_in),
                    "out-state-file": str(state_out),
                    "prompts-file": str(prompts),
                    **self.args,
                }
            )
            state, texts = self._state(state_out), self._texts(prompts)
        numbers = {k: float(v) for k, v in state.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        return Decision(state, texts=texts, target=numbers.get("target"), numbers=numbers)

    def command(self, options: Mapping[str, str | int | float | bool]) -> list[str]:
        """The call with these options; one that is false is left out."""
        script = str(Path(self.script).absolute())
        words = [self.python or sys.executable, script] if script.endswith(".py") or self.python else [script]
        for name, value in options.items():
            if value is not False:
                words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return words

    def _call(self, options: Mapping[str, str | int | float | bool]) -> None:
        try:
            done = subprocess.run(
                self.command(options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
        except OSError as error:
            raise self._wrong(f"cannot be started ({error.strerror})") from None
        print(done.stdout, end="", flush=True)
        if done.returncode:
            tail = "\n".join(f"  | {line}" for line in done.stdout.splitlines()[-_SHOWN:])
            raise self._wrong(f"ended with status {done.returncode}; its last lines:\n{tail}")

    def _state(self, path: Path) -> dict[str, Any]:
        import yaml

        if not path.is_file():
            raise self._wrong("wrote no --out-state-file")
        try:
            state = yaml.safe_load(path.read_text())
            json.dumps(state, allow_nan=False)
        except (yaml.YAMLError, TypeError, ValueError) as error:
            raise self._wrong(f"wrote a state that is no plain YAML ({error})") from None
        if not isinstance(state, dict):
            raise self._wrong("wrote a state that is no mapping")
        return state

    def _texts(self, path: Path) -> tuple[str, ...]:
        if not path.is_file():
            raise self._wrong("wrote no --prompts-file (an empty one plants nothing)")
        texts = []
        for number, row in read_rows(str(path), key="script"):
            text = row.get("text", row.get("prompt"))
            if not isinstance(text, str) or not text:
                raise self._wrong(f"row {number} of its --prompts-file has neither `text` nor `prompt`")
            texts.append(text)
        return tuple(texts)

    def _wrong(self, problem: str) -> UserError:
        return UserError(f"the controller {problem}", key="controller.script", value=self.script)

"""The configuration classes of an installed ai2-olmo, read from its source: no import, which takes seconds and torch.

olmo/config.py --ast--> {class: {field: annotation}}, {enumeration: values}  --> problems of a dict, with near names
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.installed import location


@dataclass(frozen=True)
class Fields:
    """classes: dataclass -> field -> the names in its annotation. choices: enumeration of strings -> its values."""

    classes: Mapping[str, Mapping[str, frozenset[str]]]
    choices: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, source: str) -> Fields:
        """From the text of olmo/config.py."""
        classes: dict[str, dict[str, frozenset[str]]] = {}
        choices: dict[str, tuple[str, ...]] = {}
        for node in ast.parse(source).body:
            if not isinstance(node, ast.ClassDef):
                continue
            if any(isinstance(base, ast.Name) and base.id == "StrEnum" for base in node.bases):
                values = [statement.value for statement in node.body if isinstance(statement, ast.Assign)]
                choices[node.name] = tuple(str(v.value) for v in values if isinstance(v, ast.Constant))
                continue
            classes[node.name] = {
                statement.target.id: _names(statement.annotation)
                for statement in node.body
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            }
        return cls(classes, choices)

    def problems(self, values: Mapping[str, Any], name: str, key: str) -> list[UserError]:
        """What of a nested dict the class of this name does not take: unknown fields, values outside an enumeration."""
        known, found = self.classes[name], []
        for field, value in values.items():
            if field not in known:
                near = get_close_matches(field, known, 1)
                fix = f"did you mean {near[0]}?" if near else f"fields of {name}: {', '.join(sorted(known))}"
                found.append(
                    UserError(f"ai2-olmo's {name} has no such field", key=f"{key}.{field}", value=value, fix=fix)
                )
                continue
            inner = next((cls for cls in known[field] if cls in self.classes), None)
            if isinstance(value, Mapping) and inner is not None:
                found += self.problems(value, inner, f"{key}.{field}")
            for cls in known[field] & self.choices.keys() if isinstance(value, str) else ():
                if value not in self.choices[cls]:
                    fix = f"one of {', '.join(self.choices[cls])}"
                    found.append(UserError(f"ai2-olmo knows no such {cls}", key=f"{key}.{field}", value=value, fix=fix))
        return found


def _names(annotation: ast.expr) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(annotation) if isinstance(node, ast.Name))


@lru_cache(maxsize=4)
def installed(python: str) -> Fields | None:
    """Of the ai2-olmo that this interpreter finds; None where it has none."""
    folder = location(python, "olmo")
    return Fields.read((folder / "config.py").read_text()) if folder and (folder / "config.py").is_file() else None

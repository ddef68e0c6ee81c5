"""The configuration classes of an installed OLMo-core, read from its source: no import, which takes many seconds.

    (module, class) --ast--> fields, the classes in their annotations, registered subclasses --> problems of a dict

A field is an annotated name of a dataclass or of one of its bases. `type` chooses a registered subclass, as
OLMo-core's own `Config.from_dict` does; `_CLASS_` names any class by its path.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.installed import location

PACKAGE = "olmo_core"


@dataclass(frozen=True)
class Found:
    """A class and the module that defines it, as a dotted name."""

    module: str
    node: ast.ClassDef


class Source:
    """The source of one installed package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trees: dict[str, ast.Module | None] = {}

    def tree(self, module: str) -> ast.Module | None:
        """The parsed module; None where it is not of this package."""
        if module not in self._trees:
            path = self.folder.joinpath(*module.split(".")[1:])
            files = [path / "__init__.py", path.with_suffix(".py")]
            file = next((file for file in files if file.is_file()), None) if module.startswith(PACKAGE) else None
            self._trees[module] = ast.parse(file.read_text()) if file else None
        return self._trees[module]

    def find(self, module: str, name: str) -> Found | None:
        """The class of this name as the module knows it: defined there, or imported from this package."""
        tree = self.tree(module)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.ClassDef) and node.name == name:
                return Found(module, node)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self.find(self._target(module, node), alias.name)
        return None

    def _target(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        is_package = self.folder.joinpath(*module.split(".")[1:]).is_dir()
        parts = module.split(".")
        base = parts[: len(parts) - node.level + is_package]
        return ".".join([*base, *(node.module.split(".") if node.module else [])])

    def bases(self, found: Found) -> Iterator[Found]:
        """The class and those it derives from in this package, each before its own bases."""
        yield found
        for base in found.node.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            parent = self.find(found.module, name.id) if isinstance(name, ast.Name) else None
            if parent is not None:
                yield from self.bases(parent)

    def fields(self, found: Found) -> dict[str, tuple[str, ast.expr]]:
        """The fields of a dataclass: name -> (the module that annotates it, the annotation)."""
        fields: dict[str, tuple[str, ast.expr]] = {}
        for cls in self.bases(found):
            for node in cls.node.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    is_field = not node.target.id.startswith("_") and "ClassVar" not in ast.unparse(node.annotation)
                    if is_field:
                        fields.setdefault(node.target.id, (cls.module, node.annotation))
        return fields

    def values(self, found: Found) -> list[str] | None:
        """The values of an enumeration of strings; None for other classes."""
        if not any(isinstance(base, ast.Name) and base.id in ("StrEnum", "DataMixBase") for base in found.node.bases):
            return None
        assigned = [node.value for node in found.node.body if isinstance(node, ast.Assign)]
        return [value.value for value in assigned if isinstance(value, ast.Constant) and isinstance(value.value, str)]

    def registered(self, found: Found) -> dict[str, Found]:
        """The subclasses that `@<class>.register("name")` gives names, in the modules around it."""
        folder = self.folder.joinpath(*found.module.split(".")[1:])
        folder = folder if folder.is_dir() else folder.parent
        package = ".".join([PACKAGE, *folder.relative_to(self.folder).parts])
        names: dict[str, Found] = {}
        for path in sorted(folder.glob("*.py")):
            module = package if path.stem == "__init__" else f"{package}.{path.stem}"
            tree = self.tree(module)
            for node in tree.body if tree else ():
                for call in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == f"{found.node.name}.register":
                        assert isinstance(node, ast.ClassDef)
                        names[ast.literal_eval(call.args[0])] = Found(module, node)
        return names

    def factory(self, found: Found, name: str) -> dict[str, tuple[str, ast.expr]] | None:
        """What a class method takes by name, its **kwargs followed to the class methods and the class that get them.

        None where there is no such class method.
        """
        method = self._method(found, name)
        if method is None:
            return None
        arguments = [*method.args.args[1:], *method.args.kwonlyargs]
        taken = {a.arg: (found.module, a.annotation or ast.Constant(None)) for a in arguments}
        rest = method.args.kwarg.arg if method.args.kwarg else None
        for node in ast.walk(method):
            hands_on = isinstance(node, ast.Call) and any(
                k.arg is None and isinstance(k.value, ast.Name) and k.value.id == rest for k in node.keywords
            )
            if not hands_on or rest is None:
                continue
            assert isinstance(node, ast.Call)
            target = ast.unparse(node.func)
            more = self.fields(found) if target == "cls" else self.factory(found, target.removeprefix("cls."))
            bound = {k.arg for k in node.keywords if k.arg and not _takes_from(rest, k.value)}
            taken = {**{n: a for n, a in (more or {}).items() if n not in bound}, **taken}
        return taken

    def factories(self, found: Found) -> list[str]:
        """Names of the class methods that make an instance."""
        methods = [node for node in found.node.body if isinstance(node, ast.FunctionDef)]
        return [m.name for m in methods if any(ast.unparse(d) == "classmethod" for d in m.decorator_list)]

    def _method(self, found: Found, name: str) -> ast.FunctionDef | None:
        if name not in self.factories(found):
            return None
        return next(n for n in found.node.body if isinstance(n, ast.FunctionDef) and n.name == name)

    def problems(self, values: Mapping[str, Any], found: Found, key: str) -> list[UserError]:
        """The names (and values of enumerations) in a dict that a class does not have, nested ones included."""
        cls = self._chosen(values, found, key)
        if isinstance(cls, UserError):
            return [cls]
        known = self.fields(cls)
        given = {name: value for name, value in values.items() if name not in ("type", "_CLASS_")}
        return self.unknown(given, known, key, cls.node.name)

    def unknown(
        self, values: Mapping[str, Any], known: Mapping[str, tuple[str, ast.expr]], key: str, what: str
    ) -> list[UserError]:
        """The same for a dict whose names are known."""
        out: list[UserError] = []
        for name, value in values.items():
            if name not in known:
                near = get_close_matches(name, known, 1)
                fix = f"did you mean {near[0]}?" if near else f"fields of {what}: {', '.join(sorted(known))}"
                problem = f"OLMo-core's {what} has no such field"
                out.append(UserError(problem, key=f"{key}.{name}", value=value, fix=fix))
                continue
            module, annotation = known[name]
            for one in value if isinstance(value, list) else [value]:
                out += self._problems_of_value(one, module, annotation, f"{key}.{name}")
        return out

    def _problems_of_value(self, value: Any, module: str, annotation: ast.expr, key: str) -> list[UserError]:
        if isinstance(value, Mapping):
            return self._problems_of_mapping(value, module, annotation, key)
        if isinstance(value, str):
            for cls in filter(None, (self.find(module, name) for name in _names(annotation))):
                allowed = self.values(cls)
                if allowed is not None and value not in allowed:
                    fix = f"one of {', '.join(allowed)}"
                    return [UserError(f"OLMo-core knows no such {cls.node.name}", key=key, value=value, fix=fix)]
        return []

    def _problems_of_mapping(
        self, values: Mapping[str, Any], module: str, annotation: ast.expr, key: str
    ) -> list[UserError]:
        """Of the fields of a class; or, where a dict is annotated, of classes under names of the user's own."""
        dicts = [node for node in ast.walk(annotation) if isinstance(node, ast.Subscript) and _is_dict(node)]
        inside = self._dataclass(module, {name for node in dicts for name in _names(node)})
        direct = self._dataclass(module, set(_names(_without(annotation, dicts))))
        if inside is not None:
            known = {*self.fields(inside), "type", "_CLASS_"}
            parts = {n: part for n, part in values.items() if isinstance(part, Mapping)}
            if direct is None or any(set(part) & known for part in parts.values()):
                return [p for n, part in parts.items() for p in self.problems(part, inside, f"{key}.{n}")]
        return self.problems(values, direct, key) if direct else []

    def _dataclass(self, module: str, names: set[str]) -> Found | None:
        """The first of these names that is a class with fields."""
        found = (self.find(module, name) for name in sorted(names))
        return next((cls for cls in found if cls is not None and self.values(cls) is None), None)

    def _chosen(self, values: Mapping[str, Any], found: Found, key: str) -> Found | UserError:
        if (path := values.get("_CLASS_")) is not None:
            module, _, name = str(path).rpartition(".")
            cls = self.find(module, name)
            return cls or UserError("OLMo-core has no such class", key=f"{key}._CLASS_", value=path)
        if (chosen := values.get("type")) is None:
            return found
        names = self.registered(found)
        if chosen not in names:
            near = get_close_matches(str(chosen), names, 1)
            fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"
            return UserError(f"OLMo-core knows no such {found.node.name}", key=f"{key}.type", value=chosen, fix=fix)
        return names[chosen]


def _names(annotation: ast.expr) -> list[str]:
    """Every name in an annotation, those in its quoted parts too."""
    found = []
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            found.append(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.append(node.value)
    return found


def _is_dict(node: ast.Subscript) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("Dict", "dict")


def _without(annotation: ast.expr, parts: list[ast.Subscript]) -> ast.expr:
    """An annotation with some of its parts taken out."""

    class Cut(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            gone = any(ast.dump(node) == ast.dump(part) for part in parts)
            return ast.Constant(None) if gone else self.generic_visit(node)

    return Cut().visit(copy.deepcopy(annotation))


def _takes_from(rest: str, value: ast.expr) -> bool:
    """Whether a value is taken out of **kwargs, as in `n_layers=kwargs.pop("n_layers", 32)`."""
    return any(isinstance(node, ast.Name) and node.id == rest for node in ast.walk(value))


@lru_cache(maxsize=4)
def installed(python: str) -> Source | None:
    """OLMo-core's source as this interpreter finds it; None where it has none."""
    folder = location(python, PACKAGE)
    return None if folder is None else Source(folder)

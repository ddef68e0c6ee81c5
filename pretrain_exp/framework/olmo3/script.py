"""An official script of OLMo-core as plain values, without running any of it.

    build_config(opts, overrides) --ast--> names, one assignment after another --> ExperimentConfig(...) as a tree

What is read: constants, arithmetic on them, names assigned from them, `opts.x or DEFAULT` (no option is given), int,
float, max and min, dict(...), members of enumerations, and calls of classes, which become `Made`. All else, such as
what depends on the number of ranks, is `Unread` with its own text; whoever needs it must refuse it.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {"int": int, "float": float, "max": max, "min": min, "dict": dict}
IGNORED = (ast.Import, ast.ImportFrom, ast.Expr, ast.FunctionDef, ast.ClassDef, ast.Assert)
KEPT = ("with_callback", "with_callbacks", "merge")  # methods after which a thing is read as it was before
DOLMA2_VOCABULARY = 100278  # TokenizerConfig.dolma2 of OLMo-core 3.0


@dataclass(frozen=True)
class Unread:
    """An expression whose value is not in the file."""

    text: str


@dataclass(frozen=True)
class Made:
    """A call of a class, or of one of its class methods: `name` is `Class` or `Class.method`."""

    name: str
    args: tuple[Any, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def cls(self) -> str:
        return self.name.partition(".")[0]


@dataclass
class Script:
    """names: what each name stands for.

    changed: statements that change something made before, none of which are followed. conditional: branches that change
    something else than the model where a condition holds, which the file cannot tell.
    """

    names: dict[str, Any] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    conditional: list[str] = field(default_factory=list)
    returned: Any = None

    def run(self, body: list[ast.stmt]) -> None:
        """Takes in assignments and the value that is returned."""
        for node in body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.names[node.targets[0].id] = self.value(node.value)
            elif isinstance(node, ast.Return) and node.value is not None:
                self.returned = self.value(node.value)
            elif not isinstance(node, IGNORED):
                of_model = any(name in self._changed_by(node) for name, made in self.names.items() if _is_model(made))
                text = ast.unparse(node).splitlines()[0]
                (self.changed if of_model or not isinstance(node, ast.If) else self.conditional).append(text)

    def _changed_by(self, node: ast.stmt) -> set[str]:
        """Names of what a statement assigns to, or into."""
        stored = [one for one in ast.walk(node) if isinstance(getattr(one, "ctx", None), ast.Store)]
        return {one.id for target in stored for one in ast.walk(target) if isinstance(one, ast.Name)}

    def value(self, node: ast.expr) -> Any:
        """What an expression is."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self.names.get(node.id, Unread(node.id))
            case ast.List() | ast.Tuple():
                return [self.value(one) for one in node.elts]
            case ast.UnaryOp(op=ast.USub()):
                return self._apply(operator.neg, [self.value(node.operand)], node)
            case ast.BinOp() if type(node.op) in BINARY:
                return self._apply(BINARY[type(node.op)], [self.value(node.left), self.value(node.right)], node)
            case ast.BoolOp(op=ast.Or()):
                values = [self.value(one) for one in node.values]
                return next((value for value in values if value is not None), None)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
        return Unread(ast.unparse(node))

    def _attribute(self, node: ast.Attribute) -> Any:
        if isinstance(node.value, ast.Name):
            if node.value.id == "opts":
                return None  # no option is given on a command line
            if node.value.id[:1].isupper():
                return node.attr  # a member of an enumeration, by its name
        return Unread(ast.unparse(node))

    def _call(self, node: ast.Call) -> Any:
        args = [self.value(one) for one in node.args]
        values = {one.arg: self.value(one.value) for one in node.keywords if one.arg}
        called = node.func
        if isinstance(called, ast.Name):
            if called.id in FUNCTIONS:
                return self._apply(lambda *given: FUNCTIONS[called.id](*given, **values), args, node)
            return Made(called.id, tuple(args), values) if called.id[:1].isupper() else Unread(ast.unparse(node))
        if isinstance(called, ast.Attribute):
            if isinstance(called.value, ast.Name) and called.value.id[:1].isupper():
                return Made(f"{called.value.id}.{called.attr}", tuple(args), values)
            below = self.value(called.value)
            if called.attr in KEPT:
                return below
            if called.attr == "padded_vocab_size" and below == Made("TokenizerConfig.dolma2"):
                return 128 * -(-DOLMA2_VOCABULARY // 128)
        return Unread(ast.unparse(node))

    def _apply(self, function: Callable[..., Any], values: list[Any], node: ast.expr) -> Any:
        if any(isinstance(value, Unread | Made) for value in values):
            return Unread(ast.unparse(node))
        return function(*values)


def read(text: str) -> Script:
    """The script with what its `build_config` returns; `returned` is None where there is no such function."""
    tree = ast.parse(text)
    script = Script()
    script.run([node for node in tree.body if isinstance(node, ast.Assign)])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "build_config":
            script.run(node.body)
    return script


def _is_model(value: Any) -> bool:
    return isinstance(value, Made) and value.cls == "TransformerConfig"

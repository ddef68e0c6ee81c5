"""Kinds chosen by `_target_`: a user's class or one of ours, its fields checked against its own signature.

    {_target_: package.module.Class, field: value, ...}  --check_kind-->  instance, or the problems, each with its key

Every field is validated by pydantic from the annotation the class gives it; an unknown field names the known ones.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.own_code import failure, is_own, raised

MISSING = "???"  # OmegaConf's mark of a value that must be given
# of a value that cannot be read as what it should be: one that can
_WAYS = {"int_": "1, a whole number", "float_": "0.1, a number", "bool_": "true or false", "list_": "[a,b], a list"}
_BRANCHES = {"int", "float", "str", "bool", "none", "constrained-int", "constrained-float"}


class Checked(BaseModel):
    """Fields as they are annotated: unknown ones are errors, and true is no number."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and not _takes_truth(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("is neither true nor false")
        return value


def _takes_truth(annotation: Any) -> bool:
    """Whether true may be a value: of what names bool anywhere, or neither int nor float."""
    named = [annotation, *_within(annotation)]
    return bool in named or not (int in named or float in named)


def _within(annotation: Any) -> Iterator[Any]:
    for one in typing.get_args(annotation):
        if typing.get_origin(annotation) is not typing.Literal:
            yield one
            yield from _within(one)


def find_class(target: str, key: str) -> type:
    """The class that `target` names, or a UserError that says which part of the path is not there."""
    module_name, _, name = target.rpartition(".")
    fix = "name an importable class as `package.module.Class`; a module of your own must be on PYTHONPATH"
    if not module_name:
        raise UserError("is not a dotted path to a class", key=f"{key}._target_", value=target, fix=fix)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"cannot be imported ({error})", key=f"{key}._target_", value=target, fix=fix) from error
    except Exception as error:  # anyone's module may raise anything
        raise UserError(f"cannot be imported: {raised(error)}", key=f"{key}._target_", value=target) from error
    found = getattr(module, name, None)
    if found is None:
        raise UserError(f"module {module_name} has no {name}", key=f"{key}._target_", value=target, fix=fix)
    if not inspect.isclass(found):
        raise UserError("is not a class", key=f"{key}._target_", value=target, fix=fix)
    return found


def signature_model(cls: type) -> type[BaseModel]:
    """A pydantic model with a field for each parameter of `cls`, its annotation and its default."""
    # a dataclass's own annotations are evaluated where each base class was written, its __init__'s are not
    init: Any = vars(cls).get("__init__", cls.__init__)  # type: ignore[misc]
    hints = typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else init, include_extras=True)
    fields: dict[str, Any] = {}
    parameters = [] if init is object.__init__ else list(inspect.signature(init).parameters.items())[1:]
    for name, parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            fix = "give it named parameters with annotations, or make it a dataclass"
            raise UserError(f"{cls.__qualname__} takes *{name}, so its fields cannot be checked", fix=fix)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    # a dataclass default that is made by a factory shows up in the signature as a private sentinel
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        if field.default_factory is not dataclasses.MISSING and field.init:
            fields[field.name] = (hints.get(field.name, Any), field.default_factory())
    return create_model(f"{cls.__name__}Fields", __base__=_Fields, **fields)


class _Fields(Checked):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def check_kind(node: object, key: str) -> Any:
    """Instantiates the kind that `node` describes. Raises Problems with everything that is wrong with it."""
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise Problems(
            [
                UserError(
                    "has no `_target_`: values are set for something that is not chosen",
                    key=key,
                    value=node,
                    fix=f"choose one of its group, give `_target_`, or take it out with ~{key}",
                )
            ]
        )
    try:
        cls = find_class(node["_target_"], key)
    except UserError as error:
        raise Problems([error]) from None
    absent = [name for name, value in node.items() if value == MISSING]
    if absent:
        required = "is required and was not given"
        raise Problems([UserError(required, key=f"{key}.{name}", fix=f"set {key}.{name}=...") for name in absent])
    try:
        fields = signature_model(cls)
    except UserError as error:
        raise Problems([error.under(key)]) from None
    try:
        checked = fields.model_validate({k: v for k, v in node.items() if k != "_target_"})
    except ValidationError as error:
        raise Problems(problems_of(error, key, fields)) from None
    try:
        return cls(**{name: getattr(checked, name) for name in type(checked).model_fields})
    except UserError as error:
        raise Problems([error.under(key)]) from None
    except Problems as found:  # of a kind within this one
        raise Problems([error.under(key) for error in found.problems]) from None
    except (ValueError, TypeError) as error:
        raise Problems([UserError(str(error), key=key)]) from None
    except Exception as error:  # anyone's class may raise anything
        if not is_own(cls):
            raise
        raise Problems([failure(error, cls, key)]) from error


def refused(problem: str, key: str, value: object, fix: str) -> PydanticCustomError:
    """What a validator of a whole section raises where one of its fields is to blame. key: in the section."""
    return PydanticCustomError("refused", "{wrong}", {"wrong": UserError(problem, key=key, value=value, fix=fix)})


def problems_of(error: ValidationError, key: str, model: type[BaseModel]) -> list[UserError]:
    """Pydantic's findings as ours: dotted key, value, and a way out. One finding a key and message."""
    out: dict[str, UserError] = {}
    reasons: dict[str, str] = {}
    for found in error.errors():
        # a union reports once for every branch it tried, and names the branch in the path: keep the real keys only
        field = model.model_fields.get(str(found["loc"][0])) if found["loc"] else None
        branches = _BRANCHES | _class_names(field.annotation if field else None)
        path = [
            str(part) for part in found["loc"] if isinstance(part, int) or (part not in branches and "[" not in part)
        ]
        full = ".".join(([key] if key else []) + path)
        if found["type"] == "refused":
            problem = found["ctx"]["wrong"].under(full) if full else found["ctx"]["wrong"]
            full = str(problem.key)
        elif found["type"] == "missing" or found["input"] == MISSING:
            problem = UserError("is required and was not given", key=full, fix=f"set {full}=...")
        elif found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            problem = UserError("unknown key", key=full, value=found["input"], fix=_nearest(model, path))
        else:
            message = found["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            if found["type"] == "dataclass_type":  # whose class is nothing that a configuration names
                inner = _class_in(field.annotation if field else None)
                message = f"Input should be a mapping of {', '.join(_annotations(inner) if inner else ['fields'])}"
            # the branches of a union are ways of being right: one problem names them all
            before = reasons.get(full)
            reasons[full] = message if before is None or message in before else f"{before}, or: {message}"
            way = next((way for kind, way in _WAYS.items() if found["type"].startswith(kind)), None)
            problem = UserError(reasons[full], key=full, value=found["input"], fix=way and f"{full}={way}")
        out[full] = problem
    # of a mapping what is wrong within it; that other branches take none at all is no help
    return [one for key, one in out.items() if not (isinstance(one.value, Mapping) and _deeper(key, out))]


def _deeper(key: str, keys: Iterable[str]) -> bool:
    return bool(key) and any(one.startswith(f"{key}.") for one in keys)


def _class_names(annotation: Any) -> set[str]:
    """The names by which pydantic tells branches of a union apart that are classes with fields."""
    return {one.__name__ for one in _within(annotation) if inspect.isclass(one) and dataclasses.is_dataclass(one)}


def _nearest(model: type[BaseModel], path: list[str]) -> str:
    """The way out for the unknown key at the end of `path`: the nearest known one, or all of them."""
    fields = _annotations(model)
    for part in path[:-1]:
        inner = _class_in(fields.get(part))
        if inner is None:
            return "remove it"
        fields = _annotations(inner)
    known = sorted(fields)
    close = get_close_matches(path[-1], known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known) or 'nothing'}"


def _annotations(cls: type) -> dict[str, Any]:
    if issubclass(cls, BaseModel):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    return typing.get_type_hints(cls)


def _class_in(annotation: Any) -> type | None:
    """The class with fields that an annotation names, alone or beside None."""
    for one in (annotation, *typing.get_args(annotation)):
        if inspect.isclass(one) and (issubclass(one, BaseModel) or dataclasses.is_dataclass(one)):
            return one
    return None

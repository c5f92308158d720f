"""Validation errors in words: which field, what it holds, what is allowed, the nearest match."""

import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from overparam.foundations.words import nearest, show
from overparam.identity import Spec

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_NAMES: dict[Any, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line per wrong field of `model`: its path, its value, what is allowed, the nearest match.

    The members of a union complain about the same path; the first one is kept.
    """
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        names, owner, field = _locate(model, detail["loc"])
        path = ".".join(names)
        lines.setdefault(path, _sentence(path or "run", owner, field, detail))
    return list(lines.values())


def _locate(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel], FieldInfo | None]:
    """Names along pydantic's location without the tags of unions, the model that was reached, and its field."""
    owner, field, names = model, None, list[str]()
    options: list[type[BaseModel]] = [model]
    for part in loc:
        if len(options) > 1:
            options = [option for option in options if kind_of(option) == part]
            continue
        if options:
            owner, field = options[0], options[0].model_fields.get(str(part))
            names.append(str(part))
            options = specs_in(field.annotation) if field else []
        elif field is not None and get_origin(field.annotation) in (dict, tuple) and "[" not in str(part):
            names.append(str(part))
    return names, owner, field


def _sentence(path: str, owner: type[BaseModel], field: FieldInfo | None, detail: ErrorDetails) -> str:
    kind, given = detail["type"], detail["input"]
    fields = ", ".join(owner.model_fields)
    if kind == "value_error":
        shown = "" if isinstance(given, Mapping | Spec) else f" = {show(given)}"
        return f"{path}{shown}: {detail['msg'].removeprefix('Value error, ')}"
    if field is None and kind in ("model_type", "model_attributes_type"):
        return f"{path} = {show(given)}; allowed: a table of {fields}"
    if field is None:
        hint = nearest(path.split(".")[-1], list(owner.model_fields))
        return f"{path} = {show(given)}: no such field; allowed: {fields}{hint}"
    if kind.startswith("union_tag"):
        kinds, tag = [kind_of(option) for option in specs_in(field.annotation)], detail.get("ctx", {}).get("tag")
        wrong = f"{path}.kind: missing" if tag is None else f"{path}.kind = {show(tag)}"
        return f"{wrong}; allowed: {' or '.join(map(show, kinds))}{nearest(tag, kinds)}"
    allowed = describe(field.annotation, field.metadata)
    if kind == "missing":
        return f"{path}: missing; allowed: {allowed}"
    return f"{path} = {show(given)}; allowed: {allowed}{nearest(given, _words_in(field.annotation))}"


def describe(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What a field allows.

    >>> describe(int | Literal["full"])
    'an integer or "full"'
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(args[0], args[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return " or ".join(show(arg) for arg in args)
    if origin is tuple:
        return f"a list [{', '.join('…' if arg is Ellipsis else describe(arg) for arg in args)}]"
    if origin is dict:
        return f"a table of names with {describe(args[1])} each"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = kind_of(annotation)
        return f"a table of kind {show(kind)}" if kind else f"a table of {', '.join(annotation.model_fields)}"
    bounds = " and ".join(_bounds(metadata))
    return f"{_NAMES.get(annotation, 'null')} {bounds}".strip()


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for item in metadata:
        yield from _bounds(item.metadata) if isinstance(item, FieldInfo) else ()
        yield from (f"{sign} {getattr(item, name):g}" for name, sign in _BOUNDS.items() if hasattr(item, name))
        yield from ("not empty",) if getattr(item, "min_length", 0) else ()


def specs_in(annotation: Any) -> list[type[BaseModel]]:
    """Models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in specs_in(arg)]


def _words_in(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [arg for arg in get_args(annotation) if isinstance(arg, str)]
    return [word for arg in get_args(annotation) for word in _words_in(arg)]


def kind_of(model: type[BaseModel]) -> str:
    return str(model.model_fields["kind"].default) if "kind" in model.model_fields else ""

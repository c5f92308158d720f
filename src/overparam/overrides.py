"""Overrides: text such as `train.epochs=5` → a changed, fully validated `RunSpec`, or every error at once."""

import difflib
import json
import re
import types
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from overparam.identity import Spec
from overparam.specs.run import DataSpec, RunSpec

Assignment = tuple[str, Any]

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_NAMES: dict[Any, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


class OverrideError(ValueError):
    """Everything that is wrong with a configuration, one line per error."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


# ---- text → values ----------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: `1e-3` is a number, `no` a text, `1:30` and dates are texts."""


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", node.value.lower()).replace("_", ""))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    if twice := {str(key) for key in keys if keys.count(key) > 1}:
        raise yaml.constructor.ConstructorError(None, None, f"given twice: {', '.join(sorted(twice))}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


def _teach_loader() -> None:
    _Loader.yaml_implicit_resolvers = {}
    digits, exponent = r"[0-9][0-9_]*", r"([eE][-+]?[0-9]+)?"
    scalars = {
        "bool": r"true|True|TRUE|false|False|FALSE",
        "null": r"~|null|Null|NULL|",
        "int": rf"[-+]?{digits}",
        "float": rf"[-+]?(\.{digits}|{digits}(\.[0-9_]*)?){exponent}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "merge": r"<<",
    }
    for name, pattern in scalars.items():
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"^(?:{pattern})$"), None)
    _Loader.add_constructor("tag:yaml.org,2002:int", _int)
    _Loader.add_constructor("tag:yaml.org,2002:float", _float)
    _Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


_teach_loader()


def _parse(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def parse_value(text: str) -> Any:
    """Value of a scalar, a list `[a,b]` or `(a,b)`, or a table `{a: b}`.

    >>> [parse_value(text) for text in ("5", "1e-3", ".5", "true", "no", "(8,16)", "full")]
    [5, 0.001, 0.5, True, 'no', [8, 16], 'full']
    """
    text = text.strip()
    return _parse(f"[{text[1:-1]}]" if text.startswith("(") and text.endswith(")") else text)


def parse_assignments(texts: Iterable[str]) -> list[Assignment]:
    """`["train.epochs=5"]` → `[("train.epochs", 5)]`. Raises one `OverrideError` for all that cannot be read."""
    found: list[Assignment] = []
    problems: list[str] = []
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not all(part.strip() for part in path.split(".")):
            problems.append(f"{text!r} is not an assignment; allowed: field=value, such as train.epochs=5")
            continue
        try:
            found.append((".".join(part.strip() for part in path.split(".")), parse_value(value)))
        except yaml.YAMLError as error:
            problems.append(f"{path} = {value}: cannot be read; {_first_cause(error)}")
    if problems:
        raise OverrideError(problems)
    return found


def load_yaml(path: Path) -> dict[str, Any]:
    """The table that a YAML file holds."""
    try:
        value = _parse(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise OverrideError([f"{path}: cannot be read; {_first_cause(error)}"]) from None
    if not isinstance(value, dict):
        raise OverrideError([f"{path}: holds {_show(value)}; allowed: a table of fields"])
    return value


def _first_cause(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return f"{getattr(error, 'problem', None) or error}{place}"


# ---- values → specs ---------------------------------------------------------------------------------------------


def apply(spec: RunSpec, assignments: Iterable[Assignment]) -> RunSpec:
    """`spec` with fields replaced by dotted path, validated again.

    A new `kind` drops the fields that it lacks and keeps those it shares. Setting one of `train.epochs` and
    `train.steps` clears the other; a list of widths implies its depth. Raises one `OverrideError` for all errors.
    """
    given = list(assignments)
    paths = [path for path, _ in given]
    problems = [f"{path}: given {paths.count(path)} times; allowed: once" for path in paths if paths.count(path) > 1]
    tree = spec.model_dump()
    for path, value in sorted(given, key=lambda item: (item[0].count("."), not item[0].endswith(".kind"))):
        problems += _assign(tree, path, value)
        _clear_rivals(tree, path, value, paths)
    problems += _problems(tree)
    if problems:
        raise OverrideError(problems)
    return RunSpec.model_validate(tree)


def apply_overrides(spec: RunSpec, texts: Iterable[str]) -> RunSpec:
    """`spec` with assignments such as `train.epochs=5` applied."""
    return apply(spec, parse_assignments(texts))


def spec_from_mapping(mapping: Mapping[str, Any]) -> RunSpec:
    """Validated spec of a table, as read from YAML. Raises one `OverrideError` for all errors."""
    if problems := _problems(mapping):
        raise OverrideError(problems)
    return RunSpec.model_validate(mapping)


def _assign(tree: dict[str, Any], path: str, value: Any) -> list[str]:
    """Write one value into the tree; unknown names are written too, for validation to report."""
    *parents, name = path.split(".")
    node: Any = tree
    for depth, parent in enumerate(parents):
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            prefix = ".".join(parents[: depth + 1])
            return [f"{path} = {_show(value)}: {prefix} holds {_show(node)}, which has no fields"]
    if name == "kind":
        _keep_shared(node, _model_at(path.split(".")[:-1], value))
    node[name] = value
    return []


def _keep_shared(node: dict[str, Any], model: type[BaseModel] | None) -> None:
    for field in [field for field in node if model is not None and field not in model.model_fields]:
        del node[field]


def _clear_rivals(tree: dict[str, Any], path: str, value: Any, given: list[str]) -> None:
    """Remove what a new value replaces, unless it was itself given."""
    *parents, name = path.split(".")
    rival = {"epochs": "steps", "steps": "epochs", "width": "depth"}.get(name)
    if rival is None or value is None or (name == "width" and not isinstance(value, list | tuple)):
        return
    node: Any = tree
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if isinstance(node, dict) and ".".join([*parents, rival]) not in given:
        node.pop(rival, None)


def _problems(values: Any) -> list[str]:
    """Every error of a table that should describe a run.

    The tables `data` are checked apart: a run looks at data and training together before its other fields.
    """
    rest, apart = _without_data(values, "")
    lines = [] if not apart else _errors(RunSpec, rest, "", unless_missing=apart)
    for path, data in apart.items():
        lines += _errors(DataSpec, data, path)
    return lines or _errors(RunSpec, values, "")


def _without_data(values: Any, prefix: str) -> tuple[Any, dict[str, Any]]:
    """A run's table without `data`, its parents' too, and what was taken out by path."""
    if not isinstance(values, Mapping):
        return values, {}
    rest = {name: value for name, value in values.items() if name != "data"}
    apart = {f"{prefix}data": values["data"]} if "data" in values else {}
    for name, value in rest.items():
        if isinstance(value, Mapping) and isinstance(value.get("of"), Mapping):
            parent, more = _without_data(value["of"], f"{prefix}{name}.of.")
            rest[name], apart = {**value, "of": parent}, apart | more
    return rest, apart


def _errors(model: type[BaseModel], values: Any, prefix: str, unless_missing: Container[str] = ()) -> list[str]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        lines = _by_path(error, model, prefix)
        return [line for (path, kind), line in lines.items() if not (kind == "missing" and path in unless_missing)]
    return []


# ---- errors → sentences -----------------------------------------------------------------------------------------


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line per wrong field of `model`: its path, its value, what is allowed, the nearest match."""
    return list(_by_path(error, model, "").values())


def _by_path(error: ValidationError, model: type[BaseModel], prefix: str) -> dict[tuple[str, str], str]:
    """Lines by (path, type of error); the members of a union complain about the same path, the first one is kept."""
    lines: dict[tuple[str, str], str] = {}
    for detail in error.errors(include_url=False):
        names, owner, field = _locate(model, detail["loc"])
        path = ".".join([prefix, *names] if prefix else names)
        if not any(path == seen for seen, _ in lines):
            lines[path, detail["type"]] = _sentence(path or "run", owner, field, detail)
    return lines


def _locate(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel], FieldInfo | None]:
    """Names along pydantic's location without the tags of unions, the model that was reached, and its field."""
    owner, field, names = model, None, list[str]()
    options: list[type[BaseModel]] = [model]
    for part in loc:
        if len(options) > 1:
            options = [option for option in options if _kind(option) == part]
            continue
        if options:
            owner, field = options[0], options[0].model_fields.get(str(part))
            names.append(str(part))
            options = _specs_in(field.annotation) if field else []
        elif field is not None and get_origin(field.annotation) in (dict, tuple) and "[" not in str(part):
            names.append(str(part))
    return names, owner, field


def _sentence(path: str, owner: type[BaseModel], field: FieldInfo | None, detail: ErrorDetails) -> str:
    kind, given = detail["type"], detail["input"]
    fields = ", ".join(owner.model_fields)
    if kind == "value_error":
        shown = "" if isinstance(given, Mapping | Spec) else f" = {_show(given)}"
        return f"{path}{shown}: {detail['msg'].removeprefix('Value error, ')}"
    if field is None and kind in ("model_type", "model_attributes_type"):
        return f"{path} = {_show(given)}; allowed: a table of {fields}"
    if field is None:
        hint = _nearest(path.split(".")[-1], list(owner.model_fields))
        return f"{path} = {_show(given)}: no such field; allowed: {fields}{hint}"
    if kind.startswith("union_tag"):
        kinds, tag = [_kind(option) for option in _specs_in(field.annotation)], detail.get("ctx", {}).get("tag")
        wrong = f"{path}.kind: missing" if tag is None else f"{path}.kind = {_show(tag)}"
        return f"{wrong}; allowed: {' or '.join(map(_show, kinds))}{_nearest(tag, kinds)}"
    allowed = describe(field.annotation, field.metadata)
    if kind == "missing":
        return f"{path}: missing; allowed: {allowed}"
    return f"{path} = {_show(given)}; allowed: {allowed}{_nearest(given, _words_in(field.annotation))}"


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
        return " or ".join(_show(arg) for arg in args)
    if origin is tuple:
        return f"a list [{', '.join('…' if arg is Ellipsis else describe(arg) for arg in args)}]"
    if origin is dict:
        return f"a table of names with {describe(args[1])} each"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = _kind(annotation)
        return f"a table of kind {_show(kind)}" if kind else f"a table of {', '.join(annotation.model_fields)}"
    bounds = " and ".join(_bounds(metadata))
    return f"{_NAMES.get(annotation, 'null')} {bounds}".strip()


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for item in metadata:
        yield from _bounds(item.metadata) if isinstance(item, FieldInfo) else ()
        yield from (f"{sign} {getattr(item, name):g}" for name, sign in _BOUNDS.items() if hasattr(item, name))
        yield from ("not empty",) if getattr(item, "min_length", 0) else ()


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """Models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _specs_in(arg)]


def _words_in(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [arg for arg in get_args(annotation) if isinstance(arg, str)]
    return [word for arg in get_args(annotation) for word in _words_in(arg)]


def _kind(model: type[BaseModel]) -> str:
    return str(model.model_fields["kind"].default) if "kind" in model.model_fields else ""


def _model_at(path: list[str], kind: Any) -> type[BaseModel] | None:
    """Model of that kind which a run may hold at a path."""
    options: list[type[BaseModel]] = [RunSpec]
    for name in path:
        fields = [option.model_fields[name] for option in options if name in option.model_fields]
        options = [model for field in fields for model in _specs_in(field.annotation)]
    return next((option for option in options if _kind(option) == kind), None)


def _nearest(word: Any, words: list[str]) -> str:
    match = difflib.get_close_matches(str(word).lower(), words, n=1)
    return f"; nearest match: {match[0]}" if match else ""


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"

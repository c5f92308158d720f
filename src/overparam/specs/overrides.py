"""Overrides: text such as `train.epochs=5` → a changed, fully validated `RunSpec`, or every error at once."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from overparam.specs.explain import explain, kind_of, show, specs_in
from overparam.specs.run import RunSpec

Assignment = tuple[str, Any]


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
    except UnicodeDecodeError:
        raise OverrideError([f"{path}: is not a text in UTF-8; allowed: a YAML table of fields"]) from None
    except yaml.YAMLError as error:
        raise OverrideError([f"{path}: cannot be read; {_first_cause(error)}"]) from None
    if not isinstance(value, dict):
        raise OverrideError([f"{path}: holds {show(value)}; allowed: a table of fields"])
    return value


def yaml_overrides(path: Path) -> list[str]:
    """The fields of a YAML file as assignments, so that a file and the command line mean the same."""
    return [f"{name}={json.dumps(value)}" for name, value in _leaves("", load_yaml(path))]


def _leaves(prefix: str, value: Any) -> Iterator[Assignment]:
    """A table is split into its fields, unless its keys are names of tensors with dots in them."""
    named = isinstance(value, dict) and any("." in str(name) for name in value) and _holds_names(prefix)
    if not isinstance(value, dict) or (prefix and named):
        yield prefix, value
        return
    for name, child in value.items():
        yield from _leaves(f"{prefix}.{name}" if prefix else str(name), child)


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
    problems += _errors(RunSpec, tree)
    if problems:
        raise OverrideError(problems)
    return RunSpec.model_validate(tree)


def applies(spec: RunSpec, path: str, paths: Collection[str] = ()) -> bool:
    """Whether a run uses the field at a path: its model or optimizer has it, and `train.epochs` or `.steps` bounds it.

    A field that a new `kind` among `paths` brings along counts as used.
    """
    *parents, name = path.split(".")
    if ".".join([*parents, "kind"]) in paths:
        return True
    node: Any = spec
    for parent in parents:
        node = getattr(node, parent, None)
    if path in ("train.epochs", "train.steps"):
        return getattr(node, name) is not None
    return not isinstance(node, BaseModel) or name in type(node).model_fields


def value_at(spec: RunSpec, path: str) -> Any:
    """What a run holds at a dotted path, `None` where it has no such field."""
    node: Any = spec
    for name in path.split("."):
        node = getattr(node, name, None)
    return node


def apply_overrides(spec: RunSpec, texts: Iterable[str]) -> RunSpec:
    """`spec` with assignments such as `train.epochs=5` applied."""
    return apply(spec, parse_assignments(texts))


def spec_from_mapping(mapping: Mapping[str, Any]) -> RunSpec:
    """Validated spec of a table, as read from YAML. Raises one `OverrideError` for all errors."""
    if problems := _errors(RunSpec, mapping):
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
            return [f"{path} = {show(value)}: {prefix} holds {show(node)}, which has no fields"]
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


def _errors(model: type[BaseModel], values: Any) -> list[str]:
    """Every error of a table that should describe a `model`, one line each."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        return explain(error, model)
    return []


def _model_at(path: list[str], kind: Any) -> type[BaseModel] | None:
    """Model of that kind which a run may hold at a path."""
    return next((option for option in _models_at(path) if kind_of(option) == kind), None)


def _models_at(path: list[str]) -> list[type[BaseModel]]:
    """Every model that a run may hold at a path."""
    options: list[type[BaseModel]] = [RunSpec]
    for name in path:
        fields = [option.model_fields[name] for option in options if name in option.model_fields]
        options = [model for field in fields for model in specs_in(field.annotation)]
    return options


def _holds_names(path: str) -> bool:
    """Whether the field at a dotted path may hold a table whose keys are free, such as names of tensors."""
    *parents, name = path.split(".")
    kinds = [option.model_fields[name].annotation for option in _models_at(parents) if name in option.model_fields]
    return any(get_origin(part) is dict for kind in kinds for part in (kind, *get_args(kind)))

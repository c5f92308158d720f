"""Overrides: text such as `train.epochs=5` → a changed, fully validated `RunSpec`, or every error at once."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from overparam.foundations.words import show
from overparam.specs.assignments import Assignment, OverrideError, load_yaml, parse_assignments
from overparam.specs.explain import explain, kind_of, specs_in
from overparam.specs.run import RunSpec


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

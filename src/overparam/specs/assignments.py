"""Assignments as text: `train.epochs=5` → a field and a value, by the scalars of YAML 1.2."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from overparam.foundations.words import show

Assignment = tuple[str, Any]


class OverrideError(ValueError):
    """Everything that is wrong with a configuration, one line per error."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


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


def _first_cause(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return f"{getattr(error, 'problem', None) or error}{place}"

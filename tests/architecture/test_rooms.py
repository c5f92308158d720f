"""Rules about rooms, the parts of the package: they form floors, and imports point down.

Every import statement counts, also those inside functions and for type checkers only, which the import law cannot see
or leaves out. The floors are those of the import law in pyproject.toml.
"""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import overparam

ROOT = Path(overparam.__file__).parent
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def floors() -> list[list[str]]:
    """Rooms of each floor from the highest on; those of one floor must not import each other."""
    contracts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[room.strip().removeprefix("overparam.") for room in layer.split("|")] for layer in layers]


FLOOR = {room: floor for floor, rooms in enumerate(floors()) for room in rooms}


def imported(source: str) -> Iterator[str]:
    """Modules of the package that the import statements of a text name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            whole = (f"{node.module}.{each.name}" for each in node.names)
            yield from (each if each in MODULES else node.module for each in whole)


@cache
def graph() -> dict[str, set[str]]:
    return {module: set(imported(path.read_text(encoding="utf-8"))) - {module} for module, path in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def between_rooms() -> Iterator[tuple[str, str]]:
    """Imports from one room into another; what stands above all rooms is in none."""
    for module, others in graph().items():
        yield from ((module, other) for other in others if room(module) in FLOOR and room(module) != room(other))


def longest_chain(rooms: dict[str, set[str]]) -> list[str]:
    """The longest way down."""
    chains: dict[str, list[str]] = {}
    for each in TopologicalSorter(rooms).static_order():
        chains[each] = [each, *max((chains[below] for below in rooms.get(each, ())), key=len, default=[])]
    return max(chains.values(), key=len)


def test_every_kind_of_import_is_found() -> None:
    source = """
import numpy, overparam.cli.app
from overparam.cli import tables as shown
if TYPE_CHECKING:
    from overparam.identity import RunId
def f():
    from overparam.claims.verdict import judge
"""
    found = ["overparam.cli.app", "overparam.cli.tables", "overparam.identity", "overparam.claims.verdict"]
    assert sorted(imported(source)) == sorted(found)


def test_no_relative_imports() -> None:
    """They would be overlooked here."""
    trees = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}
    nodes = [(module, node) for module, tree in trees.items() for node in ast.walk(tree)]
    offenders = {module for module, node in nodes if isinstance(node, ast.ImportFrom) and node.level}
    assert not offenders, offenders


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} - {"", "__main__"} == FLOOR.keys()


def test_no_circle_between_files() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_imports_of_rooms_point_down() -> None:
    pairs = [(module, other) for module, other in between_rooms() if FLOOR[room(module)] >= FLOOR.get(room(other), -1)]
    offenders = [f"{module} imports {other}" for module, other in pairs]
    assert not offenders, offenders


def test_no_chain_of_rooms_is_longer_than_ten() -> None:
    rooms: dict[str, set[str]] = {}
    for module, other in between_rooms():
        rooms.setdefault(room(module), set()).add(room(other))
    assert 2 < len(longest_chain(rooms)) <= 10, longest_chain(rooms)


def test_the_package_has_at_most_14_entries() -> None:
    entries = sorted(path.name for path in ROOT.iterdir() if not path.name.startswith("__"))
    assert len(entries) <= 14, entries

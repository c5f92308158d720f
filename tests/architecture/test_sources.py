"""Rules about the source text: sizes, names, and who may print. Each test names every offender."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import overparam

ROOT = Path(overparam.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "core", "base"}

MAY_BE_SHORT = {  # name of a module: why it is one of its own, however short
    "__init__": "it says what its folder holds",
    "__main__": "`python -m overparam` looks for it",
    "version": "the build reads the version from it",
    "numpy_generators": "it is for all that must not load torch, which its twin for torch does",
    "templates": "the folder that it loads from is its own",
    "fields": "types that several specs share",
    "known_data": "what is known of data sets without reading any",
    "catalogue": "the list of studies: adding one is a line in it",
    "every": "the list of what its room has: adding one is a line in it",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text(path))


def is_documentation(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    total = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    return total - ((first.end_lineno or 0) - first.lineno + 1 if is_documentation(first) else 0)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def called(path: Path) -> Iterator[str]:
    """The last part of the name of everything that is called."""
    for call in (node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)):
        yield call.id if isinstance(call, ast.Name) else getattr(call, "attr", "")


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 100


def test_no_module_is_longer_than_400_lines() -> None:
    sizes = {name(path): len(text(path).splitlines()) for path in MODULES}
    offenders = {module: size for module, size in sizes.items() if size > 400}
    assert not offenders, offenders


def test_a_module_of_less_than_15_lines_has_a_reason() -> None:
    sizes = {name(path): len(text(path).splitlines()) for path in MODULES if path.stem not in MAY_BE_SHORT}
    offenders = {module: size for module, size in sizes.items() if size < 15}
    assert not offenders, offenders


def test_no_function_is_longer_than_50_lines() -> None:
    sizes = {f"{name(path)}:{each.lineno} {each.name}": lines(each) for path in MODULES for each in functions(path)}
    offenders = {function: size for function, size in sizes.items() if size > 50}
    assert not offenders, offenders


def test_only_the_command_line_prints() -> None:
    silent = {"choice", "options", "selftest", "user_model"}  # which only compute what is shown
    shows = {path for path in MODULES if path.parent.name == "cli" and path.stem not in silent}
    offenders = [name(path) for path in MODULES if "print" in called(path) and path not in shows]
    assert not offenders, offenders


def test_no_module_has_a_vague_name() -> None:
    offenders = [name(path) for path in MODULES if path.stem in VAGUE or path.parent.name in VAGUE]
    assert not offenders, offenders


def test_every_module_says_what_it_is() -> None:
    offenders = [name(path) for path in MODULES if text(path).strip() and not ast.get_docstring(tree(path))]
    assert not offenders, offenders

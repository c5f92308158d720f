"""The code of a function as a text in which other code is another text: its source, or else its bytecode."""

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from textwrap import dedent
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, MethodWrapperType
from typing import Any

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def code_text(function: Callable[..., Any]) -> str:
    """Source of a function, where there is one, else its bytecode, with the plain values that it carries.

    Plain are numbers, texts, `None` and tuples of them, as defaults, in a closure, as arguments of a `partial` or as
    attributes of an object that is called; functions in these places count by their own code. What it calls or reads
    by a global name, and values that are not plain, such as arrays, are no part of it.

    >>> power = lambda p: lambda x: x**p
    >>> code_text(power(2)) == code_text(power(2)), code_text(power(2)) == code_text(power(3))
    (True, False)
    """
    return "\n".join(_parts(function, ()))


def _parts(function: Any, above: tuple[object, ...]) -> Iterator[str]:
    """Code and values of something that can be called. What stands `above` it is met again in recursive functions."""
    above = (*above, function)
    if isinstance(function, partial):
        yield from _parts(function.func, above)
        yield from _carried("argument", enumerate(function.args), above)
        yield from _carried("argument", sorted(function.keywords.items()), above)
    elif isinstance(function, MethodType):
        yield from _parts(function.__func__, above)
        yield from _carried("attribute", _attributes(function.__self__), above)
    elif isinstance(function, FunctionType):
        yield _source(function.__code__) or _bytecode(function.__code__)
        yield from _carried("default", enumerate(function.__defaults__ or ()), above)
        yield from _carried("default", sorted((function.__kwdefaults__ or {}).items()), above)
        yield from _carried("closure", _cells(function), above)
    elif isinstance(call := inspect.getattr_static(type(function), "__call__", None), FunctionType):
        yield from _parts(call, above)
        yield from _carried("attribute", _attributes(function), above)
    elif hasattr(function, "__wrapped__"):  # as by functools.lru_cache
        yield from _parts(function.__wrapped__, above)
    else:  # a class, or a function of an extension
        yield f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _carried(place: str, values: Any, above: tuple[object, ...]) -> Iterator[str]:
    """What of some named values is part of a code: the plain ones, and the functions by their code."""
    for name, value in values:
        if _is_plain(value):
            yield f"{place} {name} = {value!r}"
        elif _is_code(value) and not any(value is each for each in above):
            yield f"{place} {name}:"
            yield from _parts(value, above)


def _is_plain(value: object) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _is_code(value: object) -> bool:
    return isinstance(value, (partial, MethodType, FunctionType, BuiltinFunctionType, MethodWrapperType))


def _cells(function: FunctionType) -> Iterator[tuple[str, object]]:
    """What a function holds of those around it, by name; a name that is not bound yet is left out."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue


def _attributes(owner: object) -> list[tuple[str, object]]:
    """Attributes of an object by name, sorted; none of a class, whose attributes are code."""
    if isinstance(owner, type):
        return []
    slots = [name for each in type(owner).__mro__ for name in getattr(each, "__slots__", ())]
    held: Mapping[str, object] = getattr(owner, "__dict__", {})
    return sorted({**{name: getattr(owner, name) for name in slots if hasattr(owner, name)}, **held}.items())


def _source(code: CodeType) -> str | None:
    try:
        if code.co_name == "<lambda>":
            return _lambda_source("".join(inspect.findsource(code)[0]), code)
        return dedent(inspect.getsource(code)).strip()
    except (OSError, SyntaxError, TypeError):
        return None


def _lambda_source(file: str, code: CodeType) -> str | None:
    """Its own part of its line, which may hold others; `None` if two that it may be are not the same."""
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    texts = {
        ast.get_source_segment(file, node)
        for node in ast.walk(ast.parse(file))
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno and _names(node.args) == names
    }
    (text,) = texts if len(texts) == 1 else (None,)
    return text and "\n".join(line.strip() for line in text.splitlines())


def _names(arguments: ast.arguments) -> tuple[str, ...]:
    return tuple(each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def _bytecode(code: CodeType) -> str:
    """Instructions, names and constants, functions among them by their own bytecode; no file name and no lines."""
    constants = [_bytecode(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return "\n".join([code.co_code.hex(), *code.co_names, *code.co_varnames, *code.co_freevars, *constants])


def _constant(value: object) -> str:
    """A set is written in an order that differs between processes."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)

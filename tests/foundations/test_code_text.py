"""The code of a function as text: the same where the function is the same, another where it is another."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from overparam.foundations.code_text import code_text


def power(p: Any) -> Callable[[float], float]:
    def measure(x: float) -> float:
        return float(x**p)

    return measure


def scaled(x: float, by: float = 2.0) -> float:
    return x * by


def thrice(x: float, *, by: float = 2.0) -> float:
    return 3.0 * x * by


def repeated(function: Callable[[float], float]) -> Callable[[float], float]:
    @functools.wraps(function)
    def twice(x: float) -> float:
        return function(function(x))

    return twice


@dataclass
class Power:
    p: float

    def __call__(self, x: float) -> float:
        return float(x**self.p)

    def half(self, x: float) -> float:
        return 0.5 * float(x**self.p)


class Slotted:
    __slots__ = ("p",)

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, x: float) -> float:
        return float(x**self.p)


def compiled(text: str) -> Any:
    """A function whose source is nowhere to be found."""
    return eval(compile(text, "<nowhere>", "eval"))


def recursive(p: float) -> Callable[[int], float]:
    def down(n: int) -> float:
        return p * down(n - 1) if n else 1.0

    return down


ONE, TWO = (lambda x: {"a": 1.0 * x}), (lambda x: {"a": 2.0 * x})  # of one line, with one name
BY_NAME, OTHER = (lambda x: x + 1), (lambda y: y + 1)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: power(2), lambda: power(3)),
        (lambda: power(("a", 2)), lambda: power(("a", 3))),
        (lambda: functools.partial(scaled, by=2.0), lambda: functools.partial(scaled, by=3.0)),
        (lambda: functools.partial(scaled, 2.0), lambda: functools.partial(scaled, 3.0)),
        (lambda: functools.partial(scaled, by=2.0), lambda: functools.partial(thrice, by=2.0)),
        (lambda: scaled, lambda: thrice),
        (lambda: Power(2), lambda: Power(3)),
        (lambda: Power(2), lambda: Power(2).half),
        (lambda: Power(2).half, lambda: Power(3).half),
        (lambda: Slotted(2), lambda: Slotted(3)),
        (lambda: repeated(scaled), lambda: repeated(thrice)),
        (lambda: repeated(scaled), lambda: scaled),
        (lambda: functools.partial(max, key=scaled), lambda: functools.partial(min, key=scaled)),
        (lambda: ONE, lambda: TWO),
        (lambda: BY_NAME, lambda: OTHER),
        (lambda: compiled("lambda x: x + 1"), lambda: compiled("lambda x: x + 2")),
        (lambda: compiled("lambda x: x.a"), lambda: compiled("lambda x: x.b")),
        (lambda: compiled("lambda x: (lambda: 1)"), lambda: compiled("lambda x: (lambda: 2)")),
        (lambda: compiled("lambda x, p=1: x"), lambda: compiled("lambda x, p=2: x")),
        (lambda: recursive(2.0), lambda: recursive(3.0)),
        (lambda: len, lambda: abs),
    ],
)
def test_the_text_tells_functions_apart(make: Callable[[], Any], other: Callable[[], Any]) -> None:
    assert code_text(make()) == code_text(make())
    assert code_text(make()) != code_text(other())


def test_where_a_function_stands_does_not_matter() -> None:
    """Else a line above it, or a test around it, would make it another one."""
    if True:

        def scaled(x: float, by: float = 2.0) -> float:
            return x * by

    assert code_text(scaled) == code_text(globals()["scaled"])
    first = lambda x: {"a": 1.0 * x}  # noqa: E731
    assert code_text(first) == code_text(lambda x: {"a": 1.0 * x})
    assert code_text(compiled("lambda x: x + 1")) == code_text(compiled("(\n\nlambda x: x + 1)"))


def test_what_no_plain_value_is_stays_out() -> None:
    """The address of an object, or what a list holds by now, would make each process refuse the last one's numbers."""
    assert code_text(power(object())) == code_text(power(object()))
    assert code_text(power([1])) == code_text(power([2]))

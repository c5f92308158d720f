"""What came of every measure of a network: right, refused in the expected words, or wrong; and what it changed."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from tests.support.foreign.measures import MEASURES, Given, Measure
from tests.support.foreign.network import Foreign
from tests.support.foreign.references import Reference
from tests.support.foreign.untouched import changes, snapshot

Verdict = Literal["right", "refused", "wrong"]


@dataclass(frozen=True)
class Outcome:
    """`touched` are the places that the measure left changed."""

    network: str
    measure: str
    verdict: Verdict
    words: str
    touched: tuple[str, ...]

    def __str__(self) -> str:
        changed = f"; changed: {', '.join(self.touched[:4])}" if self.touched else ""
        return f"{self.network}, {self.measure}: {self.verdict}, {self.words}{changed}"


def outcomes(network: Foreign, measures: Iterable[str] = MEASURES) -> Iterator[Outcome]:
    """Each measure on a network of its own, so that what one changes no other sees."""
    reference = Reference(network)
    for name in measures:
        given = handed_over(network)
        found, touched = watched(MEASURES[name], given)
        verdict, words = judged(network, name, found, reference)
        yield Outcome(network.name, name, verdict, words, touched)


def handed_over(network: Foreign) -> Given:
    """A network in modes of several kinds, and its data."""
    model = network.born().train()
    for child in list(model.children())[:1]:
        child.eval()
    return Given(network, model, *network.batch())


def watched(measure: Measure, given: Given) -> tuple[Any, tuple[str, ...]]:
    """What the measure gave or raised, and what it changed."""
    tensors = {"x": given.x, "y": given.y}
    before = snapshot(given.model, tensors)
    try:
        found = measure.call(given)
    except Exception as error:  # whatever it is, it is judged
        found = error
    return found, tuple(changes(before, snapshot(given.model, tensors)))


def judged(network: Foreign, name: str, found: Any, reference: Reference) -> tuple[Verdict, str]:
    expected = network.expected_refusal(name)
    if isinstance(found, Exception):
        words = f"{type(found).__name__}: {str(found).splitlines()[0][:300] if str(found) else ''}"
        wanted = expected is not None and isinstance(found, ValueError) and re.search(expected, str(found))
        return ("refused" if wanted else "wrong"), words
    if expected is not None:
        return "wrong", f'a value where "{expected}" is expected'
    tolerance = max(network.tolerance, 1e-3 if network.single or reference.by_differences else 0.0)
    values = list(MEASURES[name].check(found, reference))
    wrong = [value for value in values if not value.error <= max(tolerance, value.tolerance)]
    if wrong:
        return "wrong", "; ".join(map(str, wrong))
    return "right", f"to {max(value.error for value in values):.1e}"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C of this test."""


def interrupted(network: Foreign, name: str, at: int) -> Outcome:
    """The measure with Ctrl-C inside the forward pass number `at`, if it gets there."""
    given = handed_over(network)
    count = 0

    def stop(module: nn.Module, args: object, output: object) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise Interrupted

    given.model.register_forward_hook(stop)
    tensors = {"x": given.x, "y": given.y}
    before, said = snapshot(given.model, tensors), "ended"
    try:
        MEASURES[name].call(given)
    except Interrupted:
        said = "interrupted"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    touched = tuple(changes(before, snapshot(given.model, tensors)))
    fine = said in ("ended", "interrupted") or network.expected_refusal(name) is not None
    return Outcome(network.name, name, "right" if fine and not touched else "wrong", f"{said} in pass {at}", touched)

"""What observers see of a run while it trains, kept in rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from overparam.foundations.json_values import finite
from overparam.identity import digest_arrays
from overparam.runs.training.loop import Moment
from overparam.runs.training.observer import Observer
from overparam.runs.training.timetable import Timetable

Row = dict[str, float | None]


def place(moment: Moment) -> Row:
    """Where a run stands: what every row begins with."""
    return {"step": moment.step, "epoch": moment.step / moment.timetable.steps_per_epoch, "lr": moment.lr}


def seen(rows: Sequence[Row], moment: Moment) -> bool:
    """Whether the last row is of this moment: a checkpoint holds the rows of its own step."""
    return bool(rows) and rows[-1]["step"] == moment.step


def columns(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """Rows with the same names as a table by columns."""
    return {name: [row[name] for row in rows] for name in (rows[-1] if rows else ())}


@dataclass
class Observations:
    """Observers of one run, the steps that each wants to see, and what each has given so far: rows, and the test
    examples that were classified correctly at one of its looks.
    """

    observers: Sequence[Observer]
    timetable: Timetable
    rows: dict[str, list[Row]] = field(init=False)
    correct: dict[str, NDArray[np.uint8]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = {observer.name: [] for observer in self.observers}
        self._steps = {observer.name: observer.steps(self.timetable) for observer in self.observers}
        self._codes = {observer.name: observer.digest for observer in self.observers}  # before they look

    @property
    def steps(self) -> frozenset[int]:
        """Every step that one of them wants to see."""
        return frozenset().union(*self._steps.values())

    def look(self, moment: Moment) -> None:
        """Let every observer look that wants to see this step.

        Raises:
            RuntimeError: an observer changed the run; nothing of it is stored.
        """
        for observer in self.observers:
            rows = self.rows[observer.name]
            if moment.step in self._steps[observer.name] and not seen(rows, moment):
                before = digest_arrays(moment.state().arrays())
                moment.model.train()  # another observer may have left another mode
                found = {name: finite(float(value)) for name, value in observer.measure(moment).items()}
                if digest_arrays(moment.state().arrays()) != before:
                    raise RuntimeError(f'observer "{observer.name}" changed the run it looked at; it must only read')
                rows.append(_joined(observer.name, place(moment), found, rows))
                if (bits := observer.correct()) is not None:
                    self.correct[observer.name] = bits

    def columns(self) -> dict[str, dict[str, list[float | None]]]:
        """What each has seen, as it is stored."""
        return {name: columns(rows) for name, rows in self.rows.items()}

    def codes(self) -> dict[str, str]:
        """By what code each has seen it."""
        return {name: self._codes[name] for name in self.rows}

    def resume(self, rows: Mapping[str, list[Row]], correct: Mapping[str, NDArray[np.uint8]]) -> None:
        """Go on with what a checkpoint holds. Observers that it does not know are left out: they need a replay."""
        self.observers = [each for each in self.observers if each.name in rows]
        self.rows = {each.name: list(rows[each.name]) for each in self.observers}
        self.correct = {name: bits for name, bits in correct.items() if name in self.rows}
        for each in self.observers:
            each.resume(self.rows[each.name])


def _joined(name: str, where: Row, found: Row, rows: Iterable[Row]) -> Row:
    """A row of an observer: where it looked and what it found, under the same names as before."""
    row = where | found
    first = next(iter(rows), row)
    if len(row) < len(where) + len(found) or first.keys() != row.keys():
        raise RuntimeError(
            f'observer "{name}" gave the numbers {", ".join(found)}; it must give the same names at every step, and '
            f"none of {', '.join(where)}"
        )
    return row

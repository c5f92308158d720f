"""Observers: measurements that a run takes of itself while it trains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from overparam.foundations.code_text import code_text
from overparam.identity import digest_text
from overparam.runs.training.loop import Moment
from overparam.runs.training.timetable import Timetable

Rows = Sequence[Mapping[str, float | None]]


def _forget(rows: Rows) -> None:
    pass


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Observer:
    """Numbers read off a run at chosen steps and kept with it, without keeping its weights.

    `steps` maps the run's timetable to the steps to look at; `measure` gets the moment and must leave the model as it
    is; the model is in training mode when it is called. `name` stands for the measure and all its settings: a run that
    holds observations of that name at those steps is not measured again. If the measure has other code than the one
    that made them, the run refuses it. A measure that depends on what it saw before takes it up again in `resume`,
    which a run that goes on calls with the rows it has. `measure` must not read `moment.end` or `moment.reached`, which
    a replay does not know.

    `correct` is asked after each look for the test examples that the network classified correctly in it (`Risk.bits`);
    the last ones given are kept with the run, `None` leaves those of an earlier look.

    `code` names the code of the measure; `None` takes the digest of its own source and of the plain values that it
    carries, in defaults and closures. What the measure calls or reads by a global name is not seen: give the observer
    another name, or a `code` of your own, when that changes.

    >>> norm = lambda moment: {"norm": sum(float(p.detach().square().sum()) for p in moment.model.parameters()) ** 0.5}
    >>> Observer("weight norm", lambda timetable: frozenset(timetable.epoch_ends()), norm).name
    'weight norm'
    """

    name: str
    steps: Callable[[Timetable], frozenset[int]]
    measure: Callable[[Moment], Mapping[str, float]]
    resume: Callable[[Rows], None] = _forget
    code: str | None = None
    correct: Callable[[], NDArray[np.uint8] | None] = _nothing

    @cached_property
    def digest(self) -> str:
        """What its rows are kept with: `code`, else the digest of the measure as it is when it is first asked for."""
        return self.code if self.code is not None else digest_text(code_text(self.measure))

"""Observers: measurements that a run takes of itself while it trains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from overparam.runs.training.loop import Moment
from overparam.runs.training.timetable import Timetable

Rows = Sequence[Mapping[str, float | None]]


def _forget(rows: Rows) -> None:
    pass


@dataclass(frozen=True)
class Observer:
    """Numbers read off a run at chosen steps and kept with it, without keeping its weights.

    `steps` maps the run's timetable to the steps to look at; `measure` gets the moment and must leave the model as it
    is; the model is in training mode when it is called. `name` stands for the measure and all its settings: a run that
    holds observations of that name at those steps is not measured again. A measure that depends on what it saw before
    takes it up again in `resume`, which a run that goes on calls with the rows it has. `measure` must not read
    `moment.end` or `moment.reached`, which a replay does not know.

    >>> norm = lambda moment: {"norm": sum(float(p.detach().square().sum()) for p in moment.model.parameters()) ** 0.5}
    >>> Observer("weight norm", lambda timetable: frozenset(timetable.epoch_ends()), norm).name
    'weight norm'
    """

    name: str
    steps: Callable[[Timetable], frozenset[int]]
    measure: Callable[[Moment], Mapping[str, float]]
    resume: Callable[[Rows], None] = _forget

"""What steps and evaluations of a run take on this machine: its own network, batch size and data, alone on one core."""

import time
from collections.abc import Callable
from statistics import median

from overparam.allocator import freed_memory_kept
from overparam.costs import Throughput
from overparam.execution import Execution
from overparam.measure.risk import CHUNK, risk
from overparam.numerics import settled
from overparam.session import Session
from overparam.specs.run import RunSpec
from overparam.training.loop import train_loop

LONGEST_SECONDS = 0.25  # of one action, where it is slow
ENOUGH_SECONDS, ENOUGH_TIMES = 0.05, 15  # at least, for a median of quick ones


def measured_throughput(spec: RunSpec, execution: Execution) -> Throughput:
    """Time a few steps and one evaluation; nothing is written."""
    session = Session(spec, execution, frozenset())
    with freed_memory_kept(), settled(execution):
        return _timed(session, spec)


def _timed(session: Session, spec: RunSpec) -> Throughput:
    x, y = session.train
    steps_at_once = max(1, min(20, session.timetable.steps_per_epoch, 512 // session.timetable.batch_size))
    stops = range(0, 300 * steps_at_once, steps_at_once)
    still = spec.train.optimizer.model_copy(update={"lr": 1e-12})  # a step costs the same, and nothing can diverge
    length = {"optimizer": still, "epochs": None, "steps": stops[-1], "until_train_loss": None}
    endless = spec.train.model_copy(update=length)
    moments = train_loop(session.model(), x, y, endless, order=session.order, stops=frozenset(stops))
    model = next(moments).model
    next(moments)
    step = median_seconds(lambda: next(moments)) / steps_at_once
    chunk = x[: min(len(x), CHUNK)], y[: min(len(y), CHUNK)]
    return Throughput(step, median_seconds(lambda: risk(model, *chunk, spec.train.loss)) / len(chunk[1]))


def median_seconds(action: Callable[[], object]) -> float:
    times: list[float] = []
    total = 0.0
    while len(times) < 2 or (total < LONGEST_SECONDS and (len(times) < ENOUGH_TIMES or total < ENOUGH_SECONDS)):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
        total += times[-1]
    return median(times)

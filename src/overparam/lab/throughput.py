"""What steps and evaluations of a run take on this machine: its own network, batch size and data, alone on one core."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from overparam.foundations.allocator import freed_memory_kept
from overparam.lab.costs import Throughput
from overparam.models.masks import prunable
from overparam.models.risk import CHUNK, risk
from overparam.runs.determinism import settled
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.runs.training.loop import train_loop
from overparam.runs.training.state import State
from overparam.specs.run import Dense, RunSpec

LONGEST_SECONDS = 0.25  # of one action, where it is slow
ENOUGH_SECONDS, ENOUGH_TIMES = 0.05, 15  # at least, for a median of quick ones
MOST_TIMES = 200  # of the quickest ones; the steps that are timed are laid out before


def measured_throughput(spec: RunSpec, execution: Execution) -> Throughput:
    """Time a few steps and one evaluation; nothing is written."""
    with freed_memory_kept(), settled(execution):
        return _timed(Setting(spec, execution))


def _timed(setting: Setting) -> Throughput:
    spec, (x, y) = setting.spec, setting.train
    steps_at_once = max(1, min(20, setting.timetable.steps_per_epoch, 512 // setting.timetable.batch_size))
    stops = range(0, (MOST_TIMES + 2) * steps_at_once, steps_at_once)  # two are used up before anything is timed
    still = spec.train.optimizer.model_copy(update={"lr": 1e-12})  # a step costs the same, and nothing can diverge
    length = {"optimizer": still, "epochs": None, "steps": stops[-1], "until_train_loss": None}
    endless = spec.train.model_copy(update=length)
    model = setting.model()
    start = _masked_start(model, spec)
    moments = train_loop(model, x, y, endless, order=setting.order, stops=frozenset(stops), start=start)
    next(moments)
    next(moments)
    step = median_seconds(lambda: next(moments)) / steps_at_once
    chunk = x[: min(len(x), CHUNK)], y[: min(len(y), CHUNK)]
    return Throughput(step, median_seconds(lambda: risk(model, *chunk, spec.train.loss)) / len(chunk[1]))


def _masked_start(model: nn.Module, spec: RunSpec) -> State | None:
    """Where a masked run is timed from: which weights a mask keeps does not matter to its cost, so it keeps all."""
    if isinstance(spec.mask, Dense):
        return None
    weights = {name: value.detach() for name, value in model.named_parameters()}
    mask = {name: torch.ones_like(value, dtype=torch.bool) for name, value in prunable(weights).items()}
    return State(0, weights, dict(model.named_buffers()), {}, mask)


def median_seconds(action: Callable[[], object]) -> float:
    """Median seconds of an action, called 2 to `MOST_TIMES` times, more often the quicker it is."""
    times: list[float] = []
    while not _enough(len(times), sum(times)):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return median(times)


def _enough(times: int, total: float) -> bool:
    if times < 2:
        return False
    return times >= MOST_TIMES or total >= LONGEST_SECONDS or (times >= ENOUGH_TIMES and total >= ENOUGH_SECONDS)

"""What a run costs on this machine, measured by a few training steps before anything is spent.

A probe times real steps of the run's own model, batch size and data, alone on one core. Two or more workers
share caches and memory bandwidth; `SHARED` is the slow-down that two of them saw on the reference machine.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from overparam import paths
from overparam.allocator import freed_memory_kept
from overparam.data.load import prepare
from overparam.execution import Execution
from overparam.identity import digest_text
from overparam.measure.risk import CHUNK, risk
from overparam.models.build import count_parameters
from overparam.numerics import settled
from overparam.session import Session
from overparam.specs.probe import Measured
from overparam.specs.run import RunSpec
from overparam.store.store import replace_bytes
from overparam.training.loop import train_loop
from overparam.training.timetable import Timetable

PROBE_SECONDS = 0.25  # of one action at most, where it is slow
ENOUGH_SECONDS, ENOUGH_TIMES = 0.05, 15  # at least, for a median of quick ones
SHARED = 1.08
LOOKS = 12  # looks at the train loss that a run to a target typically takes near it
FIXED_SECONDS = 0.02  # building, decoding from the cache, writing: measured .007 on a warm worker


@dataclass(frozen=True)
class Throughput:
    """Seconds of one core per training step and per evaluated example."""

    step: float
    evaluated_example: float


def throughput_key(spec: RunSpec, num_train: int, environment: dict[str, str]) -> str:
    """Runs with the same key cost the same per step."""
    batch_size = Timetable(spec.train, num_train).batch_size
    parts = (
        spec.model.model_dump_json(),
        spec.train.optimizer.kind,
        batch_size,
        spec.data.name,
        sorted(environment.items()),
        *((spec.train.linearize, spec.train.lazy_scale is not None) if _anchored(spec) else ()),
    )
    return digest_text(repr(parts))


def _anchored(spec: RunSpec) -> bool:
    """Whether the network trains beside a frozen copy of its initial weights, which every state holds."""
    return spec.train.linearize or spec.train.lazy_scale is not None


@dataclass
class CostModel:
    """Estimates core-seconds and bytes; probes are kept in the store, so planning again is quick."""

    execution: Execution
    workers: int

    def __post_init__(self) -> None:
        self.file = paths.costs_file(self.execution.store)
        self.known = _read(self.file)

    def seconds(self, spec: RunSpec, share: float = 1.0, evaluations: int | None = None) -> float:
        """Core-seconds of a run that uses `share` of its step cap and is evaluated about so often."""
        examples = prepare(spec.data, data_dir=self.execution.data_dir)
        num_train, num_test = len(examples.train.y), len(examples.test.y) + len(examples.val.y)
        cost = self.throughput(spec, num_train)
        timetable = Timetable(spec.train, num_train)
        evaluated = len(timetable.log_spaced(evaluations or self.execution.evaluations)) * (num_train + num_test)
        if spec.train.loss_targets:
            evaluated += LOOKS * num_train
        slowdown = SHARED if self.workers > 1 else 1.0
        training = share * timetable.total_steps * cost.step
        return FIXED_SECONDS + slowdown * (training + evaluated * cost.evaluated_example)

    def probe_seconds(self, spec: RunSpec, probes: Sequence[Measured]) -> float:
        """Core-seconds of the probes of a run; one that looks back into the training replays it."""
        num_train = len(prepare(spec.data, data_dir=self.execution.data_dir).train.y)
        each = self.throughput(spec, num_train).evaluated_example
        slowdown = SHARED if self.workers > 1 else 1.0
        sizes = [min(probe.num_examples, num_train) for probe in probes]
        passes = math.fsum(probe.forward_passes * size for probe, size in zip(probes, sizes, strict=True))
        solves = math.fsum(probe.solve_seconds(size) for probe, size in zip(probes, sizes, strict=True))
        return slowdown * (passes * each + solves)

    def throughput(self, spec: RunSpec, num_train: int) -> Throughput:
        key = throughput_key(spec, num_train, self.execution.environment)
        if key not in self.known:
            self.known[key] = probe(spec, self.execution)
        return self.known[key]

    def save(self) -> None:
        """Keep the probes for the next plan."""
        text = json.dumps({key: asdict(value) for key, value in sorted(self.known.items())}, indent=1)
        replace_bytes(self.file, text.encode())


def _read(file: Path) -> dict[str, Throughput]:
    """Probes of earlier plans; a file that is damaged or of another version counts as none."""
    try:
        return {str(key): Throughput(**value) for key, value in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def probe(spec: RunSpec, execution: Execution) -> Throughput:
    """Time a few steps and one evaluation of a run's own network on its own data."""
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
    step = _median_seconds(lambda: next(moments)) / steps_at_once
    chunk = x[: min(len(x), CHUNK)], y[: min(len(y), CHUNK)]
    return Throughput(step, _median_seconds(lambda: risk(model, *chunk, spec.train.loss)) / len(chunk[1]))


def _median_seconds(action: Callable[[], object]) -> float:
    times: list[float] = []
    total = 0.0
    while len(times) < 2 or (total < PROBE_SECONDS and (len(times) < ENOUGH_TIMES or total < ENOUGH_SECONDS)):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
        total += times[-1]
    return median(times)


def disk_bytes(spec: RunSpec, execution: Execution) -> int:
    """Bytes that a stored run takes: its first and last state, with the optimizer's slots."""
    examples = prepare(spec.data, data_dir=execution.data_dir)
    parameters = count_parameters(spec.model, examples.input_shape, examples.num_classes)
    slots = 2 if spec.train.optimizer.kind == "adam" else 1
    frozen = 2 if _anchored(spec) else 0
    return 4 * parameters * (2 + slots + frozen) + 10_000

"""What a run costs: core-seconds and bytes, before anything is spent.

`plan` times a few real steps of each kind of run (`throughput`); what it found is kept in the store. Where nothing was
timed, `run` takes the arithmetic at the speed of the reference machine: it wants an order of the runs and a first guess
of the time left, which corrects itself. Two or more workers share caches and memory bandwidth; `SHARED` is the
slow-down that two of them saw on the reference machine.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from overparam.data.load import sizes
from overparam.data.types import Sizes
from overparam.foundations import paths
from overparam.foundations.files import replace_bytes
from overparam.identity import digest_text
from overparam.probes.probe import Probe
from overparam.runs.execution import Execution
from overparam.runs.training.timetable import Timetable
from overparam.specs.models.model import convolves, count_parameters, forward_flops
from overparam.specs.run import Dense, RunSpec

SHARED = 1.08
LOOKS = 12  # looks at the train loss that a run to a target typically takes near it
FIXED_SECONDS = 0.02  # building, decoding from the cache, writing: measured .007 on a warm worker

# One core of the reference machine (2 cores, x86_64), torch 2.13.0, both cores busy: seconds of a step whatever its
# size; seconds per example beside the arithmetic, and FLOP per second, in training and in evaluation.
STEP_SECONDS = 0.0004
# By whether the network has convolutions.
TRAINED = {False: (0.7e-6, 60e9), True: (60e-6, 80e9)}
EVALUATED = {False: (2e-6, 60e9), True: (15e-6, 55e9)}


@dataclass(frozen=True)
class Throughput:
    """Seconds of one core per training step and per evaluated example."""

    step: float
    evaluated_example: float


def of_reference(spec: RunSpec, data: Sizes) -> Throughput:
    """What the arithmetic of a run takes on the reference machine: a step 3 forward passes, a lazy one 4."""
    network = spec.model, data.input_shape, data.num_classes
    flops, convolutional = forward_flops(*network), convolves(*network)
    example, rate = TRAINED[convolutional]
    passes = 3 if spec.train.lazy_scale is None else 4
    step = STEP_SECONDS + Timetable(spec.train, data.train).batch_size * (example + passes * flops / rate)
    evaluated, rate = EVALUATED[convolutional]
    return Throughput(step, evaluated + flops / rate)


def throughput_key(spec: RunSpec, num_train: int, environment: dict[str, str]) -> str:
    """Runs with the same key cost the same per step."""
    batch_size = Timetable(spec.train, num_train).batch_size
    parts = (
        spec.model.model_dump_json(),
        spec.train.optimizer.kind,
        spec.train.loss,
        not isinstance(spec.mask, Dense),
        batch_size,
        spec.data.name,
        sorted((name, value) for name, value in environment.items() if name != "vector"),  # some say it only with torch
        *((spec.train.linearize, spec.train.lazy_scale is not None) if _anchored(spec) else ()),
    )
    return digest_text(repr(parts))


def _anchored(spec: RunSpec) -> bool:
    """Whether the network trains beside a frozen copy of its initial weights, which every state holds."""
    return spec.train.linearize or spec.train.lazy_scale is not None


@dataclass
class CostModel:
    """Estimates core-seconds and bytes; what `measure` times is kept in the store, so planning again is quick.

    Without `measure` only what an earlier plan timed is known, and the rest is taken from the reference machine.
    """

    execution: Execution
    workers: int
    measure: Callable[[RunSpec, Execution], Throughput] | None = None

    def __post_init__(self) -> None:
        self.file = paths.costs_file(self.execution.store)
        self.known = _read(self.file)

    def seconds(self, spec: RunSpec, share: float = 1.0, evaluations: int | None = None) -> float:
        """Core-seconds of a run that uses `share` of its step cap and is evaluated about so often."""
        data = sizes(spec.data, data_dir=self.execution.data_dir)
        cost = self.throughput(spec, data)
        timetable = Timetable(spec.train, data.train)
        looks = len(timetable.log_spaced(evaluations or self.execution.evaluations))
        evaluated = looks * (data.train + data.val + data.test)
        if spec.train.loss_targets:
            evaluated += LOOKS * data.train
        slowdown = SHARED if self.workers > 1 else 1.0
        training = share * timetable.total_steps * cost.step
        return FIXED_SECONDS + slowdown * (training + evaluated * cost.evaluated_example)

    def probe_seconds(self, spec: RunSpec, probes: Sequence[Probe]) -> float:
        """Core-seconds of the probes of a run; one that looks back into the training replays it."""
        data = sizes(spec.data, data_dir=self.execution.data_dir)
        each = self.throughput(spec, data).evaluated_example
        slowdown = SHARED if self.workers > 1 else 1.0
        counts = [min(probe.num_examples, data.train) for probe in probes]
        passes = math.fsum(probe.forward_passes * count for probe, count in zip(probes, counts, strict=True))
        solves = math.fsum(probe.solve_seconds(count) for probe, count in zip(probes, counts, strict=True))
        return slowdown * (passes * each + solves)

    def throughput(self, spec: RunSpec, data: Sizes) -> Throughput:
        """Seconds per step and per evaluated example: timed before, else timed now, else of the reference machine."""
        key = throughput_key(spec, data.train, self.execution.environment)
        if key not in self.known:
            if self.measure is None:
                return of_reference(spec, data)
            self.known[key] = self.measure(spec, self.execution)
        return self.known[key]

    def save(self) -> None:
        """Keep what was timed for the next plan."""
        text = json.dumps({key: asdict(value) for key, value in sorted(self.known.items())}, indent=1)
        replace_bytes(self.file, text.encode())


def _read(file: Path) -> dict[str, Throughput]:
    """Timings of earlier plans; a file that is damaged or of another version counts as none."""
    try:
        return {str(key): Throughput(**value) for key, value in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def disk_bytes(spec: RunSpec, execution: Execution) -> int:
    """Bytes that a stored run takes: its first and last state, with the optimizer's slots."""
    data = sizes(spec.data, data_dir=execution.data_dir)
    parameters = count_parameters(spec.model, data.input_shape, data.num_classes)
    frozen = 2 if _anchored(spec) else 0
    return 4 * parameters * (2 + spec.train.optimizer.slots + frozen) + 10_000

"""RunSpec → Run: the only place that wires data → model → training → measurement → store."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from torch import Tensor, nn

from overparam.data.load import content_digest, prepare
from overparam.data.types import Examples, Split
from overparam.identity import RunId, run_id
from overparam.measure.risk import Risk, risk
from overparam.models.build import build
from overparam.rng.torch_generators import torch_generator
from overparam.specs.run import Dense, Fresh, Rewind, RunSpec
from overparam.store.digests import digest_arrays
from overparam.store.provenance import differences, environment
from overparam.store.store import Store, StoreError
from overparam.training.loop import Moment, train_loop
from overparam.training.state import State, state_from_arrays
from overparam.training.status import Status, status_of
from overparam.training.timetable import Timetable

Row = dict[str, float | None]


@dataclass(frozen=True)
class Execution:
    """How runs are carried out. Nothing in here changes a run's numbers within one numeric environment."""

    store: Path = Path("runs")
    device: str = "cpu"
    threads: int = 1
    data_dir: Path | None = None
    evaluations: int = 6
    checkpoint_seconds: float = 60.0
    allow_mixed: bool = False

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.device, self.threads)


class UnsupportedSpec(ValueError):
    """The spec is valid but this version cannot train it."""


def _final(name: str) -> property:
    """Final eval-mode value of a run: a mean loss, or an accuracy in [0, 1]; NaN where there is no such split."""

    def value(run: "Run") -> float:
        found = run.result["final"][name]
        return math.nan if found is None else float(found)

    return property(value, doc=f"Final {name.replace('_', ' ')}, in eval mode.")


@dataclass(frozen=True)
class Run:
    """A trained network: spec, curves, final risks, states at stored steps, status."""

    run_id: RunId
    spec: RunSpec
    result: Mapping[str, Any] = field(repr=False)
    execution: Execution = field(repr=False)

    @property
    def status(self) -> Status:
        status: Status = self.result["status"]
        return status

    @cached_property
    def curves(self) -> pl.DataFrame:
        """One row per evaluation: step, epoch, lr, and loss and accuracy on train, val and test."""
        return pl.DataFrame(self.result["curves"])

    train_loss = _final("train_loss")
    train_accuracy = _final("train_accuracy")
    val_loss = _final("val_loss")
    val_accuracy = _final("val_accuracy")
    test_loss = _final("test_loss")
    test_accuracy = _final("test_accuracy")

    def state(self, step: int | Literal["init", "final"]) -> State:
        """Whole state at a step. A step that was not stored is replayed, and the replay must end in the same bits."""
        number = {"init": first_step(self.spec), "final": int(self.result["steps"])}.get(str(step), step)
        assert isinstance(number, int)
        return load_state(self.spec, number, self.execution)

    def weights(self, step: int | Literal["init", "final"] = "final") -> dict[str, Tensor]:
        """Named parameters at a step."""
        return self.state(step).weights


def train(spec: RunSpec, *, store: str | Path = "runs", workers: int = 1, **settings: Any) -> Run:
    """Train the network that `spec` describes, or read it from the store if it is there.

    `workers` is the number of torch threads of this one run; `settings` are those of `Execution`.
    """
    return execute(spec, Execution(store=Path(store), threads=workers, **settings))


class Interrupted(Exception):
    """The run was asked to stop; its progress is in a checkpoint."""


def execute(
    spec: RunSpec,
    execution: Execution,
    save_steps: frozenset[int] = frozenset(),
    should_stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Finished run of `spec`, from the store if possible; parents are executed first.

    Raises:
        Interrupted: `should_stop` turned true; the progress was checkpointed first.
    """
    refuse_unsupported(spec)
    store, identity = Store(execution.store), run_id(spec)
    with store.lock(identity):
        if not store.has(identity):
            if isinstance(spec.init, Rewind):
                execute(spec.init.of, execution, frozenset({spec.init.step}), should_stop)
            torch.set_num_threads(execution.threads)
            Session(spec, execution, save_steps).complete(should_stop)
        run = read(spec, execution)
        missing = save_steps - {int(step) for step in run.result["states"]}
        if missing:
            replay(run, missing)
    return run


def refuse_unsupported(spec: RunSpec) -> None:
    """Say what this version cannot train, before anything is computed."""
    if not isinstance(spec.mask, Dense):
        raise UnsupportedSpec(f'mask kind "{spec.mask.kind}" is not trained by this version; use Dense()')
    if spec.train.linearize:
        raise UnsupportedSpec("train.linearize=true is not trained by this version; use linearize=False")
    for parent in spec.parents():
        refuse_unsupported(parent)


def read(spec: RunSpec, execution: Execution) -> Run:
    """Finished run from the store.

    Raises:
        StoreError: it is missing or damaged, or was trained on other data than `spec` decodes to now.
    """
    identity = run_id(spec)
    result = Store(execution.store).result(identity)
    now = content_digest(spec.data, data_dir=execution.data_dir)
    if result["data_digest"] != now:
        raise StoreError(
            f"run {identity} was trained on {spec.data.name} data with digest {result['data_digest'][:12]}…, but the "
            f"data found now has {now[:12]}…; point --data-dir at the old data or use another --store"
        )
    return Run(identity, spec, result, execution)


def load_state(spec: RunSpec, step: int, execution: Execution) -> State:
    """State of a finished run at a step, replayed if it was not stored."""
    run = read(spec, execution)
    if str(step) not in run.result["states"]:
        replay(run, frozenset({step}))
    return state_from_arrays(step, Store(execution.store).state(run.run_id, step))


def first_step(spec: RunSpec) -> int:
    """The step a run starts at: 0, or where it was rewound to."""
    return spec.init.step if isinstance(spec.init, Rewind) else 0


def replay(run: Run, steps: frozenset[int]) -> None:
    """Train again from the nearest stored state and add the states at `steps` to the store.

    Raises:
        StoreError: a step lies outside the run, or the replay does not end in the stored final bits.
    """
    first, last = first_step(run.spec), int(run.result["steps"])
    if outside := [step for step in steps if not first <= step <= last]:
        raise StoreError(f"run {run.run_id} has the steps {first} … {last}; step {outside[0]} does not exist")
    store = Store(run.execution.store)
    stored = sorted(int(step) for step in run.result["states"])
    nearest = max(step for step in stored if step <= min(steps))
    session = Session(run.spec, run.execution, steps)
    states: dict[int, State] = {}
    for moment in session.moments(state_from_arrays(nearest, store.state(run.run_id, nearest)), steps | {last}):
        states[moment.step] = moment.state()
        if moment.step == last:
            break
    if digest_arrays(states[last].arrays()) != run.result["states"][str(last)]:
        change = differences(run.execution.environment, run.result["environment"]) or "the cause is unknown"
        raise StoreError(f"replaying run {run.run_id} does not end in the stored weights ({change})")
    store.add_states(run.run_id, {step: states[step].arrays() for step in steps})


@dataclass
class Session:
    """One attempt at a run: its data on the device, its model, and the progress made so far."""

    spec: RunSpec
    execution: Execution
    save_steps: frozenset[int]

    def __post_init__(self) -> None:
        self.store = Store(self.execution.store)
        self.run_id = run_id(self.spec)
        self.examples: Examples = prepare(self.spec.data, data_dir=self.execution.data_dir)
        self.image = len(self.examples.input_shape) == 3 and self.spec.model.kind == "cnn"
        self.splits = {name: self.on_device(getattr(self.examples, name)) for name in ("train", "val", "test")}
        self.train = self.splits["train"]
        self.timetable = Timetable(self.spec.train, len(self.train[1]))
        self.rows: list[Row] = []
        self.reached: list[float] = []
        self.states: dict[int, State] = {}
        self.seconds = 0.0

    def on_device(self, split: Split) -> tuple[Tensor, Tensor]:
        x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
        # Channels-last convolutions are about 1.4× faster on the CPU and at least as fast on a GPU.
        layout = torch.channels_last if self.image else torch.contiguous_format
        return x.to(self.execution.device, memory_format=layout), y.to(self.execution.device)

    def model(self) -> nn.Module:
        stream = self.spec.init.stream if isinstance(self.spec.init, Fresh) else "init"
        generator = torch_generator(self.spec.stream_seed(stream), stream)
        model = build(self.spec.model, self.examples.input_shape, self.examples.num_classes, generator=generator)
        layout = torch.channels_last if self.image else torch.contiguous_format
        return model.to(self.execution.device).to(memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def order(self, epoch: int) -> Tensor:
        generator = torch_generator(self.spec.stream_seed("order"), "order", epoch)
        return torch.randperm(len(self.train[1]), generator=generator)

    def moments(self, start: State | None, stops: frozenset[int]) -> Iterator[Moment]:
        targets = tuple(t for t in self.spec.train.loss_targets if t < min(self.reached, default=math.inf))
        x, y = self.train
        return train_loop(
            self.model(), x, y, self.spec.train, order=self.order, stops=stops, start=start, targets=targets
        )

    def complete(self, should_stop: Callable[[], bool]) -> None:
        """Train to the end, with evaluations and checkpoints on the way, and store the run."""
        start = self.resume() or self.start()
        evaluate_at = self.timetable.log_spaced(self.execution.evaluations)
        keep = self.save_steps | {first_step(self.spec)}
        stops = evaluate_at | keep | frozenset(self.timetable.epoch_ends())
        began, saved = time.process_time(), time.monotonic()
        for moment in self.moments(start, stops):
            if moment.step in keep or moment.end:
                self.states[moment.step] = moment.state()
            self.reached += moment.reached
            seen = bool(self.rows) and self.rows[-1]["step"] == moment.step  # a checkpoint holds its own row
            if not seen and (moment.step in evaluate_at or moment.reached or moment.end):
                self.rows.append(self.evaluate(moment))
            if moment.end:
                self.finish(moment, self.seconds + time.process_time() - began)
            elif should_stop() or time.monotonic() - saved >= self.execution.checkpoint_seconds:
                saved = time.monotonic()
                self.checkpoint(moment, self.seconds + time.process_time() - began)
                if should_stop():
                    raise Interrupted(f"run {self.run_id} stopped at step {moment.step}; its checkpoint is kept")

    def start(self) -> State | None:
        """Where a new run starts: its parent's state, or nothing."""
        init = self.spec.init
        if not isinstance(init, Rewind):
            return None
        self.refuse_mixed(read(init.of, self.execution).result["environment"], "the run it rewinds to was computed")
        return load_state(init.of, init.step, self.execution)

    def refuse_mixed(self, theirs: Mapping[str, str], what: str) -> None:
        """Bits are promised within one numeric environment; going on in another one must be asked for."""
        change = differences(self.execution.environment, theirs)
        if change and not self.execution.allow_mixed:
            raise StoreError(
                f"run {self.run_id}: {what} in another numeric environment ({change}); go on there, or pass "
                "--allow-mixed and lose bit-exactness"
            )

    def evaluate(self, moment: Moment) -> Row:
        row: Row = {"step": moment.step, "epoch": moment.step / self.timetable.steps_per_epoch, "lr": moment.lr}
        for name, (x, y) in self.splits.items():
            value = risk(moment.model, x, y, self.spec.train.loss) if len(y) else Risk(math.nan, math.nan, 0)
            row |= {f"{name}_loss": _finite(value.loss), f"{name}_accuracy": _finite(value.accuracy)}
        return row

    def finish(self, moment: Moment, seconds: float) -> None:
        final = {k: v for k, v in self.rows[-1].items() if k.rpartition("_")[2] in ("loss", "accuracy")}
        train_risk = Risk(final["train_loss"] or math.nan, final["train_accuracy"] or math.nan, len(self.train[1]))
        assert moment.end is not None
        loss, targets = self.spec.train.loss, self.spec.train.loss_targets
        result = {
            "status": status_of(moment.end, train_risk, self.examples.num_classes, loss, bool(targets)),
            "end": moment.end,
            "steps": moment.step,
            "epochs": moment.step / self.timetable.steps_per_epoch,
            "final": final,
            "curves": {name: [row[name] for row in self.rows] for name in self.rows[-1]},
            "targets_reached": self.reached,
            "diverged_at": moment.diverged_at,
            "last_finite_loss": moment.last_finite_loss,
            "num_train": len(self.train[1]),
            "num_test": len(self.examples.test.y),
            "data_digest": self.examples.digest,
            "noise_digest": self.examples.noise_digest,
            "environment": self.execution.environment,
            "seconds": seconds,
        }
        states = {step: state.arrays() for step, state in self.states.items()}
        self.store.write(self.run_id, self.spec.model_dump_json(), result, states)

    def checkpoint(self, moment: Moment, seconds: float) -> None:
        """Keep all that is needed to go on, including the states and rows gathered so far."""
        arrays = {f"now/{name}": value for name, value in moment.state().arrays().items()}
        for step, state in self.states.items():
            arrays |= {f"{step}/{name}": value for name, value in state.arrays().items()}
        meta = {
            "step": moment.step,
            "rows": self.rows,
            "reached": self.reached,
            "seconds": seconds,
            "environment": self.execution.environment,
            "data_digest": self.examples.digest,
        }
        self.store.save_checkpoint(self.run_id, arrays, meta)

    def resume(self) -> State | None:
        """State of the last checkpoint, with rows and kept states put back."""
        found = self.store.checkpoint(self.run_id)
        if found is None or found[1]["data_digest"] != self.examples.digest:
            return None
        arrays, meta = found
        self.refuse_mixed(meta["environment"], "it was interrupted")
        self.rows, self.reached, self.seconds = meta["rows"], meta["reached"], meta["seconds"]
        by_step: dict[str, dict[str, Any]] = {}
        for name, value in arrays.items():
            prefix, _, rest = name.partition("/")
            by_step.setdefault(prefix, {})[rest] = value
        now = by_step.pop("now")
        self.states = {int(step): state_from_arrays(int(step), group) for step, group in by_step.items()}
        return state_from_arrays(meta["step"], now)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""One attempt at a run: the only place that wires data → model → training → measurement → store."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from overparam.data.load import prepare
from overparam.data.types import Examples, Split
from overparam.runs.execution import Execution
from overparam.foundations.json_values import finite
from overparam.identity import run_id
from overparam.models.risk import Risk, risk
from overparam.models.build import build
from overparam.models.taylor.lazy import as_trained
from overparam.foundations.torch_generators import torch_generator
from overparam.specs.run import RunSpec
from overparam.identity import digest_arrays
from overparam.runs.store import Store
from overparam.runs.verified import refuse_mixed, refuse_other_data
from overparam.runs.training.loop import Moment, train_loop
from overparam.runs.training.observer import Observer
from overparam.runs.training.state import State, state_from_arrays
from overparam.runs.training.status import status_of
from overparam.runs.training.timetable import Timetable

from overparam.foundations.json_values import number

Row = dict[str, float | None]


class Interrupted(Exception):
    """The run was asked to stop; its progress is in a checkpoint."""


@dataclass
class Session:
    """One attempt at a run: the only place that wires data → model → training → measurement → store."""

    spec: RunSpec
    execution: Execution
    save_steps: frozenset[int]
    observers: Sequence[Observer] = ()

    def __post_init__(self) -> None:
        self.store = Store(self.execution.store)
        self.run_id = run_id(self.spec)
        self.examples: Examples = prepare(self.spec.data, data_dir=self.execution.data_dir)
        self.image = len(self.examples.input_shape) == 3 and self.spec.model.kind == "cnn"
        self.splits = {name: self.on_device(getattr(self.examples, name)) for name in ("train", "val", "test")}
        self.train = self.splits["train"]
        self.timetable = Timetable(self.spec.train, len(self.train[1]))
        self.watch = {observer.name: observer.steps(self.timetable) for observer in self.observers}
        self.rows: list[Row] = []
        self.observed: dict[str, list[Row]] = {observer.name: [] for observer in self.observers}
        self.reached: list[float] = []
        self.states: dict[int, State] = {}
        self.last_loss: float | None = None
        self.mixed: list[str] = []
        self.seconds = 0.0

    def on_device(self, split: Split) -> tuple[Tensor, Tensor]:
        x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
        # Channels-last convolutions are about 1.4× faster on the CPU and at least as fast on a GPU.
        layout = torch.channels_last if self.image else torch.contiguous_format
        return x.to(self.execution.device, memory_format=layout), y.to(self.execution.device)

    def model(self, state: State | None = None) -> nn.Module:
        """The network that the run trains, as initialized or with a state's weights and buffers."""
        stream = getattr(self.spec.init, "stream", "init")
        generator = torch_generator(self.spec.stream_seed(stream), stream)
        model = build(self.spec.model, self.examples.input_shape, self.examples.num_classes, generator=generator)
        model = as_trained(model, self.spec.train.linearize, self.spec.train.lazy_scale)
        layout = torch.channels_last if self.image else torch.contiguous_format
        model = model.to(self.execution.device)
        model.to(memory_format=layout)  # type: ignore[call-overload]
        if state is not None:
            model.load_state_dict({**state.weights, **state.buffers})
        return model

    def order(self, epoch: int) -> Tensor:
        generator = torch_generator(self.spec.stream_seed("order"), "order", epoch)
        return torch.randperm(len(self.train[1]), generator=generator)

    def moments(self, start: State | None, stops: frozenset[int], targets: tuple[float, ...]) -> Iterator[Moment]:
        """The run from `start` on, with the loss targets that it still has to meet."""
        model, (x, y), train = self.model(), self.train, self.spec.train
        return train_loop(
            model, x, y, train, order=self.order, stops=stops, start=start, targets=targets, last_loss=self.last_loss
        )

    def complete(self, start: State | None, mixed: Sequence[str], should_stop: Callable[[], bool]) -> None:
        """Train from the last checkpoint, else from `start`, to the end, and store the run.

        `mixed` names the other numeric environments that `start` comes from.
        """
        self.mixed = list(mixed)
        start = self.resume() or start
        evaluate_at = self.timetable.log_spaced(self.execution.evaluations)
        keep = self.save_steps | {self.spec.first_step}
        eighths = self.timetable.eighths()  # only there, so that a resumed run looks at its loss as an unbroken one
        stops = evaluate_at | keep | self.observed_steps | eighths
        targets = tuple(t for t in self.spec.train.loss_targets if t < min(self.reached, default=math.inf))
        began, saved = time.process_time(), time.monotonic()
        for moment in self.moments(start, stops, targets):
            if moment.step in keep or moment.end:
                self.states[moment.step] = moment.state()
            self.reached += moment.reached
            self.observe(moment)
            if not _seen(self.rows, moment) and (moment.step in evaluate_at or moment.reached or moment.end):
                self.rows.append(self.evaluate(moment))
            if moment.end:
                self.finish(moment, self.seconds + time.process_time() - began)
            elif moment.diverged_at is not None or moment.step not in eighths:
                continue  # a diverged run's end is near and already certain
            elif should_stop() or time.monotonic() - saved >= self.execution.checkpoint_seconds:
                saved = time.monotonic()
                self.checkpoint(moment, self.seconds + time.process_time() - began)
                if should_stop():
                    raise Interrupted(f"run {self.run_id} stopped at step {moment.step}; its checkpoint is kept")

    @property
    def observed_steps(self) -> frozenset[int]:
        return frozenset().union(*self.watch.values())

    def observe(self, moment: Moment) -> None:
        """Let every observer look that wants to see this step.

        Raises:
            RuntimeError: an observer changed the run; nothing of it is stored.
        """
        for observer in self.observers:
            rows = self.observed[observer.name]
            if moment.step in self.watch[observer.name] and not _seen(rows, moment):
                before = digest_arrays(moment.state().arrays())
                moment.model.train()  # another observer may have left another mode
                found = {name: finite(float(value)) for name, value in observer.measure(moment).items()}
                if digest_arrays(moment.state().arrays()) != before:
                    raise RuntimeError(f'observer "{observer.name}" changed the run it looked at; it must only read')
                rows.append(_joined(observer.name, self.place(moment), found, rows))

    def observations(self) -> dict[str, dict[str, list[float | None]]]:
        return {name: _columns(rows) for name, rows in self.observed.items()}

    def place(self, moment: Moment) -> Row:
        return {"step": moment.step, "epoch": moment.step / self.timetable.steps_per_epoch, "lr": moment.lr}

    def evaluate(self, moment: Moment) -> Row:
        row = self.place(moment)
        for name, (x, y) in self.splits.items():
            value = risk(moment.model, x, y, self.spec.train.loss) if len(y) else Risk(math.nan, math.nan, 0)
            row |= {f"{name}_loss": finite(value.loss), f"{name}_accuracy": finite(value.accuracy)}
        return row

    def finish(self, moment: Moment, seconds: float) -> None:
        final = {k: v for k, v in self.rows[-1].items() if k.rpartition("_")[2] in ("loss", "accuracy")}
        train_risk = Risk(number(final["train_loss"]), number(final["train_accuracy"]), len(self.train[1]))
        assert moment.end is not None
        loss, targets = self.spec.train.loss, self.spec.train.loss_targets
        result: dict[str, Any] = {
            "status": status_of(moment.end, train_risk, self.examples.num_classes, loss, bool(targets)),
            "end": moment.end,
            "steps": moment.step,
            "epochs": moment.step / self.timetable.steps_per_epoch,
            "final": final,
            "curves": _columns(self.rows),
            "targets_reached": self.reached,
            "diverged_at": moment.diverged_at,
            "last_finite_loss": moment.last_loss,
            "num_train": len(self.train[1]),
            "num_test": len(self.examples.test.y),
            "data_digest": self.examples.digest,
            "noise_digest": self.examples.noise_digest,
            "environment": self.execution.environment,
            "mixed": self.mixed,
            "observed": self.observations(),
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
            "observed": self.observed,
            "reached": self.reached,
            "last_loss": moment.last_loss,
            "seconds": seconds,
            "mixed": self.mixed,
            "environment": self.execution.environment,
            "data_digest": self.examples.digest,
        }
        self.store.save_checkpoint(self.run_id, arrays, meta)

    def resume(self) -> State | None:
        """State of the last checkpoint, with rows and kept states put back.

        Raises:
            StoreError: it was made with other data, or in another numeric environment without leave to mix.
        """
        found = self.store.checkpoint(self.run_id)
        if found is None:
            return None
        arrays, meta = found
        refuse_other_data(self.spec, self.run_id, "was begun", meta["data_digest"], self.examples.digest)
        self.mixed += refuse_mixed(self.execution, meta["environment"], f"run {self.run_id} was interrupted")
        self.mixed += [text for text in meta["mixed"] if text not in self.mixed]
        self.observers = [each for each in self.observers if each.name in meta["observed"]]  # others need a replay
        self.rows, self.observed = meta["rows"], {each.name: meta["observed"][each.name] for each in self.observers}
        for each in self.observers:
            each.resume(self.observed[each.name])
        self.reached, self.last_loss, self.seconds = meta["reached"], meta["last_loss"], meta["seconds"]
        by_step: dict[str, dict[str, Any]] = {}
        for name, value in arrays.items():
            prefix, _, rest = name.partition("/")
            by_step.setdefault(prefix, {})[rest] = value
        now = by_step.pop("now")
        self.states = {int(step): state_from_arrays(int(step), group) for step, group in by_step.items()}
        return state_from_arrays(meta["step"], now)


def _joined(name: str, place: Row, found: Row, rows: list[Row]) -> Row:
    """A row of an observer: where it looked and what it found, under the same names as before."""
    row = place | found
    if len(row) < len(place) + len(found) or (rows and rows[0].keys() != row.keys()):
        raise RuntimeError(
            f'observer "{name}" gave the numbers {", ".join(found)}; it must give the same names at every step, and '
            f"none of {', '.join(place)}"
        )
    return row


def _seen(rows: list[Row], moment: Moment) -> bool:
    """A checkpoint holds the rows of its own step."""
    return bool(rows) and rows[-1]["step"] == moment.step


def _columns(rows: list[Row]) -> dict[str, list[float | None]]:
    return {name: [row[name] for row in rows] for name in (rows[-1] if rows else ())}



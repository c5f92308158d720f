"""THE training loop: a generator that yields the moments it was asked for.

What happens at a moment (evaluating, saving, measuring) is the caller's business; nothing a caller does at a
moment changes the numbers of the run, because the loop holds the only optimizer and draws no random numbers
outside the data order, which is a function of the epoch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from overparam.measure.losses import batch_mean
from overparam.measure.risk import risk
from overparam.specs.run import TrainSpec
from overparam.training.optim import build_optimizer, set_lr
from overparam.training.state import State, capture, restore
from overparam.training.timetable import Timetable

TOLERANCE = 0.1  # a target loss counts as reached within ±10 %
NEAR = 5.0  # looking at the train loss starts when a batch's loss comes within this factor of the target
OVERSHOT = 0.5  # below this share of the smallest target the run has passed it

End = Literal["length", "target", "overshot", "diverged"]


@dataclass(frozen=True)
class Moment:
    """The run at a step. `end` says why it is the last moment, if it is."""

    step: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    timetable: Timetable
    lr: float
    end: End | None = None
    reached: tuple[float, ...] = ()
    diverged_at: int | None = None
    last_finite_loss: float | None = None

    def state(self) -> State:
        """Copy of the whole state."""
        return capture(self.step, self.model, self.optimizer)


def train_loop(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    spec: TrainSpec,
    *,
    order: Callable[[int], Tensor],
    stops: frozenset[int],
    start: State | None = None,
    targets: tuple[float, ...] | None = None,
) -> Iterator[Moment]:
    """Train `model` in place on (x, y) and yield a `Moment` at each step in `stops` and at the end.

    Args:
        order: epoch → permutation of the N examples, on the CPU.
        start: state to go on from; `None` starts at step 0 with the model as it is.
        targets: loss targets still to be met, `None` for all of the spec's.
    """
    run = _Run(model, x, y, spec, order)
    step = run.begin(start)
    pending = spec.loss_targets if targets is None else targets
    checks = run.timetable.loss_checks() if pending else frozenset()
    total = run.timetable.total_steps
    halts = sorted({s for s in (*stops, *run.timetable.epoch_ends(), *checks) if step < s <= total})
    if step in stops or not halts:
        yield run.moment(step, "length" if not halts else None)
    for halt in halts:
        losses = run.advance(step, halt)
        step = halt
        if (broken := _first_non_finite(losses)) is not None:
            yield run.diverged(halt, losses, broken)
            return
        run.last_finite = float(losses[-1])
        moment = run.moment(step, "length" if step == total else None)
        if step in checks and float(losses[-1]) <= NEAR * pending[0]:
            moment = run.check(moment, pending)
            pending = tuple(t for t in pending if t < min(moment.reached, default=torch.inf))
        if step in stops or moment.reached or moment.end:
            yield moment
        if moment.end:
            return


class _Run:
    """The mutable parts of one run: model, optimizer, data and the batch order of the current epoch."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, spec: TrainSpec, order: Callable[[int], Tensor]):
        self.model, self.x, self.y, self.spec, self.order = model, x, y, spec, order
        self.optimizer = build_optimizer(spec.optimizer, model)
        self.timetable = Timetable(spec, len(x))
        self.epoch, self.permutation = -1, torch.empty(0)
        self.last_finite: float | None = None

    def begin(self, start: State | None) -> int:
        self.model.train()
        if start is None:
            return 0
        restore(start, self.model, self.optimizer)
        return start.step

    def moment(self, step: int, end: End | None) -> Moment:
        return Moment(step, self.model, self.optimizer, self.timetable, self.timetable.lr(max(0, step - 1)), end)

    def advance(self, step: int, until: int) -> Tensor:
        """Update from `step` to `until` and return the batch losses of these updates."""
        losses = []
        for current in range(step, until):
            x, y = self.batch(current)
            self.optimizer.zero_grad(set_to_none=True)
            loss = batch_mean(self.spec.loss, self.model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).cpu()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(step, self.timetable.steps_per_epoch)
        if epoch != self.epoch:
            set_lr(self.optimizer, self.timetable.lr(step))
            self.epoch = epoch
            if self.timetable.steps_per_epoch > 1:
                self.permutation = self.order(epoch).to(self.x.device)
        if self.timetable.steps_per_epoch == 1:
            return self.x, self.y
        size = self.timetable.batch_size
        chosen = self.permutation[position * size : (position + 1) * size]
        return self.x[chosen], self.y[chosen]

    def check(self, moment: Moment, targets: tuple[float, ...]) -> Moment:
        """Look at the train loss; say which targets it meets and whether the last is met or passed."""
        now = risk(self.model, self.x, self.y, self.spec.loss)
        reached = tuple(t for t in targets if abs(now.loss / t - 1.0) <= TOLERANCE)
        end = moment.end
        if targets[-1] in reached:
            end = "target"
        elif now.loss < OVERSHOT * targets[-1]:
            end = "overshot"
        return replace(moment, end=end, reached=reached)

    def diverged(self, step: int, losses: Tensor, broken: int) -> Moment:
        """The moment after a non-finite loss: `diverged_at` is the update whose loss it was, counted from 1."""
        last = float(losses[broken - 1]) if broken else self.last_finite
        at = step - len(losses) + broken + 1
        return replace(self.moment(step, "diverged"), diverged_at=at, last_finite_loss=last)


def _first_non_finite(losses: Tensor) -> int | None:
    broken = (~torch.isfinite(losses)).nonzero()
    return int(broken[0]) if len(broken) else None

"""THE training loop: a generator that yields the moments it was asked for.

What happens at a moment (evaluating, saving, measuring) is the caller's business; nothing a caller does at a
moment changes the numbers of the run, because the loop holds the only optimizer and draws no random numbers
outside the data order, which is a function of the epoch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from overparam.models.masks import Mask
from overparam.models.risk import risk
from overparam.runs.result import End
from overparam.runs.training.gradients import kept_gradient
from overparam.runs.training.optim import build_optimizer, set_lr, update_of
from overparam.runs.training.pruning import mask_like, refuse_regrown, thinned
from overparam.runs.training.state import State, capture, restore
from overparam.runs.training.timetable import Timetable
from overparam.specs.train import TrainSpec

TOLERANCE = 0.1  # a target loss counts as reached within ±10 %
NEAR = 5.0  # a look at the train loss is worth it once the median batch since the last check is below this × target
OVERSHOT = 0.5  # below this share of the smallest target the run has passed it


@dataclass(frozen=True)
class Moment:
    """The run at a step. `end` says why it is the last moment, if it is.

    `last_loss` is the last finite batch loss; `diverged_at` is the first update whose loss was not finite, from 1.
    """

    step: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    timetable: Timetable
    lr: float
    end: End | None = None
    reached: tuple[float, ...] = ()
    last_loss: float | None = None
    diverged_at: int | None = None
    mask: Mask = field(default_factory=dict)

    def state(self) -> State:
        """Copy of the whole state."""
        return capture(self.step, self.model, self.optimizer, self.mask)


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
    last_loss: float | None = None,
) -> Iterator[Moment]:
    """Train `model` in place on (x, y) and yield a `Moment` at each step in `stops` and at the end.

    When a run ends, and in which state, does not depend on `stops`: a non-finite loss ends it after its epoch.

    Args:
        order: epoch → permutation of the N examples, on the CPU.
        start: state to go on from; `None` starts at step 0 with the model as it is.
        targets: loss targets still to be met, `None` for all of the spec's.
        last_loss: the last finite batch loss before `start`.
    """
    run = _Run(model, x, y, spec, order, last_loss)
    step = run.begin(start)
    pending = spec.loss_targets if targets is None else targets
    run.looking = bool(pending)
    checks = run.timetable.eighths() if pending else frozenset()
    epoch_ends, total = run.timetable.epoch_ends(), run.timetable.total_steps
    halts = sorted({s for s in (*stops, *epoch_ends, *checks) if step < s <= total})
    if step in stops or not halts:
        yield run.moment(step, "length" if not halts else None)
    for halt in halts:
        run.advance(step, halt)
        step = halt
        moment = run.moment(step, "length" if step == total else None)
        if run.diverged_at is not None and step in epoch_ends:
            moment = replace(moment, end="diverged")
        elif step in checks:
            moment = run.check(moment, pending)
            pending = tuple(t for t in pending if t < min(moment.reached, default=torch.inf))
        if step in stops or moment.reached or moment.end:
            yield moment
        if moment.end:
            return


class _Run:
    """The mutable parts of one run: model, optimizer, data and the batch order of the current epoch."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        spec: TrainSpec,
        order: Callable[[int], Tensor],
        last_loss: float | None,
    ):
        self.model, self.x, self.y, self.spec, self.order = model, x, y, spec, order
        self.optimizer = build_optimizer(spec.optimizer, model)
        self.timetable = Timetable(spec, len(x))
        self.per_epoch, self.rows = self.timetable.steps_per_epoch, rows_of(x)
        self.epoch = -1
        self.chosen: tuple[Tensor, ...] = ()
        self.modules, self.gradient = list(model.modules()), kept_gradient(model, spec)
        self.last_loss = last_loss
        self.diverged_at: int | None = None
        self.since_check: list[Tensor] = []
        self.looking = False
        self.mask: Mask = {}

    def begin(self, start: State | None) -> int:
        if start is None:
            return 0
        restore(start, self.model, self.optimizer)
        self.mask = mask_like(start.mask, self.model)
        return start.step

    def moment(self, step: int, end: End | None) -> Moment:
        if self.diverged_at is None:
            refuse_regrown(self.model, self.mask, step)
        return Moment(
            step=step,
            model=self.model,
            optimizer=self.optimizer,
            timetable=self.timetable,
            lr=self.timetable.lr(max(0, step - 1)),
            end=end,
            last_loss=self.last_loss,
            diverged_at=self.diverged_at,
            mask=self.mask,
        )

    def advance(self, step: int, until: int) -> None:
        """Update from `step` to `until`; the mode is set anew because a caller may have left another one."""
        if not all(module.training for module in self.modules):
            self.model.train()
        losses = []
        gradient, update = self.gradient(), update_of(self.optimizer)
        if self.mask:
            gradient = thinned(gradient, self.model, self.mask)
        for current in range(step, until):
            losses.append(gradient(*self.batch(current)))
            update()
        self.note(step, torch.stack(losses).cpu())

    def note(self, step: int, losses: Tensor) -> None:
        """Keep the batch losses since the last check, the last finite one, and when they stopped being finite."""
        if self.looking:
            self.since_check.append(losses)
        if self.diverged_at is not None:
            return
        for after, loss in enumerate(losses.tolist(), step + 1):
            if not math.isfinite(loss):
                self.diverged_at = after
                return
            self.last_loss = loss

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            set_lr(self.optimizer, self.timetable.lr(step))
            self.epoch = epoch
            if self.per_epoch > 1:
                self.chosen = torch.split(self.order(epoch).to(self.x.device), self.timetable.batch_size)
        if self.per_epoch == 1:
            return self.x, self.y
        return self.rows(self.chosen[position]), self.y.index_select(0, self.chosen[position])

    def check(self, moment: Moment, targets: tuple[float, ...]) -> Moment:
        """Look at the train loss if it can be near; say which targets it meets and whether the last is met or passed.

        The median, because one hard example can make any single small batch look far.
        """
        recent, self.since_check = torch.cat(self.since_check), []
        if not float(recent.median()) <= NEAR * targets[0]:
            return moment
        now = risk(self.model, self.x, self.y, self.spec.loss)
        reached = tuple(t for t in targets if abs(now.loss / t - 1.0) <= TOLERANCE)
        end = moment.end
        if targets[-1] in reached:
            end = "target"
        elif now.loss < OVERSHOT * targets[-1]:
            end = "overshot"
        return replace(moment, end=end, reached=reached)


def rows_of(x: Tensor) -> Callable[[Tensor], Tensor]:
    """Indices → `x[indices]`, in the same layout: of dense examples by copying whole rows, 2 to 4 times as fast."""
    shape, strides = x.shape[1:], x.stride()
    if strides[0] != shape.numel() or x[0].clone().stride() != strides[1:]:
        return lambda chosen: x[chosen]
    rows = x.as_strided((len(x), strides[0]), (strides[0], 1))
    return lambda chosen: rows.index_select(0, chosen).as_strided((len(chosen), *shape), strides)

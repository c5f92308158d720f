"""When things happen in a run: epochs, steps, learning rate, evaluation and loss checks. Pure arithmetic."""

import math
from dataclasses import dataclass

from overparam.specs.train import TrainSpec


@dataclass(frozen=True)
class Timetable:
    """Calendar of a run on `num_train` examples. The last, ragged batch of an epoch is used."""

    spec: TrainSpec
    num_train: int

    @property
    def batch_size(self) -> int:
        size = self.spec.batch_size
        return self.num_train if size == "full" else min(size, self.num_train)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_train / self.batch_size)

    @property
    def total_steps(self) -> int:
        """Last step of the run, or its cap if it stops at a loss."""
        if self.spec.steps is not None:
            return self.spec.steps
        assert self.spec.epochs is not None
        return self.spec.epochs * self.steps_per_epoch

    def lr(self, step: int) -> float:
        """Learning rate of the update that follows `step` updates.

        Cosine: `lr · ½(1 + cos(π t/T))` with t the first step of the running epoch and T the total, that is,
        annealed per epoch.
        """
        lr = self.spec.optimizer.lr
        if self.spec.schedule == "constant":
            return lr
        epoch_start = step - step % self.steps_per_epoch
        return 0.5 * lr * (1.0 + math.cos(math.pi * epoch_start / self.total_steps))

    def epoch_ends(self) -> tuple[int, ...]:
        """Steps after which an epoch is complete, and the last step."""
        ends = range(self.steps_per_epoch, self.total_steps + 1, self.steps_per_epoch)
        return tuple(sorted({*ends, self.total_steps}))

    def eighths(self) -> frozenset[int]:
        """`loss_checks_per_epoch` (8) equally spaced steps of each epoch, its end among them.

        A run that stops at a loss looks at it there, and checkpoints are possible there.
        """
        per_epoch = min(self.spec.loss_checks_per_epoch, self.steps_per_epoch)
        offsets = [math.ceil(k * self.steps_per_epoch / per_epoch) for k in range(1, per_epoch + 1)]
        starts = range(0, self.total_steps, self.steps_per_epoch)
        return frozenset(start + offset for start in starts for offset in offsets)

    def log_spaced(self, count: int) -> frozenset[int]:
        """About `count` epoch ends spaced evenly in log(epoch), with the first and the last."""
        ends = self.epoch_ends()
        positions = [round(len(ends) ** (k / max(1, count - 1))) - 1 for k in range(count)]
        return frozenset(ends[min(position, len(ends) - 1)] for position in positions) | {ends[-1]}

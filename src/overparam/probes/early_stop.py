"""Where a run would have been stopped by its validation loss, and how good it was there."""

from typing import Literal

from pydantic import Field, PositiveInt

from overparam.probes.probe import Measured


class EarlyStop(Measured):
    """The step of lowest validation loss among frequent looks along the run, and the test accuracy at that step.

    Looks are at multiples of `every` steps, later about `growth` times the last one: a step is known to within `every`
    or some 15 %, whichever is more. `early_stop_censored` is 1 where the last look is the lowest, so that the run may
    end too early; accuracies and steps are then of the end of the run. Test examples are looked at only where the
    validation loss is the lowest so far. Needs `num_val` > 0.
    """

    kind: Literal["early_stop"] = "early_stop"
    num_examples: Literal[10_000] = 10_000  # all validation and a part of the test examples at each look; for plans
    every: PositiveInt = 100
    growth: float = Field(default=1.1, ge=1.0)

    def watched(self, first: int, last: int) -> frozenset[int]:
        """Steps of a run from `first` to `last` that are looked at, the last among them.

        >>> sorted(EarlyStop(every=100, growth=1.5).watched(0, 1000))
        [100, 200, 300, 400, 700, 1000]
        """
        steps, look = {last}, float(self.every)
        while (step := self.every * round(look / self.every)) < last:
            steps.add(step)
            look = max(look * self.growth, step + self.every)
        return frozenset(step for step in steps if step >= first)

    @property
    def only_whole(self) -> bool:
        return True

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("early_stop_step", "early_stop_accuracy", "early_stop_val_loss", "early_stop_censored")

    @property
    def ranked(self) -> tuple[str, ...]:
        return ()

    @property
    def forward_passes(self) -> float:
        return 35.0  # looks of a run of some 100 × `every` steps

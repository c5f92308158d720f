"""Where a run would have been stopped by its validation loss, and how good it was there."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from overparam.foundations.json_values import number
from overparam.probes.probe import Probe, Values, probe_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from overparam.probes.subject import Subject
    from overparam.runs.setting import Setting
    from overparam.runs.training.loop import Moment
    from overparam.runs.training.observer import Observer, Rows
    from overparam.runs.training.timetable import Timetable


class EarlyStop(Probe):
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
    def correct(self) -> Mapping[str, str]:
        return {"early_stop_correct": self._observer_name}

    @property
    def forward_passes(self) -> float:
        return 35.0  # looks of a run of some 100 × `every` steps

    def observer(self, setting: "Setting") -> "Observer":
        """Looks at validation and test loss while the run trains: what the probe is read from.

        Raises:
            UnsupportedSpec: the run has no validation examples.
        """
        from overparam.models.risk import Risk, risk
        from overparam.runs.checks import UnsupportedSpec
        from overparam.runs.training.observer import Observer

        (x, y), (x_test, y_test) = setting.splits["val"], setting.splits["test"]
        if not len(y):
            raise UnsupportedSpec("data.num_val = 0, but early stopping needs validation examples; set data.num_val")
        best, first, loss_name = [math.inf], setting.spec.first_step, setting.spec.train.loss
        tested: list[Risk | None] = [None]  # at the last look, if it was the best so far

        def look(moment: "Moment") -> dict[str, float]:
            loss = risk(moment.model, x, y, loss_name).loss
            lowest, best[0] = loss < best[0], min(best[0], loss)  # in this order NaN is no minimum
            tested[0] = risk(moment.model, x_test, y_test, loss_name) if lowest else None
            return {"val_loss": loss, "test_accuracy": math.nan if tested[0] is None else tested[0].accuracy}

        def correct() -> "NDArray[np.uint8] | None":
            return None if tested[0] is None else tested[0].bits

        def resume(rows: "Rows") -> None:
            best[0] = min((row["val_loss"] for row in rows if row["val_loss"] is not None), default=math.inf)

        def steps(timetable: "Timetable") -> frozenset[int]:
            return self.watched(first, timetable.total_steps)

        return Observer(self._observer_name, steps, look, resume=resume, code=probe_id(self), correct=correct)

    @property
    def _observer_name(self) -> str:
        return f"early stop {probe_id(self)}"

    def take(self, subject: "Subject") -> Iterator[Values]:
        """Step, accuracy and loss at the lowest validation loss of a run that was watched; the first of equals."""
        seen = subject.run.observations(self._observer_name)
        columns = {name: seen[name].to_list() for name in seen.columns}
        for _ in subject.steps:
            yield self.lowest(columns)

    def lowest(self, seen: Mapping[str, Sequence[float | None]]) -> Values:
        """The look of lowest validation loss in a table of looks by columns; a loss that is no number is none."""
        losses = seen.get("val_loss", [])  # none if the run ended before the first look
        finite = [(loss, place) for place, loss in enumerate(losses) if loss is not None]
        if not finite:
            return dict.fromkeys(self.metrics, math.nan)
        loss, place = min(finite)
        return {
            "early_stop_step": float(number(seen["step"][place])),
            "early_stop_accuracy": seen["test_accuracy"][place],
            "early_stop_val_loss": loss,
            "early_stop_censored": float(place == len(losses) - 1),
            "steps": seen["step"],
            "val_losses": losses,
        }

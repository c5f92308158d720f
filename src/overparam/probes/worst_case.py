"""The largest loss within a ball around the weights."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from overparam.probes.probe import GRADIENT, Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class WorstCase(Probe):
    """The largest loss increase that ascent finds within a radius."""

    kind: Literal["worst_case"] = "worst_case"
    radius: PositiveFloat
    norm: Literal["l2", "linf", "keskar"]
    adaptive: bool = False
    steps: PositiveInt = 10
    restarts: PositiveInt = 2

    @property
    def metrics(self) -> tuple[str, ...]:
        return (f"{'adaptive_' if self.adaptive else ''}worst_{self.norm}_{self.radius:g}",)

    @property
    def ranked(self) -> tuple[str, ...]:
        return self.columns

    @property
    def forward_passes(self) -> float:
        return len(self.at) * GRADIENT * self.steps * self.restarts

    def take(self, subject: "Subject") -> Iterator[Values]:
        from overparam.measure.sharpness.worst_case import worst_case_sharpness

        data = subject.train(self.num_examples)
        for step in subject.steps:
            found = worst_case_sharpness(
                subject.network(step),
                subject.loss,
                data,
                radius=self.radius,
                norm=self.norm,
                adaptive=self.adaptive,
                steps=self.steps,
                restarts=self.restarts,
                generator=self.generator(),
            )
            yield {self.metrics[0]: found.value, "status": found.status}

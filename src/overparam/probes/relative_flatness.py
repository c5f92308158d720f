"""The curvature of the last layer times its own weights."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from overparam.probes.probe import BUILD, Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class RelativeFlatness(Probe):
    """Petzka's relative flatness of the last weight matrix."""

    kind: Literal["relative_flatness"] = "relative_flatness"
    probes: int = Field(default=30, ge=2)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("relative_flatness",)

    @property
    def ranked(self) -> tuple[str, ...]:
        return self.columns

    @property
    def forward_passes(self) -> float:
        return len(self.at) * (BUILD + self.probes)  # the last layer's products reach no other layer

    def take(self, subject: "Subject") -> Iterator[Values]:
        from overparam.measure.sharpness.relative_flatness import relative_flatness

        data = subject.train(self.num_examples)
        for step in subject.steps:
            model, generator = subject.network(step), self.generator()
            found = relative_flatness(model, subject.loss, data, probes=self.probes, generator=generator)
            bounds = {"lower": found.lower, "upper": found.upper, "status": found.status}
            yield {"relative_flatness": found.value, **bounds}

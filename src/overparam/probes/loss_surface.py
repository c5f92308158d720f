"""Loss on a plane through the network."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from overparam.probes.probe import Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class LossSurface(Probe):
    """Loss on a plane through the network, along two filter-normalized random directions."""

    kind: Literal["surface"] = "surface"
    points: int = Field(default=15, ge=3)
    span: PositiveFloat = 1.0

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    @property
    def forward_passes(self) -> float:
        return len(self.at) * float(self.points**2)

    def take(self, subject: "Subject") -> Iterator[Values]:
        from overparam.measure.sharpness.surface import loss_surface

        data = subject.train(self.num_examples)
        for step in subject.steps:
            model, generator = subject.dense_network(step, self), self.generator()
            found = loss_surface(model, subject.loss, data, span=self.span, points=self.points, generator=generator)
            yield {"coordinates": found.coordinates.tolist(), "losses": found.losses.tolist()}

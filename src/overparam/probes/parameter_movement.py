"""How far training has moved the parameters."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from overparam.probes.probe import Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class ParameterMovement(Probe):
    """`‖θ_t − θ_0‖`, and that over `‖θ_0‖`, in total and per parameter."""

    kind: Literal["movement"] = "movement"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("relative_movement", "absolute_movement")

    @property
    def forward_passes(self) -> float:
        return 0.0

    def take(self, subject: "Subject") -> Iterator[Values]:
        from overparam.measure.comparison.movement import parameter_movement

        for step in subject.steps:
            found = parameter_movement(subject.start, subject.network(step))
            yield {
                "relative_movement": found.relative,
                "absolute_movement": found.absolute,
                "per_parameter": found.per_parameter,
            }

"""Loss and accuracy under Gaussian noise on the weights."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from overparam.probes.probe import Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class WeightNoise(Probe):
    """Loss and accuracy under Gaussian weight noise of each σ."""

    kind: Literal["noise"] = "noise"
    sigmas: tuple[PositiveFloat, ...]
    draws: int = Field(default=3, ge=2)
    antithetic: bool = True
    scale: Literal["absolute", "filter", "adaptive"] = "absolute"

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(f"{self.scale}_noise_{sigma:g}" for sigma in self.sigmas)

    @property
    def ranked(self) -> tuple[str, ...]:
        return self.columns

    @property
    def forward_passes(self) -> float:
        return len(self.at) * (1.0 + len(self.sigmas) * self.draws * (2 if self.antithetic else 1))

    def take(self, subject: "Subject") -> Iterator[Values]:
        from overparam.measure.sharpness.weight_noise import perturbation_curve

        by_row = self.scale == "filter"  # in which a pruned weight would count in the length of its row
        data, sigmas = subject.train(self.num_examples), list(self.sigmas)
        for step in subject.steps:
            model = subject.dense_network(step, self) if by_row else subject.network(step)
            curve = perturbation_curve(
                model,
                subject.loss,
                data,
                sigmas,
                draws=self.draws,
                scale=self.scale,
                antithetic=self.antithetic,
                generator=self.generator(),
            )
            yield {
                **dict(zip(self.metrics, curve.increase.tolist(), strict=True)),
                "sigma": sigmas,
                "loss": curve.base_loss,
                "accuracy": curve.base_accuracy,
                "increase_lower": curve.increase_lower.tolist(),
                "increase_upper": curve.increase_upper.tolist(),
                "accuracies": curve.accuracy_mean.tolist(),
            }

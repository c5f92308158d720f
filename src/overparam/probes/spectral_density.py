"""The whole spectrum of the Hessian."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from overparam.probes.probe import BUILD, PRODUCT, Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class SpectralDensity(Probe):
    """Nodes and weights of the Hessian's spectrum.

    With a `prior_precision` c, in the unit of the eigenvalues, also the effective parameters `Σ λ/(λ + c)` over the
    positive ones (MacKay 1992), beside the number of all parameters.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"prior_precision": None}
    kind: Literal["density"] = "density"
    steps: PositiveInt = 40
    probes: int = Field(default=2, ge=2)
    prior_precision: PositiveFloat | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return () if self.prior_precision is None else ("effective_parameters", "num_parameters")

    @property
    def forward_passes(self) -> float:
        return len(self.at) * (BUILD + PRODUCT * self.steps * self.probes)

    def take(self, subject: "Subject") -> Iterator[Values]:
        from overparam.measure.spectrum.density import spectral_density

        data, loss = subject.train(self.num_examples), subject.loss
        counts = self.prior_precision is not None  # weights, among which pruned ones would be
        for step in subject.steps:
            model = subject.dense_network(step, self) if counts else subject.network(step)
            generator = self.generator()
            found = spectral_density(model, loss, data, steps=self.steps, probes=self.probes, generator=generator)
            values: dict[str, Any] = {"nodes": found.nodes.tolist(), "weights": found.weights.tolist()}
            values |= {"num_parameters": found.num_parameters, "num_products": found.num_products}
            if self.prior_precision is not None:
                values["effective_parameters"] = found.effective_dimension(self.prior_precision).value
                values["num_parameters"] = float(found.num_parameters)
            yield values

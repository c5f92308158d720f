"""The trace of the Hessian."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from overparam.probes.probe import BUILD, PRODUCT, Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class HessianTrace(Probe):
    """Trace of the Hessian by Hutch++, with its 95 % interval."""

    kind: Literal["trace"] = "trace"
    max_products: int = Field(default=45, ge=6)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("trace",)

    @property
    def ranked(self) -> tuple[str, ...]:
        return self.columns

    @property
    def forward_passes(self) -> float:
        return len(self.at) * (BUILD + PRODUCT * self.max_products)

    def take(self, subject: "Subject") -> Iterator[Values]:
        from overparam.measure.spectrum.trace import hessian_trace

        data = subject.train(self.num_examples)
        for step in subject.steps:
            model, generator = subject.network(step), self.generator()
            found = hessian_trace(model, subject.loss, data, max_products=self.max_products, generator=generator)
            yield {"trace": found.value, "lower": found.lower, "upper": found.upper, "status": found.status}

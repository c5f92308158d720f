"""Whether two runs that differ only in the order of their examples end in one basin."""

from typing import Literal

from pydantic import Field, PositiveInt

from overparam.probes.probe import Measured
from overparam.specs.run import RunSpec


class Connectivity(Measured):
    """How far loss and error rise on the straight path to a run that saw the examples in another order.

    The other run has the same start and the same mask, and draws its order with `order_seed`. At no barrier both are
    stable to the noise of SGD (Frankle et al. 2020). Measured on the first `num_examples` training examples.
    """

    kind: Literal["connectivity"] = "connectivity"
    num_examples: PositiveInt = 2000
    order_seed: int = Field(default=10_000, ge=0)
    points: int = Field(default=11, ge=3)

    def siblings(self, spec: RunSpec) -> tuple[RunSpec, ...]:
        """The other run. Raises `ValueError` for a full batch, which has no order."""
        if spec.train.batch_size == "full":
            raise ValueError('train.batch_size = "full" has no order of examples; connectivity needs smaller batches')
        other = self.order_seed + (spec.stream_seed("order") == self.order_seed)  # never its own order
        return (spec.model_copy(update={"streams": {**spec.streams, "order": other}}),)

    @property
    def only_whole(self) -> bool:
        return True

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("error_barrier", "loss_barrier")

    @property
    def ranked(self) -> tuple[str, ...]:
        return ()

    @property
    def forward_passes(self) -> float:
        return 1.5 * self.points

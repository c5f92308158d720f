"""Whether two runs that differ only in the order of their examples end in one basin."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from overparam.probes.probe import Probe, Values
from overparam.specs.run import RunSpec

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class Connectivity(Probe):
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
    def forward_passes(self) -> float:
        return 1.5 * self.points

    def take(self, subject: "Subject") -> Iterator[Values]:
        (sibling,) = self.siblings(subject.spec)
        for _ in subject.steps:
            yield self._barrier(subject, sibling)

    def _barrier(self, subject: "Subject", sibling: RunSpec) -> Values:
        from overparam.measure.comparison.barrier import loss_barrier

        other = subject.other(sibling)
        if other.status == "diverged":
            return dict.fromkeys(self.metrics, math.nan)
        states = (run.state("final") for run in (subject.run, other))
        ours, theirs = ({**state.weights, **state.buffers} for state in states)
        model, data = subject.setting.model().eval(), subject.train(self.num_examples)
        found = loss_barrier(model, ours, theirs, data, subject.loss, points=self.points)
        curves = {"losses": found.losses.tolist(), "errors": found.errors.tolist()}
        return {"error_barrier": found.error_barrier, "loss_barrier": found.loss_barrier, **curves}

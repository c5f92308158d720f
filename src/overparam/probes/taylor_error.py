"""How far the trained function is from its first-order expansion at the start."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from overparam.probes.probe import Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class TaylorError(Probe):
    """`f(θ_T) − [f(θ_0) + J(θ_0)(θ_T − θ_0)]` on test examples, relative to `f(θ_T) − f(θ_0)`, in root mean squares."""

    kind: Literal["taylor"] = "taylor"
    num_test: int = Field(default=1000, ge=1)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("taylor_error",)

    @property
    def forward_passes(self) -> float:
        return 5.0 * len(self.at)

    def take(self, subject: "Subject") -> Iterator[Values]:
        import torch

        from overparam.measure.kernels.linearization import linearize

        x, _ = subject.test(self.num_test)
        for step in subject.steps:
            model = subject.network(step)
            with torch.no_grad():
                before, after = subject.start(x).double(), model(x).double()
                first_order = linearize(subject.start, x)(model).double()
            moved = float((after - before).square().mean().sqrt())
            apart = float((after - first_order).square().mean().sqrt())
            error = apart / moved if moved > 0.0 else 0.0
            yield {"taylor_error": error, "difference": apart, "function_moved": moved}

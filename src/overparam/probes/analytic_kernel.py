"""The kernel at the start beside that of infinite width."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from overparam.probes.kernels import BACKWARD, OUTPUTS
from overparam.probes.probe import Probe, Values
from overparam.specs.models.mlp import MLP
from overparam.specs.run import RunSpec

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class AnalyticKernel(Probe):
    """Relative Frobenius distance of the kernel at the start from that of infinite width. NTK parameterization only."""

    kind: Literal["analytic_kernel"] = "analytic_kernel"
    num_examples: PositiveInt = 128

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("analytic_distance",)

    @property
    def forward_passes(self) -> float:
        return 1.0 + 2.0 * BACKWARD * OUTPUTS

    def take(self, subject: "Subject") -> Iterator[Values]:
        from torch import eye

        from overparam.measure.kernels.empirical import empirical_ntk
        from overparam.measure.kernels.infinite import analytic_ntk
        from overparam.measure.kernels.similarity import kernel_drift

        depth, activation = infinite_twin(subject.spec)
        x, _ = subject.train(self.num_examples)
        found = empirical_ntk(subject.start, x).double()
        limit = analytic_ntk(x, depth=depth, activation=activation).to(found)
        blocks = limit[:, :, None, None] * eye(found.shape[2]).to(found)
        distance = kernel_drift(blocks, found)
        for _ in subject.steps:
            yield {"analytic_distance": distance}


def infinite_twin(spec: RunSpec) -> tuple[int, Literal["relu", "erf"]]:
    """Depth and activation of the network of infinite width that a run's network is one of finite width of.

    Raises:
        UnsupportedSpec: no such kernel is known.
    """
    from overparam.runs.checks import UnsupportedSpec

    model, unscaled = spec.model, spec.train.lazy_scale in (None, 1.0)
    scaled = isinstance(model, MLP) and model.parameterization == "ntk" and not model.bias
    if isinstance(model, MLP) and scaled and unscaled and model.activation in ("relu", "erf"):
        return len(model.widths) + 1, model.activation
    raise UnsupportedSpec(
        'the kernel of infinite width is known for MLP(parameterization="ntk", bias=False) with relu or erf, '
        f"not for {model!r}"
    )

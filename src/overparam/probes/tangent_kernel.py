"""The empirical tangent kernel beside that of the start."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from overparam.probes.kernels import BACKWARD, EIGENVALUES, OUTPUTS
from overparam.probes.probe import Probe, Values

if TYPE_CHECKING:
    from torch import Tensor

    from overparam.probes.subject import Subject


class TangentKernel(Probe):
    """The empirical kernel, all blocks, beside that of the start: drift, distance, alignment with labels, spectrum."""

    kind: Literal["tangent_kernel"] = "tangent_kernel"
    num_examples: PositiveInt = 128

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("kernel_drift", "kernel_distance", "label_alignment", "label_alignment_gain", *self.spectrum)

    @property
    def spectrum(self) -> tuple[str, ...]:
        return ("effective_rank", "kernel_lambda_max", "kernel_lambda_max_init")

    @property
    def forward_passes(self) -> float:
        return (1 + len(self.at)) * (1.0 + 2.0 * BACKWARD * OUTPUTS)

    def solve_seconds(self, num_examples: int) -> float:
        return (1 + len(self.at)) * EIGENVALUES * float(OUTPUTS * num_examples) ** 3

    def take(self, subject: "Subject") -> Iterator[Values]:
        from overparam.measure.kernels.empirical import empirical_ntk
        from overparam.measure.kernels.similarity import (
            effective_rank,
            kernel_alignment,
            kernel_distance,
            kernel_drift,
            label_kernel,
        )

        x, y = subject.train(self.num_examples)
        start = empirical_ntk(subject.start, x)
        labels = label_kernel(y, start.shape[2])
        before, top = kernel_alignment(_trace(start), labels, centred=True), _largest(start)
        for step in subject.steps:
            kernel = empirical_ntk(subject.network(step), x)
            after = kernel_alignment(_trace(kernel), labels, centred=True)
            yield {
                "kernel_drift": kernel_drift(start, kernel),
                "kernel_distance": kernel_distance(start, kernel),
                "label_alignment": after,
                "label_alignment_gain": after - before,
                "effective_rank": effective_rank(kernel),
                "kernel_lambda_max": _largest(kernel),
                "kernel_lambda_max_init": top,
            }


def _trace(kernel: "Tensor") -> "Tensor":
    """(N, N, C, C) → (N, N): the mean over outputs of the blocks' diagonals."""
    return kernel.diagonal(dim1=2, dim2=3).mean(2)


def _largest(kernel: "Tensor") -> float:
    """`λmax(Θ)/N`, the curvature of mse along the steepest direction."""
    from torch.linalg import eigvalsh

    n, _, c, _ = kernel.shape
    matrix = kernel.permute(0, 2, 1, 3).reshape(n * c, n * c).double()
    return float(eigvalsh(matrix)[-1]) / n

"""Kernel regression with the starting kernel on thousands of examples."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from overparam.probes.kernels import BACKWARD, CHOLESKY, OUTPUTS, accuracy, share
from overparam.probes.probe import Probe, Values

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class TraceRegression(Probe):
    """Kernel regression with the trace of the starting kernel, shared by all outputs, on one-hot targets.

    All blocks of thousands of examples do not fit a memory. `ridge` is relative to the mean diagonal of the kernel.
    """

    kind: Literal["trace_regression"] = "trace_regression"
    num_examples: PositiveInt = 5000
    num_test: PositiveInt = 2000
    ridge: PositiveFloat = 1e-6

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("trace_kernel_accuracy", "trace_kernel_share")

    @property
    def forward_passes(self) -> float:
        return 5.0 * BACKWARD * OUTPUTS

    def solve_seconds(self, num_examples: int) -> float:
        return CHOLESKY * float(num_examples) ** 3

    def take(self, subject: "Subject") -> Iterator[Values]:
        import torch

        from overparam.measure.kernels.empirical import empirical_ntk
        from overparam.measure.kernels.regression import kernel_regression
        from overparam.models.losses import one_hot

        (x, y), (x_test, y_test) = subject.train(self.num_examples), subject.test(self.num_test)
        inside = empirical_ntk(subject.start, x, outputs="trace")
        across = empirical_ntk(subject.start, x_test, x, outputs="trace")
        with torch.no_grad():
            f0, f0_test = subject.start(x), subject.start(x_test)
        ridge = self.ridge * float(inside.diagonal().double().mean())
        found = kernel_regression(inside, one_hot(y, f0), across, f0_train=f0, f0_test=f0_test, ridge=ridge)
        kernel = accuracy(found, y_test)
        for step in subject.steps:
            with torch.no_grad():
                network = accuracy(subject.network(step)(x_test), y_test)
            yield {
                "trace_kernel_accuracy": kernel,
                "trace_kernel_share": share(kernel, network, f0.shape[1]),
                "network_accuracy": network,
            }

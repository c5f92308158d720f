"""Probes of the tangent kernel: does a network train as its linearization at the start would?

They compare a run with its own start, so that their numbers are of the whole run; those taken at several steps are of
the way there. Costs are those of the laptop preset of `ntk_regime`: forward passes from widths 1024 and 2048, seconds
of eigenvalues, which do not depend on the network, from width 32.
"""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from overparam.probes.probe import Measured

BACKWARD = 2.0  # of a forward pass: sensitivities of one output
OUTPUTS = 10  # of all data sets that come with the package
EIGENVALUES, EIGENVECTORS, CHOLESKY = 1.4e-10, 3e-10, 1e-11  # seconds over the cube of a kernel's side


class KernelProbe(Measured):
    """What the probes of this file share: none of them ranks networks by sharpness."""

    @property
    def ranked(self) -> tuple[str, ...]:
        return ()


class Movement(KernelProbe):
    """`‖θ_t − θ_0‖`, and that over `‖θ_0‖`, in total and per parameter."""

    kind: Literal["movement"] = "movement"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("relative_movement", "absolute_movement")

    @property
    def forward_passes(self) -> float:
        return 0.0


class TangentKernel(KernelProbe):
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


class AnalyticKernel(KernelProbe):
    """Relative Frobenius distance of the kernel at the start from that of infinite width. NTK parameterization only."""

    kind: Literal["analytic_kernel"] = "analytic_kernel"
    num_examples: PositiveInt = 128

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("analytic_distance",)

    @property
    def forward_passes(self) -> float:
        return 1.0 + 2.0 * BACKWARD * OUTPUTS


class Linearization(KernelProbe):
    """The network beside its linearization at the start, trained alike: full-batch gradient descent on mse.

    The linearized network is solved in closed form from the kernel of the start, all blocks, on all training examples.
    `linearization_error` is the largest root mean square difference of outputs on the first `num_test` test examples,
    over all looks.
    """

    kind: Literal["linearization"] = "linearization"
    num_test: PositiveInt = 1000

    @field_validator("at")
    @classmethod
    def _looks_on_the_way(cls, at: tuple[float, ...]) -> tuple[float, ...]:
        if len(at) < 3:
            raise ValueError("linearization is compared along training: at needs at least three shares of the run")
        return at

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("linearization_error", *self.accuracies)

    @property
    def accuracies(self) -> tuple[str, ...]:
        return ("kernel_accuracy", "kernel_accuracy_limit", "kernel_share", "kernel_share_limit")

    @property
    def columns(self) -> tuple[str, ...]:
        """The error is a supremum over the run and the accuracies are of its end: both are of the run."""
        return self.metrics

    @property
    def forward_passes(self) -> float:
        return len(self.at) + 9.0 * BACKWARD * OUTPUTS

    def solve_seconds(self, num_examples: int) -> float:
        return EIGENVECTORS * float(OUTPUTS * num_examples) ** 3


class TraceRegression(KernelProbe):
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


class Taylor(KernelProbe):
    """`f(θ_T) − [f(θ_0) + J(θ_0)(θ_T − θ_0)]` on test examples, relative to `f(θ_T) − f(θ_0)`, in root mean squares."""

    kind: Literal["taylor"] = "taylor"
    num_test: int = Field(default=1000, ge=1)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("taylor_error",)

    @property
    def forward_passes(self) -> float:
        return 5.0 * len(self.at)

"""The trained network beside its linearization at the start, trained alike."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt, field_validator

from overparam.probes.kernels import BACKWARD, EIGENVECTORS, OUTPUTS, accuracy, share
from overparam.probes.probe import Probe, Values
from overparam.specs.run import RunSpec

if TYPE_CHECKING:
    from overparam.probes.subject import Subject


class Linearization(Probe):
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

    def take(self, subject: "Subject") -> Iterator[Values]:
        """The trained network against the closed form of its linearization, at each step of plain gradient descent."""
        import torch

        from overparam.measure.kernels.empirical import empirical_ntk
        from overparam.measure.kernels.regression import Diverges, kernel_predictor
        from overparam.models.losses import one_hot

        _refuse_other_training(subject.spec)
        (x, y), (x_test, y_test) = subject.train(), subject.test(self.num_test)
        across, inside = empirical_ntk(subject.start, x_test, x), empirical_ntk(subject.start, x)
        with torch.no_grad():
            f0, f0_test = subject.start(x), subject.start(x_test)
        predicted = kernel_predictor(inside, one_hot(y, f0), across, f0_train=f0, f0_test=f0_test)
        limit, largest = accuracy(predicted(None, None), y_test), 0.0
        for step in subject.steps:
            with torch.no_grad():
                outputs = subject.network(step)(x_test)
            try:
                twin = predicted(step - subject.spec.first_step, subject.spec.train.optimizer.lr)
            except Diverges:  # this network's kernel is larger than its limit at infinite width: its twin has no end
                nothing = dict.fromkeys(self.metrics, math.nan)
                yield {**nothing, "kernel_accuracy_limit": limit, "status": "diverges"}
                continue
            difference = float((outputs - twin).double().square().mean().sqrt())
            largest = max(largest, difference)
            network, kernel = accuracy(outputs, y_test), accuracy(twin, y_test)
            yield {
                "difference": difference,
                "linearization_error": largest,
                "network_accuracy": network,
                "kernel_accuracy": kernel,
                "kernel_accuracy_limit": limit,
                "kernel_share": share(kernel, network, f0.shape[1]),
                "kernel_share_limit": share(limit, network, f0.shape[1]),
            }


def _refuse_other_training(spec: RunSpec) -> None:
    from overparam.runs.checks import UnsupportedSpec
    from overparam.specs.optimizers import SGD

    train, optimizer = spec.train, spec.train.optimizer
    plain = isinstance(optimizer, SGD) and optimizer.momentum == 0.0 and optimizer.weight_decay == 0.0
    if not (plain and train.batch_size == "full" and train.loss == "mse" and train.schedule == "constant"):
        raise UnsupportedSpec(
            "a linearized network is solved in closed form for full-batch gradient descent on mse at a constant "
            f"learning rate without momentum or weight decay, not for {train!r}"
        )

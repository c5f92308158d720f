"""Kernel probe × run → its rows: a run is compared with its own start, as the kernel of the start would have it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from overparam.measure.comparison.movement import parameter_movement
from overparam.measure.kernels.empirical import empirical_ntk
from overparam.measure.kernels.infinite import analytic_ntk
from overparam.measure.kernels.regression import Diverges, kernel_predictor, kernel_regression
from overparam.measure.kernels.similarity import (
    effective_rank,
    kernel_alignment,
    kernel_distance,
    kernel_drift,
    label_kernel,
)
from overparam.models.losses import one_hot
from overparam.models.taylor.function import linearize
from overparam.models.thin import thin
from overparam.probes.kernel import (
    AnalyticKernel,
    KernelProbe,
    Linearization,
    Movement,
    TangentKernel,
    Taylor,
    TraceRegression,
)
from overparam.runs.attempt import Session
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.run import Run
from overparam.specs.models.mlp import MLP
from overparam.specs.run import RunSpec

Values = dict[str, Any]


@dataclass(frozen=True)
class Journey:
    """A run as a probe sees it: the model at any of its steps, and the examples it looks at."""

    run: Run
    session: Session
    num_examples: int
    num_test: int = 0

    def at(self, step: int) -> nn.Module:
        state = self.run.state(step)
        return thin(self.session.model(state).eval(), state.mask)

    @cached_property
    def start(self) -> nn.Module:
        return self.at(self.run.spec.first_step)

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        x, y = self.session.train
        return x[: self.num_examples], y[: self.num_examples]

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        x, y = self.session.splits["test"]
        return x[: self.num_test], y[: self.num_test]


def kernel_rows(run: Run, probe: KernelProbe, steps: Sequence[int]) -> list[Values]:
    """What a kernel probe finds at each step. The caller has settled the numeric environment.

    Raises:
        UnsupportedSpec: the probe's theory does not hold for such a run.
    """
    session = Session(run.spec, run.execution, frozenset())
    journey = Journey(run, session, probe.num_examples, getattr(probe, "num_test", 0))
    look = _look(probe, journey)
    return [look(step) for step in steps]


def _look(probe: KernelProbe, journey: Journey) -> Callable[[int], Values]:
    match probe:
        case Movement():
            return lambda step: _movement(journey, step)
        case TangentKernel():
            return _tangent_kernel(journey)
        case AnalyticKernel():
            return lambda step: _analytic(journey)
        case Linearization():
            return _linearization(journey, probe)
        case TraceRegression():
            return lambda step: _trace_regression(journey, probe.ridge, step)
        case Taylor():
            return lambda step: _taylor(journey, step)
        case _:
            raise TypeError(f"no measure is known for {type(probe).__name__}")


def _movement(journey: Journey, step: int) -> Values:
    found = parameter_movement(journey.start, journey.at(step))
    return {
        "relative_movement": found.relative,
        "absolute_movement": found.absolute,
        "per_parameter": found.per_parameter,
    }


def _tangent_kernel(journey: Journey) -> Callable[[int], Values]:
    x, y = journey.train
    start = empirical_ntk(journey.start, x)
    labels = label_kernel(y, start.shape[2])
    before = kernel_alignment(_trace(start), labels, centred=True)
    top = _largest(start)

    def look(step: int) -> Values:
        kernel = empirical_ntk(journey.at(step), x)
        after = kernel_alignment(_trace(kernel), labels, centred=True)
        return {
            "kernel_drift": kernel_drift(start, kernel),
            "kernel_distance": kernel_distance(start, kernel),
            "label_alignment": after,
            "label_alignment_gain": after - before,
            "effective_rank": effective_rank(kernel),
            "kernel_lambda_max": _largest(kernel),
            "kernel_lambda_max_init": top,
        }

    return look


def _trace(kernel: Tensor) -> Tensor:
    return kernel.diagonal(dim1=2, dim2=3).mean(2)


def _largest(kernel: Tensor) -> float:
    """`λmax(Θ)/N`, the curvature of mse along the steepest direction."""
    n, _, c, _ = kernel.shape
    matrix = kernel.permute(0, 2, 1, 3).reshape(n * c, n * c).double()
    return float(torch.linalg.eigvalsh(matrix)[-1]) / n


def _analytic(journey: Journey) -> Values:
    depth, activation = _infinite_twin(journey.run.spec)
    x, _ = journey.train
    found = empirical_ntk(journey.start, x).double()
    limit = analytic_ntk(x, depth=depth, activation=activation).to(found)
    blocks = limit[:, :, None, None] * torch.eye(found.shape[2]).to(found)
    return {"analytic_distance": kernel_drift(blocks, found)}


def _infinite_twin(spec: RunSpec) -> tuple[int, Literal["relu", "erf"]]:
    """Depth and activation of the network of infinite width that a run's network is one of finite width of."""
    model, unscaled = spec.model, spec.train.lazy_scale in (None, 1.0)
    scaled = isinstance(model, MLP) and model.parameterization == "ntk" and not model.bias
    if isinstance(model, MLP) and scaled and unscaled and model.activation in ("relu", "erf"):
        return len(model.widths) + 1, model.activation
    raise UnsupportedSpec(
        'the kernel of infinite width is known for MLP(parameterization="ntk", bias=False) with relu or erf, '
        f"not for {model!r}"
    )


def _linearization(journey: Journey, probe: Linearization) -> Callable[[int], Values]:
    """The trained network against the closed form of its linearization, at each step of plain gradient descent."""
    _refuse_other_training(journey.run.spec)
    (x, y), (x_test, y_test) = journey.session.train, journey.test
    across, inside = empirical_ntk(journey.start, x_test, x), empirical_ntk(journey.start, x)
    with torch.no_grad():
        f0, f0_test = journey.start(x), journey.start(x_test)
    targets, lr = one_hot(y, f0), journey.run.spec.train.optimizer.lr
    first, errors = journey.run.spec.first_step, [0.0]

    predicted = kernel_predictor(inside, targets, across, f0_train=f0, f0_test=f0_test)
    limit = _accuracy(predicted(None, None), y_test)

    def look(step: int) -> Values:
        with torch.no_grad():
            outputs = journey.at(step)(x_test)
        try:
            twin = predicted(step - first, lr)
        except Diverges:  # this network's kernel is larger than its limit at infinite width: its twin has no end
            return {**dict.fromkeys(probe.metrics, math.nan), "kernel_accuracy_limit": limit, "status": "diverges"}
        errors.append(float((outputs - twin).double().square().mean().sqrt()))
        accuracy, kernel = _accuracy(outputs, y_test), _accuracy(twin, y_test)
        return {
            "difference": errors[-1],
            "linearization_error": max(errors),
            "network_accuracy": accuracy,
            "kernel_accuracy": kernel,
            "kernel_accuracy_limit": limit,
            "kernel_share": _share(kernel, accuracy, f0.shape[1]),
            "kernel_share_limit": _share(limit, accuracy, f0.shape[1]),
        }

    return look


def _refuse_other_training(spec: RunSpec) -> None:
    train, optimizer = spec.train, spec.train.optimizer
    plain = optimizer.kind == "sgd" and optimizer.momentum == 0.0 and optimizer.weight_decay == 0.0
    if not (plain and train.batch_size == "full" and train.loss == "mse" and train.schedule == "constant"):
        raise UnsupportedSpec(
            "a linearized network is solved in closed form for full-batch gradient descent on mse at a constant "
            f"learning rate without momentum or weight decay, not for {train!r}"
        )


def _trace_regression(journey: Journey, ridge: float, step: int) -> Values:
    (x, y), (x_test, y_test) = journey.train, journey.test
    inside = empirical_ntk(journey.start, x, outputs="trace")
    across = empirical_ntk(journey.start, x_test, x, outputs="trace")
    with torch.no_grad():
        f0, f0_test = journey.start(x), journey.start(x_test)
        outputs = journey.at(step)(x_test)
    absolute = ridge * float(inside.diagonal().double().mean())
    found = kernel_regression(inside, one_hot(y, f0), across, f0_train=f0, f0_test=f0_test, ridge=absolute)
    accuracy, kernel = _accuracy(outputs, y_test), _accuracy(found, y_test)
    share = _share(kernel, accuracy, f0.shape[1])
    return {"trace_kernel_accuracy": kernel, "trace_kernel_share": share, "network_accuracy": accuracy}


def _taylor(journey: Journey, step: int) -> Values:
    x, _ = journey.test
    model = journey.at(step)
    with torch.no_grad():
        before, after = journey.start(x).double(), model(x).double()
        first_order = linearize(journey.start, x)(model).double()
    moved = float((after - before).square().mean().sqrt())
    apart = float((after - first_order).square().mean().sqrt())
    return {"taylor_error": apart / moved if moved > 0.0 else 0.0, "difference": apart, "function_moved": moved}


def _accuracy(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(1) == labels).double().mean())


def _share(kernel: float, network: float, num_classes: int) -> float:
    """What the kernel reaches of the network's accuracy above chance."""
    chance = 1.0 / num_classes
    return (kernel - chance) / (network - chance) if network > chance else float("nan")

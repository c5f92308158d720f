"""Whether this installation, its torch and its processor give the right numbers: known answers, in seconds.

Every check is a number that is 0 in exact arithmetic, and a bound on it. No data from outside, and no file is left.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.gradient_noise import gradient_noise_scale
from overparam.measure.kernels.empirical import empirical_ntk
from overparam.measure.kernels.infinite import analytic_ntk
from overparam.measure.kernels.regression import kernel_regression
from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import CurvatureOperator, dense
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.measure.spectrum.trace import hessian_trace
from overparam.models.build import build
from overparam.models.masks import magnitude_mask
from overparam.runs.attempt import Interrupted
from overparam.runs.execute import execute
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.specs.data import DataSpec
from overparam.specs.models.cnn import CNN
from overparam.specs.models.mlp import MLP
from overparam.specs.optimizers import SGD
from overparam.specs.run import RunSpec
from overparam.specs.train import TrainSpec


@dataclass(frozen=True)
class Check:
    """What is checked, how far it is off, and how far it may be."""

    name: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed


def selftest() -> Iterator[Check]:
    """Each check as soon as it is done.

    >>> all(check.passed for check in selftest())
    True
    """
    for name, measure, allowed in CHECKS:
        yield Check(name, measure(), allowed)


def _draws(name: str, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(0, "selftest", name))


def _classifier(scale: float = 1.0) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A network of 131 parameters and 40 examples, with the labels that it predicts; logits times `scale`."""
    model = build(MLP(width=8, depth=3, activation="tanh"), (4,), 3, generator=torch_generator(0, "selftest"))
    x = _draws("x", 40, 4)
    with torch.no_grad():
        list(model.parameters())[-2].mul_(scale)  # the weight of the last layer
        return model, (x, model(x).argmax(1))


def _spectrum(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    """All eigenvalues, from the dense matrix in float64."""
    with opened(model, "cross_entropy", pair, dtype=torch.float64) as problem:
        found: Tensor = torch.linalg.eigvalsh(dense(CurvatureOperator(problem)))
        return found


def _eigenvalues(scale: float = 1.0) -> float:
    """Of both ends in float32, relative to ‖H‖."""
    model, pair = _classifier(scale)
    exact = _spectrum(model, pair)
    found = top_eigenvalues(model, "cross_entropy", pair, which="both", tol=1e-6)
    return float((found.values[:, 0] - exact[[-1, 0]]).abs().max() / exact.abs().max())


def _outside(value: float, lower: float, upper: float) -> float:
    """How far a value is outside an interval, in lengths of it."""
    return max(lower - value, value - upper, 0.0) / (upper - lower)


def _certified() -> float:
    model, pair = _classifier()
    found = top_eigenvalues(model, "cross_entropy", pair, certify=0.05)
    return _outside(float(_spectrum(model, pair)[-1]), float(found.lower[0]), float(found.upper[0]))


def _trace() -> float:
    model, pair = _classifier()
    found = hessian_trace(model, "cross_entropy", pair, max_products=60)
    return _outside(float(_spectrum(model, pair).sum()), found.lower, found.upper)


def _tangent_kernel() -> float:
    """Against products of whole gradients by autograd, relative."""
    model = build(CNN(channels=2), (1, 8, 8), 3, generator=torch_generator(0, "selftest")).eval()
    x = _draws("images", 3, 1, 8, 8)
    gradients = []
    for image in x:
        for output in model(image[None])[0]:
            parts = torch.autograd.grad(output, list(model.parameters()), retain_graph=True)
            gradients.append(torch.cat([part.reshape(-1) for part in parts]))
    expected = torch.stack(gradients) @ torch.stack(gradients).T
    found = empirical_ntk(model, x).permute(0, 2, 1, 3).reshape(9, 9)
    return float((found - expected).abs().max() / expected.abs().max())


def _infinite_width() -> float:
    """Two layers of relu on orthogonal unit inputs: 1/π."""
    return abs(float(analytic_ntk(torch.eye(2), depth=2)[0, 1]) * torch.pi - 1.0)


def _kernel_regression() -> float:
    """Ten steps of gradient descent of a linear model, relative."""
    x, y, held_out, lr = _draws("x", 6, 3), _draws("y", 6, 1), _draws("held out", 5, 3), 0.3
    weight = torch.zeros(3, 1)
    for _ in range(10):
        weight -= lr * x.T @ (x @ weight - y) / len(x)
    expected = held_out @ weight
    found = kernel_regression(x @ x.T, y, held_out @ x.T, time=10, lr=lr)
    return float((found - expected).abs().max() / expected.abs().max())


def _noise_scale() -> float:
    """Gradients −1, −3, −1, −3: tr Σ = 4/3 over ‖G‖² = 11/3, relative."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    y = torch.tensor([[1.0], [3.0], [1.0], [3.0]])
    return abs(gradient_noise_scale(model, "mse", (torch.ones(4, 1), y)).value / (4 / 11) - 1.0)


def _pruning() -> float:
    """Weights that are kept beyond `n − round(.2 n)`."""
    weights = {"0.weight": _draws("w", 7, 9)}
    kept = sum(int(mask.sum()) for mask in magnitude_mask(weights, 0.2).values())
    return float(abs(kept - (63 - round(0.2 * 63))))


def _small_run() -> RunSpec:
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=32, epochs=4)
    return RunSpec(data=DataSpec(name="digits", num_train=128), model=MLP(width=8), train=train)


def _apart(interrupted: bool) -> float:
    """Largest difference of the weights of the same run from two empty stores."""
    spec = _small_run()
    with tempfile.TemporaryDirectory() as folder:
        first, second = (Execution(store=Path(folder) / name, checkpoint_seconds=1e-9) for name in ("a", "b"))
        if interrupted:
            _interrupt(spec, second)
        one, other = (execute(Setting(spec, execution)).weights("final") for execution in (first, second))
        return max(float((other[name] - value).abs().max()) for name, value in one.items())


def _interrupt(spec: RunSpec, execution: Execution) -> None:
    """Stop a run about half way; its checkpoint stays."""
    looks = count()
    try:
        execute(Setting(spec, execution), should_stop=lambda: next(looks) >= 8)
    except Interrupted:
        return
    raise RuntimeError("the run ended before it could be interrupted")


CHECKS: tuple[tuple[str, Callable[[], float], float], ...] = (
    ("Hessian eigenvalues in float32 against a dense float64 matrix, relative to ‖H‖", _eigenvalues, 1e-5),
    ("the same for a network whose logits are 20 times as large", lambda: _eigenvalues(20.0), 1e-5),
    ("certified interval of λmax: how far the dense value is outside", _certified, 0.0),
    ("trace by random probes: how far the dense value is outside its 95 % interval", _trace, 0.0),
    ("tangent kernel against whole gradients, relative", _tangent_kernel, 1e-5),
    ("tangent kernel at infinite width against its closed form, relative", _infinite_width, 1e-12),
    ("kernel regression against gradient descent of a linear model, relative", _kernel_regression, 1e-5),
    ("noise scale of gradients against its closed form, relative", _noise_scale, 1e-5),
    ("weights kept by pruning beyond the exact number", _pruning, 0.0),
    ("a run trained twice: largest difference of weights", lambda: _apart(interrupted=False), 0.0),
    ("a run interrupted and resumed: largest difference of weights", lambda: _apart(interrupted=True), 0.0),
)

"""Networks that are linear in their trainable parameters, solved instead of trained: the same moments as the loop."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from overparam.models.functional import Layout, chosen_parameters
from overparam.models.losses import one_hot
from overparam.runs.training.loop import Moment
from overparam.runs.training.optim import build_optimizer
from overparam.runs.training.timetable import Timetable
from overparam.specs.optimizers import SGD
from overparam.specs.train import TrainSpec

ONE_STEP = TrainSpec(optimizer=SGD(lr=1.0, momentum=0.0), batch_size="full", steps=1, schedule="constant", loss="mse")
NOT_LINEAR = 1e-3  # of the outputs' change: more than rounding makes of it
Decomposition = tuple[Tensor, Tensor, Tensor]


def least_squares(features: Tensor, targets: Tensor, *, ridge: float = 0.0, cutoff: float | None = None) -> Tensor:
    """Minimizer of `‖F w − y‖² + ridge·‖w‖²`; without ridge the one of smallest norm, `F⁺ y`.

    Args:
        features: F, (n, p), and targets (n,) or (n, C).
        cutoff: singular values at most this share of the largest count as 0; by default rounding, `ε·max(n, p)`.

    Raises:
        ValueError: a negative ridge or cutoff.

    >>> [round(w, 6) for w in least_squares(torch.tensor([[1.0, 1.0]]), torch.tensor([2.0])).tolist()]
    [1.0, 1.0]
    """
    if ridge < 0 or (cutoff is not None and cutoff < 0):
        raise ValueError(f"ridge and cutoff must not be negative, got ridge={ridge:g}, cutoff={cutoff}")
    left, values, right = _kept(features, cutoff)
    return _along(left, values / (values.square() + ridge), right, targets)


def descended(features: Tensor, targets: Tensor, *, lr: float, steps: int) -> Tensor:
    """Weights after `steps` of gradient descent from 0 on the mean of ½(F w − y)², in closed form.

    `w_t = Σ_i v_i (1 − (1 − lr·s_i²/n)^t)/s_i · u_iᵀy`; it diverges if lr > 2n/s_1². Whatever the number of steps,
    nothing is learned outside the row space of F.

    >>> features = torch.tensor([[2.0]], dtype=torch.float64)
    >>> descended(features, torch.tensor([1.0], dtype=torch.float64), lr=0.1, steps=1).item()  # lr · 2 · 1
    0.2
    """
    left, values, right = _kept(features, None)
    return _along(left, (1 - (1 - lr * values.square() / len(features)) ** steps) / values, right, targets)


def _kept(features: Tensor, cutoff: float | None) -> Decomposition:
    """Singular value decomposition without the directions that count as 0."""
    left, values, right = torch.linalg.svd(features, full_matrices=False)
    share = torch.finfo(features.dtype).eps * max(features.shape) if cutoff is None else cutoff
    kept = values > share * values.max() if len(values) else values > 0
    return left[:, kept], values[kept], right[kept]


def _along(left: Tensor, gains: Tensor, right: Tensor, targets: Tensor) -> Tensor:
    seen = left.T @ targets
    return right.T @ (gains.reshape(-1, *[1] * (targets.ndim - 1)) * seen)


def solve(
    model: nn.Module, x: Tensor, y: Tensor, *, ridge: float = 0.0, cutoff: float | None = None
) -> Iterator[Moment]:
    """Solve a model that is linear in its trainable parameters; moments at the start and at the solution.

    The solution is the one nearest to the start θ0 of those that minimize `‖f_θ(x) − y‖² + ridge·‖θ − θ0‖²`: what
    gradient descent on the squared error tends to (ridge 0). Integer targets are taken one-hot. The model is left in
    eval mode, solved in place.

    Raises:
        ValueError: the model is not linear in its trainable parameters; it is as it was.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> start, end = solve(model, torch.eye(2), torch.tensor([[1.0], [2.0]]))
    >>> start.step, end.step, end.end, [round(w, 5) for w in model.weight.flatten().tolist()]
    (0, 1, 'length', [1.0, 2.0])
    """
    model.eval()
    optimizer, timetable = build_optimizer(ONE_STEP.optimizer, model), Timetable(ONE_STEP, len(x))
    yield Moment(0, model, optimizer, timetable, lr=1.0)
    _solve_in_place(model, x, y, ridge, cutoff)
    yield Moment(1, model, optimizer, timetable, lr=1.0, end="length")


@torch.no_grad()
def _solve_in_place(model: nn.Module, x: Tensor, y: Tensor, ridge: float, cutoff: float | None) -> None:
    parameters = dict(model.named_parameters())
    trained = {name: parameters[name].detach().clone() for name in chosen_parameters(parameters, None)}
    before, jacobian = model(x), _jacobian(model, trained, x)
    change = least_squares(jacobian, (_targets(y, before) - before).flatten(), ridge=ridge, cutoff=cutoff)
    for name, step in Layout.of(trained).split(change).items():
        parameters[name].add_(step)
    moved = (jacobian @ change).reshape(before.shape)
    if not float((model(x) - before - moved).norm()) <= NOT_LINEAR * float(moved.norm() + before.norm()):
        for name, value in trained.items():
            parameters[name].copy_(value)
        raise ValueError(
            "the outputs are not linear in the trainable parameters; freeze the others: requires_grad_(False)"
        )


def _targets(y: Tensor, outputs: Tensor) -> Tensor:
    return (y if y.is_floating_point() else one_hot(y, outputs)).reshape(outputs.shape)


def _jacobian(model: nn.Module, trained: dict[str, Tensor], x: Tensor) -> Tensor:
    """Derivatives of all outputs by all trainable parameters, (N·C, P)."""

    def outputs(theta: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(model, theta, (x,))
        return found

    blocks = jacrev(outputs)(trained)
    size = outputs(trained).numel()
    return torch.cat([block.reshape(size, -1) for block in blocks.values()], dim=1)

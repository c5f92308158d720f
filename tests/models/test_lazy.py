"""The lazy-training scale: what is trained, and that weights and kernel move by 1/α (Chizat, Oyallon & Bach 2019)."""

import math

import pytest
import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.models.build import build
from overparam.models.functional import Layout
from overparam.models.taylor.lazy import Lazy, LazyLinearized, as_trained
from overparam.models.taylor.network import Anchored, Linearized
from overparam.runs.training.loop import train_loop
from overparam.specs import CNN, MLP, SGD, TrainSpec
from overparam.specs.models.layers import Activation
from tests.support.kernels import jacobian_rows
from tests.support.opened import examples, network


def shifted(model: nn.Module, size: float = 0.1) -> nn.Module:
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.add_(size * torch.randn(value.shape, generator=torch_generator(0, name), dtype=value.dtype))
    return model


@pytest.mark.parametrize("kind", [Lazy, LazyLinearized])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_zero_at_the_initialization_in_either_mode(kind: type[Anchored], training: bool) -> None:
    """Batch norm in it; without its dropout, whose two draws differ."""
    model = nn.Sequential(*(layer for layer in network() if not isinstance(layer, nn.Dropout)))
    lazy = as_trained(model, kind is LazyLinearized, 8.0).train(training)
    assert type(lazy) is kind
    for _ in range(2):
        assert lazy(examples()[0]).abs().max() == 0.0


def test_the_function_is_alpha_times_the_change_of_the_networks() -> None:
    model, x = network().eval(), examples()[0]
    lazy = shifted(Lazy(model, 8.0)).eval()
    moved = network().eval()
    moved.load_state_dict(dict(lazy.named_parameters()), strict=False)
    assert torch.allclose(lazy(x), 8.0 * (moved(x) - model(x)), atol=1e-6)


def test_running_statistics_are_the_networks_own() -> None:
    """They move as those of the network alone, under the same names, and those of the copy as those at θ0."""
    model, x = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), examples()[0]
    lazy = shifted(Lazy(model, 2.0)).train()
    names = {*dict(model.named_buffers())}
    assert names < dict(lazy.named_buffers()).keys()
    lazy(x)
    start = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6))
    start.load_state_dict(model.state_dict())
    start.train()(x)
    model.load_state_dict(dict(lazy.named_parameters()), strict=False)
    model.train()(x)
    for name in names:
        assert torch.equal(lazy.get_buffer(name), model.get_buffer(name))
        assert torch.equal(lazy.get_buffer(f"initial.{name}"), start.get_buffer(name))


def test_with_linearize_the_taylor_model_is_inside() -> None:
    model, x = network(), examples()[0]
    lazy, linear = shifted(LazyLinearized(model, 8.0)), shifted(Linearized(model))
    assert torch.allclose(lazy(x), 8.0 * (linear(x) - model.eval()(x)), atol=1e-5)


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.parametrize("scale", [None, 8.0])
def test_every_form_has_the_networks_parameters(linearize: bool, scale: float | None) -> None:
    model = build(CNN(channels=2), (1, 8, 8), 3, generator=torch_generator(0, "init"))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    form = as_trained(model, linearize, scale)
    assert (form is model) == (not linearize and scale is None)
    assert [name for name, _ in form.named_parameters()] == list(before)
    assert all(torch.equal(value, before[name]) for name, value in form.named_parameters())


def test_the_loss_that_is_descended_is_divided_and_the_one_that_is_told_is_not() -> None:
    """One step of gradient descent from zero outputs: Δθ = −lr/α Jᵀ(f − y)/N, and a batch loss of ½‖y‖² = ½."""
    model = build(MLP(width=5, activation="tanh"), (5,), 3, generator=torch_generator(0, "init")).double()
    x, y = examples()[0].double(), examples()[1]
    targets = nn.functional.one_hot(y, 3).double()
    gradient = -torch.einsum("nc,ncp->p", targets, jacobian_rows(model, x)) / len(x)
    spec = TrainSpec(
        optimizer=SGD(lr=0.1, momentum=0.0), batch_size="full", steps=1, loss="mse", schedule="constant", lazy_scale=8.0
    )
    lazy, start = Lazy(model, 8.0), Layout.join(model.parameters()).detach().clone()
    *_, last = train_loop(lazy, x, y, spec, order=lambda epoch: torch.arange(len(x)), stops=frozenset())
    change = Layout.join(lazy.parameters()).detach() - start
    assert torch.allclose(change, -0.1 / 8.0 * gradient, rtol=1e-9, atol=1e-14)
    assert last.last_loss == pytest.approx(0.5, abs=1e-12)


# ---- 1/α ----------------------------------------------------------------------------------------------------------

ALPHAS = (1.0, 8.0, 64.0)


def circle(count: int = 12) -> tuple[Tensor, Tensor]:
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return torch.stack([angles.cos(), angles.sin()], dim=1), (2 * angles).sin().unsqueeze(1)


def kernel(model: nn.Module, x: Tensor) -> Tensor:
    rows = jacobian_rows(model, x).flatten(0, 1)
    return rows @ rows.T


def movement(activation: Activation, alpha: float) -> tuple[float, float]:
    """`‖θ − θ0‖/‖θ0‖` and `‖Θ − Θ0‖/‖Θ0‖` (Frobenius) after training at scale α."""
    model = build(
        MLP(width=64, depth=3, activation=activation, parameterization="ntk"),
        (2,),
        1,
        generator=torch_generator(0, "init"),
    ).double()
    x, y = circle()
    start, before = Layout.join(model.parameters()).detach().clone(), kernel(model, x)
    spec = TrainSpec(
        optimizer=SGD(lr=0.2, momentum=0.0),
        batch_size="full",
        steps=150,
        loss="mse",
        schedule="constant",
        lazy_scale=alpha,
    )
    lazy = Lazy(model, alpha)
    for _ in train_loop(lazy, x, y, spec, order=lambda epoch: torch.arange(len(x)), stops=frozenset()):
        pass
    model.load_state_dict(dict(lazy.named_parameters()))
    now, after = Layout.join(model.parameters()).detach(), kernel(model, x)
    return float((now - start).norm() / start.norm()), float((after - before).norm() / before.norm())


def slope(xs: list[float], ys: list[float]) -> float:
    """Least squares in log–log."""
    a, b = (torch.tensor(values, dtype=torch.float64).log() for values in (xs, ys))
    return float(((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum())


def test_weights_and_kernel_move_by_one_over_alpha() -> None:
    """12 points on the circle with targets sin 2φ, tanh, depth 3, width 64, NTK form, 150 steps of GD, lr .2."""
    moves = [movement("tanh", alpha) for alpha in ALPHAS]
    weights, kernels = (slope(list(ALPHAS), [move[i] for move in moves]) for i in range(2))
    assert weights == pytest.approx(-1.0, abs=0.1)
    assert kernels == pytest.approx(-1.0, abs=0.1)


def test_weights_of_a_relu_network_move_by_one_over_alpha() -> None:
    """The same problem. Its kernel does not follow: it jumps wherever a unit changes sign on one of the 12 points, by
    an amount that does not shrink with α, until no unit does.
    """
    moves = [movement("relu", alpha) for alpha in ALPHAS]
    assert slope(list(ALPHAS), [weights for weights, _ in moves]) == pytest.approx(-1.0, abs=0.1)
    kernels = [drift for _, drift in moves]
    assert kernels == sorted(kernels, reverse=True)

"""The Taylor model of a network: exact where the network is linear in its parameters, of second order elsewhere."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.kernels.linearization import linearize
from overparam.models.build import build
from overparam.models.functional import Layout
from overparam.models.taylor.derivative import derivative_along, twice_backward
from overparam.models.taylor.network import Linearized
from overparam.specs import MLP
from overparam.specs.models.layers import Activation
from tests.support.kernels import Recurrent, Residual, Tied, Transformer, jacobian_rows
from tests.support.opened import left_alone, network

F64 = torch.float64


def mlp(activation: Activation) -> nn.Module:
    return build(MLP(width=9, activation=activation), (4,), 3, generator=torch_generator(0, "init"))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(seed, "test"), dtype=F64)


def ids() -> Tensor:
    return torch.randint(0, 11, (5, 6), generator=torch_generator(5, "test"))


def drawn(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """In float64, with weights of a fixed stream."""
    generator = torch_generator(2, "weights")
    with torch.no_grad():
        for value in model.double().parameters():
            value.copy_(scale * torch.randn(value.shape, generator=generator, dtype=F64))
    return model


def moved(model: nn.Module, size: float, seed: int = 7) -> dict[str, Tensor]:
    """θ0 + size · a random direction of unit norm."""
    named = {name: value.detach() for name, value in model.named_parameters()}
    layout = Layout.of(named)
    direction = normal(layout.size, seed=seed)
    parts = layout.split(size * direction / direction.norm())
    if "tokens.weight" in parts:  # by PyTorch's convention no gradient reaches the row of the padding token
        parts["tokens.weight"][0] = 0.0
    return {name: value + parts[name] for name, value in named.items()}


def at(model: nn.Module, theta: dict[str, Tensor], x: Tensor) -> Tensor:
    was = [module.training for module in model.modules()]
    out: Tensor = torch.func.functional_call(model.eval(), theta, (x,)).detach()
    for module, mode in zip(model.modules(), was, strict=True):
        module.training = mode
    return out


class LinearInParameters(nn.Module):
    """Fixed random features, a trained head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(9, 3)
        self.features = nn.Buffer(normal(4, 9, seed=3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(x @ self.features))
        return out


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "tanh": (lambda: mlp("tanh"), normal(6, 4)),
    "gelu": (lambda: mlp("gelu"), normal(6, 4)),
    "batch norm": (lambda: network().double(), normal(6, 5)),
    "convolutions": (Residual, normal(3, 3, 6, 6)),
    "attention": (Transformer, ids()),
    "tied": (Tied, normal(5, 6)),
    "recurrent": (Recurrent, normal(4, 3, 4)),
}


def test_a_model_linear_in_its_parameters_is_its_own_taylor_model() -> None:
    model, x = drawn(LinearInParameters()), normal(7, 4)
    for size in (0.1, 10.0):
        theta = moved(model, size)
        assert (linearize(model, x)(theta) - at(model, theta, x)).abs().max() < 1e-12


def test_two_linear_layers_by_hand() -> None:
    """f = V U x, so f_lin = V0 U0 x + (V − V0) U0 x + V0 (U − U0) x."""
    model, x = drawn(nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 2, bias=False))), normal(6, 4)
    u0, v0 = (value.detach().clone() for value in model.parameters())
    u, v = normal(5, 4, seed=1), normal(2, 5, seed=2)
    expected = x @ (v0 @ u0 + (v - v0) @ u0 + v0 @ (u - u0)).T
    assert (linearize(model, x)({"0.weight": u, "1.weight": v}) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_the_error_falls_with_the_square_of_the_step(name: str) -> None:
    """ReLU-free slopes 2 ± .05; the residual network has ReLUs, whose kinks are not met at these steps."""
    make, x = MODELS[name]
    model = drawn(make())
    f_lin, sizes = linearize(model, x), (1e-2, 1e-3)
    thetas = [moved(model, size) for size in sizes]
    errors = [float((f_lin(theta) - at(model, theta, x)).norm()) for theta in thetas]
    assert math.log10(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_dense_jacobian(name: str) -> None:
    make, x = MODELS[name]
    model = drawn(make()).eval()
    theta = moved(model, 1.0)
    change = Layout.join(theta[n] - value.detach() for n, value in model.named_parameters())
    expected = model(x).detach() + jacobian_rows(model, x) @ change
    assert torch.allclose(linearize(model, x)(theta), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_both_ways_to_a_derivative_agree(name: str) -> None:
    make, x = MODELS[name]
    model = drawn(make()).eval()
    start = {n: value.detach() for n, value in model.named_parameters()}
    change = {n: value - start[n] for n, value in moved(model, 1.0).items()}
    function: Any = lambda theta: torch.func.functional_call(model, theta, (x,))  # noqa: E731
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        backward = twice_backward(function, start, change)
    assert torch.allclose(backward[1], linearize(model, x)({n: start[n] + change[n] for n in start}) - backward[0])


class Reverse(torch.autograd.Function):
    """x³ with a backward pass alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grads[0]


def test_an_operation_without_forward_derivative_goes_by_two_backward_passes() -> None:
    start, change = {"w": normal(3)}, {"w": normal(3, seed=1).requires_grad_()}
    value, slope = derivative_along(lambda theta: Reverse.apply(theta["w"]), start, change)  # type: ignore[no-untyped-call]
    assert torch.allclose(value, start["w"] ** 3) and torch.allclose(slope, 3 * start["w"] ** 2 * change["w"])
    (gradient,) = torch.autograd.grad(slope.sum(), change["w"])
    assert torch.allclose(gradient, 3 * start["w"] ** 2)


def test_parameters_that_the_outputs_do_not_depend_on_have_no_slope() -> None:
    start = {"w": normal(3)}
    value, slope = twice_backward(lambda theta: torch.ones(2, dtype=F64), start, start)
    assert value.tolist() == [1.0, 1.0] and slope.tolist() == [0.0, 0.0]
    assert twice_backward(lambda theta: theta["w"].detach() + 0 * theta["w"], start, start)[1].tolist() == [0.0] * 3


def test_the_model_is_left_alone_in_every_mode_and_may_change_afterwards() -> None:
    model, x = network(), normal(6, 5).float()
    model[1].eval()
    with left_alone(model):
        f_lin = linearize(model, x)
        before = f_lin(model)
    theta = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.train()(x)  # moves the running statistics
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(2.0)
    x.zero_()
    with left_alone(model):
        assert torch.equal(f_lin(theta), before)


def test_theta_may_be_a_mapping_a_state_dict_or_a_module() -> None:
    model, other, x = network(), network(), normal(6, 5).float()
    with torch.no_grad():
        for value in other.parameters():
            value.add_(0.1)
    f_lin = linearize(model, x)
    same = [f_lin(other), f_lin(other.state_dict()), f_lin(dict(other.named_parameters()))]
    assert all(torch.equal(same[0], each) for each in same)
    assert torch.equal(f_lin(model), model.eval()(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_follows_the_gradient_mode(mode: Any) -> None:
    model, x = network(), normal(6, 5).float()
    f_lin = linearize(model, x)
    assert f_lin(model).requires_grad
    with mode():
        assert not f_lin(model).requires_grad
        assert torch.equal(linearize(model, x)(model), f_lin(model))


def test_what_cannot_be_linearized_is_said() -> None:
    model, x = network(), normal(6, 5).float()
    f_lin = linearize(model, x)
    theta = {name: value.detach().clone() for name, value in model.named_parameters()}
    with pytest.raises(ValueError, match=r'no parameter "4.bias"; it needs all of: 0.weight'):
        f_lin({name: value for name, value in theta.items() if name != "4.bias"})
    with pytest.raises(ValueError, match=r'parameter "5.bias", which the model has not'):
        f_lin({**theta, "5.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match=r'"4.bias" has shape \(2,\), but in the model \(3,\)'):
        f_lin({**theta, "4.bias": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"4.bias holds 1 values that are not finite"):
        f_lin({**theta, "4.bias": torch.tensor([0.0, torch.inf, 0.0])})
    with pytest.raises(ValueError, match=r"θ is a Tensor; allowed: named parameters, a state dict or a module"):
        f_lin(torch.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x holds 30 values that are not finite; measures need finite numbers"):
        linearize(model, x * torch.nan)
    with pytest.raises(ValueError, match="no parameters"):
        linearize(nn.Tanh(), x)
    with torch.no_grad():
        model.get_parameter("0.bias").fill_(torch.nan)
    with pytest.raises(ValueError, match=r"0.bias holds 6 values that are not finite"):
        linearize(model, x)
    with pytest.raises(ValueError, match="the model returns a tuple"):
        linearize(nn.LSTM(4, 5), torch.zeros(2, 3, 4))


# ---- the module that trains --------------------------------------------------------------------------------------


def test_a_linearized_module_is_the_taylor_model_under_the_networks_own_names() -> None:
    model, x = network(), normal(6, 5).float()
    twin = Linearized(model)
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in model.named_parameters()]
    f_lin = linearize(model, x)
    for name, value in twin.named_parameters():
        value.data += 0.1 * torch.randn(value.shape, generator=torch_generator(0, name))
    assert torch.allclose(twin.train()(x), f_lin(twin), atol=1e-6)
    assert torch.equal(twin.train()(x), twin.eval()(x))


def test_the_state_of_a_linearized_module_goes_into_one_of_other_weights() -> None:
    model, x = network(), normal(6, 5).float()
    twin = Linearized(model)
    next(twin.parameters()).data += 1.0
    other = Linearized(nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)))
    other.load_state_dict(twin.state_dict())
    assert torch.equal(other(x), twin(x))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gradients_are_the_jacobians(dtype: torch.dtype) -> None:
    model, x = drawn(MODELS["convolutions"][0]()).eval(), MODELS["convolutions"][1]
    cotangent = normal(3, 5, seed=9)
    expected = torch.einsum("nc,ncp->p", cotangent, jacobian_rows(model, x))
    twin = Linearized(model).to(dtype)
    next(twin.parameters()).data += 1.0
    parts = torch.autograd.grad(twin(x.to(dtype)), tuple(twin.parameters()), cotangent.to(dtype))
    error = (Layout.join(parts) - expected).norm() / expected.norm()
    assert error < (1e-12 if dtype == F64 else 1e-5)


def test_networks_that_cannot_be_held_are_refused() -> None:
    shared = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    shared[1].weight = shared[0].weight
    with pytest.raises(ValueError, match=r'"1.weight" is a parameter of two layers'):
        Linearized(shared)
    with pytest.raises(ValueError, match='part named "initial"'):
        Linearized(nn.ModuleDict({"initial": nn.Linear(2, 2)}))

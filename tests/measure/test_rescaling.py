"""Rescaled copies: the same outputs, other weights, and the original untouched."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.sharpness.rescaling import rescaled


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(0, "test"))


def filled(model: nn.Module) -> nn.Module:
    """Weights from a stream of their own, norm scales and running statistics away from their start."""
    generator = torch_generator(0, "weights")
    for parameter in model.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator) + 0.1)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


def mlp(activation: type[nn.Module] = nn.ReLU, *, bias: bool = True) -> nn.Module:
    layers = [nn.Linear(6, 8, bias=bias), activation(), nn.Linear(8, 8, bias=bias), activation(), nn.Linear(8, 3)]
    return filled(nn.Sequential(*layers))


def data_of(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.zeros(len(x), dtype=torch.long)


class Block(nn.Module):
    """A residual block between two layers: only what lies within the block can be scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.inner, self.outer, self.after = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.before(x))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        found: Tensor = self.after(x)
        return found


def test_a_relu_chain_alternates_the_factor() -> None:
    """Layer 0 by 4 and layer 2 by 1/4; then layer 2 by 1/4 and layer 4 by 4."""
    model, x = mlp(), inputs(30, 6)
    twin, pairs = rescaled(model, data_of(x))
    assert pairs == [("0", "2"), ("2", "4")]
    expected = {"0.weight": 4, "0.bias": 4, "2.weight": 1 / 16, "2.bias": 1 / 4, "4.weight": 4, "4.bias": 1}
    for name, by in expected.items():
        assert torch.equal(twin.get_parameter(name), by * model.get_parameter(name)), name
    assert torch.equal(model(x), twin(x))


@pytest.mark.parametrize("factor", [0.1, 3.0, 64.0])
def test_any_factor_keeps_the_outputs(factor: float) -> None:
    model, x = mlp(), inputs(30, 6)
    twin, pairs = rescaled(model, data_of(x), factor=factor)
    assert len(pairs) == 2
    assert torch.allclose(twin(x), model(x), rtol=1e-4, atol=1e-4)
    assert torch.allclose(twin.get_parameter("0.weight"), factor * model.get_parameter("0.weight"))


def test_batch_norm_is_scaled_by_its_own_weight() -> None:
    """Eval mode fixes the statistics, so that a convolution before a norm cannot be scaled but the norm can."""
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()]
    model, x = filled(nn.Sequential(*layers, nn.Linear(16, 3))).train(), inputs(20, 1, 6, 6)
    twin, pairs = rescaled(model, data_of(x))
    assert pairs == [("1", "3"), ("3", "6")]
    assert torch.equal(twin.get_parameter("0.weight"), model.get_parameter("0.weight"))
    assert torch.equal(twin.get_parameter("1.bias"), 4 * model.get_parameter("1.bias"))
    assert torch.allclose(twin.eval()(x), model.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.GELU])
def test_a_smooth_network_has_none_and_stays_bit_identical(activation: type[nn.Module]) -> None:
    model = mlp(activation)
    twin, pairs = rescaled(model, data_of(inputs(30, 6)))
    assert pairs == []
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in twin.state_dict().items())


def test_a_skip_connection_leaves_the_pair_within_the_block() -> None:
    model, x = filled(Block()), inputs(30, 6)
    twin, pairs = rescaled(model, data_of(x))
    assert pairs == [("inner", "outer")]
    assert torch.equal(twin.get_parameter("before.weight"), model.get_parameter("before.weight"))
    assert torch.equal(twin(x), model(x))


class Idle(nn.Module):
    """A network with two layers that take no part in its function."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.u, self.v, self.inner = nn.Linear(6, 6), nn.Linear(6, 6), inner

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x)
        return found


@pytest.mark.parametrize(("activation", "expected"), [(nn.Tanh, []), (nn.ReLU, [("inner.0", "inner.2")])])
def test_layers_that_take_no_part_are_no_pair(activation: type[nn.Module], expected: list[tuple[str, str]]) -> None:
    model, x = filled(Idle(nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 3)))), inputs(30, 6)
    twin, pairs = rescaled(model, data_of(x))
    assert pairs == expected
    assert torch.equal(twin(x), model(x))
    for name in ("u.weight", "u.bias", "v.weight", "v.bias"):
        assert torch.equal(twin.get_parameter(name), model.get_parameter(name)), name


def test_a_network_in_half_precision_is_scaled_in_it() -> None:
    model, x = mlp().bfloat16(), inputs(30, 6).bfloat16()
    twin, pairs = rescaled(model, data_of(x))
    assert pairs == [("0", "2"), ("2", "4")]
    assert torch.equal(twin(x), model(x)) and twin.get_parameter("0.weight").dtype is torch.bfloat16


def test_every_batch_of_the_data_is_looked_at() -> None:
    """`max(h, −1)` is linear for the small inputs of the first batch and bends for those of the last."""

    class Bent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp_min(-1.0)

    model = filled(nn.Sequential(nn.Linear(6, 8, bias=False), Bent(), nn.Linear(8, 3)))
    small, large = data_of(0.01 * inputs(20, 6)), data_of(10 * inputs(20, 6))
    assert rescaled(model, [small])[1] == [("0", "2")]
    assert rescaled(model, [small, large])[1] == []


def test_weights_that_are_computed_or_shared_are_left_alone() -> None:
    computed = nn.Sequential(weight_norm(nn.Linear(6, 6, bias=False)), nn.ReLU(), nn.Linear(6, 3))
    absorbing = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), weight_norm(nn.Linear(6, 3)))
    shared = nn.Linear(6, 6, bias=False)
    for model in (computed, absorbing, nn.Sequential(shared, nn.ReLU(), Sharing(shared))):
        assert rescaled(model, data_of(inputs(20, 6)))[1] == []


class Sharing(nn.Linear):
    """Another module with the weight of a first one."""

    def __init__(self, other: nn.Linear) -> None:
        super().__init__(other.in_features, other.out_features, bias=False)
        self.weight = other.weight


def test_the_model_and_every_mode_are_left_as_they_were() -> None:
    norm = nn.BatchNorm1d(8)
    layers = [("a", nn.Linear(6, 8)), ("n", norm), ("r", nn.ReLU()), ("b", nn.Linear(8, 3))]
    model = filled(nn.Sequential(OrderedDict(layers)))
    model.train()
    norm.eval()
    before = copy.deepcopy(model.state_dict())
    twin, pairs = rescaled(model, data_of(inputs(30, 6)))
    assert pairs == [("n", "b")]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (
        [m.training for m in model.modules()] == [m.training for m in twin.modules()] == [True, True, False, True, True]
    )
    assert all(a is not b for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("factor", [0.0, -2.0, 1.0, float("inf"), float("nan")])
def test_bad_factors_are_named(factor: float) -> None:
    with pytest.raises(ValueError, match=f"factor = {factor}; allowed: a positive number other than 1"):
        rescaled(mlp(), data_of(inputs(5, 6)), factor=factor)


def test_no_data_is_an_error() -> None:
    with pytest.raises(ValueError, match="data holds no example"):
        rescaled(mlp(), data_of(torch.empty(0, 6)))

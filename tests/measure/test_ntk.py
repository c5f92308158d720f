import copy
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from overparam.measure.kernels.empirical import empirical_kernel, empirical_ntk
from overparam.measure.kernels.layers.footprint import Footprint, pieces
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from tests.support.kernels import NETWORKS, jacobian_kernel

TIGHT = 400_000  # bytes: the small networks go by several pieces


def apart(found: Tensor, true: Tensor) -> float:
    return float((found - true).abs().max() / true.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("max_memory", [None, TIGHT])
def test_the_structured_kernel_is_the_jacobians(name: str, max_memory: int | None) -> None:
    model, x, without = NETWORKS[name]()
    found = empirical_kernel(model, x, max_memory=max_memory)
    true = jacobian_kernel(model, x, x)
    assert apart(found.values, true) < 1e-5
    jacobian = {parameter for parameter, route in found.routes.items() if route == "jacobian"}
    trainable = {parameter for parameter, value in model.named_parameters() if value.requires_grad}
    assert jacobian == {each for each in trainable if each.startswith(without or ("no such parameter",))}
    assert found.routes.keys() == trainable


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("max_memory", [None, TIGHT])
def test_cross_kernels_and_traces_are_parts_of_it(name: str, max_memory: int | None) -> None:
    model, x, _ = NETWORKS[name]()
    true = jacobian_kernel(model, x, x)
    trace = true.diagonal(dim1=2, dim2=3).mean(2)
    assert apart(empirical_ntk(model, x[:2], x, max_memory=max_memory), true[:2]) < 1e-5
    assert apart(empirical_ntk(model, x, outputs="trace", max_memory=max_memory), trace) < 1e-5
    assert apart(empirical_ntk(model, x, x[1:3], outputs="trace", max_memory=max_memory), trace[:, 1:3]) < 1e-5


@pytest.mark.parametrize("name", ["mlp", "batch norm cnn", "transformer"])
def test_it_is_exact_in_float64(name: str) -> None:
    model, x, _ = NETWORKS[name]()
    model, x = model.double(), x.double() if x.is_floating_point() else x
    assert apart(empirical_ntk(model, x), jacobian_kernel(model, x, x)) < 1e-13


def test_a_symmetric_kernel_is_symmetric_to_the_last_bit_whatever_the_pieces() -> None:
    model, x, _ = NETWORKS["mlp"]()
    x = torch.cat([x + i for i in range(20)])
    for max_memory in (None, 300_000):
        kernel = empirical_ntk(model, x, max_memory=max_memory).permute(0, 2, 1, 3).reshape(300, 300)
        assert torch.equal(kernel, kernel.T)


def test_the_matrix_of_the_blocks_is_a_view_of_them() -> None:
    model, x, _ = NETWORKS["mlp"]()
    kernel = empirical_ntk(model, x)
    matrix = kernel.permute(0, 2, 1, 3).reshape(15, 15)
    assert matrix.data_ptr() == kernel.data_ptr()
    assert float(torch.linalg.eigvalsh(matrix.double())[0]) > -1e-4 * float(matrix.trace())


def test_linear_in_the_parameters_is_the_kernel_of_the_features() -> None:
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(4, 2, bias=False)).double()
    kernel = empirical_ntk(model, x)
    assert torch.allclose(kernel, (x @ x.T)[:, :, None, None] * torch.eye(2, dtype=x.dtype), rtol=1e-13, atol=1e-13)


def test_a_two_layer_linear_network_has_its_closed_form() -> None:
    """f = vᵀ W x: Θ = ‖v‖² x·x' + (W x)·(W x')."""
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 1, bias=False)).double()
    w, v = (p.detach() for p in model.parameters())
    true = v.square().sum() * x @ x.T + (x @ w.T) @ (x @ w.T).T
    assert torch.allclose(empirical_ntk(model, x, outputs="trace"), true, rtol=1e-13, atol=1e-13)


def test_its_spectrum_over_n_is_that_of_gauss_newton_for_mse() -> None:
    model, x, _ = NETWORKS["batch norm cnn"]()
    model, x = model.double(), x.double()
    kernel = empirical_ntk(model, x).permute(0, 2, 1, 3).reshape(12, 12)
    top = torch.linalg.eigvalsh(kernel)[-1] / len(x)
    y = torch.zeros(len(x), 3, dtype=torch.float64)
    found = top_eigenvalues(model, "mse", (x, y), curvature="ggn", tol=1e-8, generator=torch.Generator())
    assert float(found.values[0]) == pytest.approx(float(top), rel=1e-8)


@pytest.mark.parametrize("name", ["batch norm cnn", "residual", "transformer"])
def test_the_model_is_left_as_it_was(name: str) -> None:
    model, x, _ = NETWORKS[name]()
    before, twin = copy.deepcopy(model.state_dict()), x.clone()
    empirical_ntk(model, x)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(x, twin)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_modes_are_put_back() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)).train()
    model[0].eval()
    empirical_ntk(model, torch.ones(2, 3))
    assert [module.training for module in model] == [False, True, True]


class Drawn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.a(x), 0.5)  # without self.training


def with_nan() -> nn.Module:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    return model


X = torch.arange(12.0).reshape(4, 3) / 10


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval(),
            {},
            "others in its batch",
        ),
        (Drawn(), {}, "draws random numbers"),
        (with_nan(), {}, "weight holds 1 values that are not finite"),
        (nn.Linear(3, 2), {"x1": X / 0.0}, "x1 holds 12 values that are not finite"),
        (nn.Linear(3, 2), {"x2": X[:, :2]}, "x1 and x2 hold examples of shapes (3,) and (2,)"),
        (nn.Linear(3, 2), {"x1": X[:0]}, "x1 has shape (0, 3); it must hold at least one example"),
        (nn.Linear(3, 2), {"x1": X[None]}, "the model returns shape (2, 4, 2) for 2 inputs"),
        (nn.Linear(3, 2), {"outputs": "diagonal"}, 'outputs="diagonal"; allowed: "full"'),
        (nn.Linear(3, 2), {"max_memory": 100}, "max_memory=100 bytes is too small: one pair of examples takes"),
        (nn.Linear(3, 2).requires_grad_(False), {}, "no parameter of the model requires a gradient"),
    ],
)
def test_bad_input_is_refused_and_the_model_left_alone(
    model: nn.Module, arguments: dict[str, object], message: str
) -> None:
    modes = [module.training for module in model.modules()]
    with pytest.raises(ValueError, match=re.escape(message)):
        empirical_ntk(model, **{"x1": X, **arguments})  # type: ignore[arg-type]
    assert [module.training for module in model.modules()] == modes


@given(
    factors=st.integers(0, 10_000),
    forming=st.integers(0, 10_000),
    column=st.integers(1, 1000),
    count=st.integers(1, 2000),
    max_memory=st.integers(1, 10_000_000),
)
def test_pieces_stay_below_the_bound(factors: int, forming: int, column: int, count: int, max_memory: int) -> None:
    each = Footprint(factors, forming, column)
    working = factors + forming + column
    if factors + working > max_memory:
        with pytest.raises(ValueError, match="too small"):
            pieces(each, count, max_memory)
        return
    size, held = pieces(each, count, max_memory)
    assert size >= 1 and held >= 1
    assert size * held * factors + size * working <= max_memory

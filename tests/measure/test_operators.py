"""Products with curvatures against closed forms, plain double backward, naive loops and curvlinops."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import CURVATURES, Curvature, CurvatureOperator, output_curvature
from overparam.models.build import build
from overparam.models.losses import LossName, per_example
from overparam.specs.models.cnn import CNN
from tests.support.networks import images, rows, shaken, small_cnn, smooth_mlp
from tests.support.oracles import (
    assert_close,
    flat_function,
    jacobian,
    matrix,
    naive_ggn,
    plain_hessian,
    random_vectors,
)

F64 = torch.float64
LOSSES: tuple[LossName, ...] = ("cross_entropy", "mse")


# Closed forms


def test_softmax_regression_has_its_closed_form() -> None:
    """K22: the Hessian of ½-layer softmax regression is the mean of (diag p − ppᵀ) ⊗ xxᵀ."""
    x, y = rows()
    model = shaken(nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        p = F.softmax(model(x), 1)
    inner = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    expected = torch.einsum("ncd,ni,nj->cidj", inner, x, x).reshape(12, 12) / len(x)
    for curvature in ("hessian", "ggn", "fisher"):
        assert_close(matrix(model, "cross_entropy", (x, y), curvature), expected)


def test_logistic_regression_has_its_closed_form() -> None:
    """Xᵀ diag(p(1 − p)) X / n, with the two-class logits (xᵀw, 0)."""

    class Logistic(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            z = super().forward(x)
            return torch.cat([z, torch.zeros_like(z)], 1)

    x, y = rows(classes=2)
    model = shaken(Logistic(4, 1, bias=False))
    with torch.no_grad():
        p = F.softmax(model(x), 1)[:, 0]
    assert_close(matrix(model, "cross_entropy", (x, y)), x.T @ ((p * (1 - p)).unsqueeze(1) * x) / len(x))


def test_least_squares_has_its_closed_form() -> None:
    x, _ = rows()
    y = torch.randn(12, 1, generator=torch_generator(0, "targets"), dtype=F64)
    for curvature in ("hessian", "ggn", "fisher"):
        assert_close(matrix(shaken(nn.Linear(4, 1, bias=False)), "mse", (x, y), curvature), x.T @ x / 12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_hessian_of_a_linear_model_is_its_gauss_newton_matrix(loss: LossName) -> None:
    model = shaken(nn.Linear(4, 3))
    assert_close(matrix(model, loss, rows(), "ggn"), matrix(model, loss, rows()))


def test_at_zero_residual_the_spectrum_is_that_of_the_tangent_kernel() -> None:
    """K23: with ℓ = ½r² and r = 0 the non-zero eigenvalues of the Hessian are those of JJᵀ/N."""
    x, _ = rows(count=6)
    model = shaken(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)))
    with torch.no_grad():
        y = model(x)
    jacobians = jacobian(model, x)[:, 0]
    expected = torch.linalg.eigvalsh(jacobians @ jacobians.T / len(x))
    found = torch.linalg.eigvalsh(matrix(model, "mse", (x, y)))
    assert torch.allclose(found[-6:], expected, rtol=1e-6, atol=0.0)
    assert float(found[:-6].abs().max()) <= 1e-12 * float(found[-1])


# Naive sums and plain double backward


@pytest.mark.parametrize("loss", LOSSES)
def test_the_hessian_is_that_of_plain_double_backward(loss: LossName) -> None:
    model, (x, y) = smooth_mlp(), rows()
    assert_close(matrix(model, loss, (x, y)), plain_hessian(model, loss, x, y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("curvature", ["ggn", "fisher"])
def test_gauss_newton_is_the_naive_sum(loss: LossName, curvature: Curvature) -> None:
    model, (x, y) = smooth_mlp(), rows()
    assert_close(matrix(model, loss, (x, y), curvature), naive_ggn(model, loss, x))


def test_fisher_is_the_expectation_over_the_models_own_labels() -> None:
    """Σ_c p_c g_c g_cᵀ with g_c the gradient of the loss if the label were c."""
    model, (x, y) = smooth_mlp(), rows()
    function, theta = flat_function(model)
    expected = torch.zeros(len(theta), len(theta), dtype=F64)
    for each in x:
        p = F.softmax(function(theta, each[None]), 1)[0]
        for label in range(3):
            leaf = theta.clone().requires_grad_()
            loss = F.cross_entropy(function(leaf, each[None]), torch.tensor([label]))
            (grad,) = torch.autograd.grad(loss, leaf)
            expected += p[label] * torch.outer(grad, grad) / len(x)
    assert_close(matrix(model, "cross_entropy", (x, y), "fisher"), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_empirical_fisher_is_the_naive_sum(loss: LossName) -> None:
    model, (x, y) = smooth_mlp(), rows()
    function, theta = flat_function(model)
    expected = torch.zeros(len(theta), len(theta), dtype=F64)
    for i in range(len(x)):
        leaf = theta.clone().requires_grad_()
        (grad,) = torch.autograd.grad(per_example(loss, function(leaf, x[i : i + 1]), y[i : i + 1]).sum(), leaf)
        expected += torch.outer(grad, grad) / len(x)
    assert_close(matrix(model, loss, (x, y), "empirical_fisher"), expected)


@pytest.mark.parametrize("curvature", ["hessian", "ggn", "empirical_fisher"])
def test_a_loss_of_the_callers_own_has_the_curvature_of_the_named_one(curvature: Curvature) -> None:
    def own(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y, reduction="none")

    model, data = smooth_mlp(), rows()
    assert_close(matrix(model, own, data, curvature), matrix(model, "cross_entropy", data, curvature))


def test_a_loss_that_is_linear_in_the_parameters_has_curvature_zero() -> None:
    def linear(outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.sum(1)

    for curvature in ("hessian", "ggn"):
        found = matrix(shaken(nn.Linear(4, 3)), linear, rows(), curvature)
        assert torch.equal(found, torch.zeros(15, 15, dtype=F64))


class Ignoring(nn.Module):
    """`unused` takes no part in the function."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


@pytest.mark.parametrize("curvature", CURVATURES)
def test_unused_parameters_are_no_part_of_the_matrix_where_they_are_held(curvature: Curvature) -> None:
    model = shaken(Ignoring())
    found = matrix(model, "cross_entropy", rows(), curvature, unused="hold")
    assert_close(found, matrix(model.used, "cross_entropy", rows(), curvature))  # type: ignore[arg-type]


@pytest.mark.parametrize("unused", ["refuse", "hold"])
def test_a_function_of_no_measured_parameter_is_refused(unused: Any) -> None:
    """Its curvature would be 0, certified: the commonest way to get that is a wrong name."""
    with pytest.raises(ValueError, match=r"no output depends on unused\.weight, unused\.bias"):
        matrix(shaken(Ignoring()), "cross_entropy", rows(), params="unused", unused=unused)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_part_of_the_parameters_has_its_block_of_the_matrix(curvature: Curvature) -> None:
    model = smooth_mlp()
    whole = matrix(model, "cross_entropy", rows(), curvature)
    assert_close(matrix(model, "cross_entropy", rows(), curvature, params="2"), whole[25:, 25:])
    model[0].requires_grad_(False)  # type: ignore[index]
    assert_close(matrix(model, "cross_entropy", rows(), curvature), whole[25:, 25:])


@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_tied_weight_is_one_parameter(curvature: Curvature) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))
            return out

    model, (x, y) = shaken(Tied()), rows()
    found = matrix(model, "cross_entropy", (x, y), curvature)
    assert len(found) == 16 + 4 + 4 + 15
    if curvature == "hessian":
        assert_close(found, plain_hessian(model, "cross_entropy", x, y))
    elif curvature != "empirical_fisher":
        assert_close(found, naive_ggn(model, "cross_entropy", x))


# curvlinops


@contextmanager
def other_peoples_warnings() -> Iterator[None]:
    """linear_operator, which curvlinops imports, uses `torch.jit.script`, which is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_products_on_a_batch_norm_cnn_are_those_of_curvlinops(curvature: Curvature, loss: LossName) -> None:
    with other_peoples_warnings():
        import curvlinops  # type: ignore[import-untyped]

    model = build(CNN(channels=2), (1, 8, 8), 3, generator=torch_generator(0, "init"))
    generator = torch_generator(0, "images")
    x, y = torch.randn(40, 1, 8, 8, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    with torch.no_grad():
        model(x)
    frozen_at = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    for module in (model[1], model[7], model[12]):  # type: ignore[index]
        module.eval()
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2

    batches = [(x[:25], y[:25]), (x[25:39], y[25:39]), (x[39:], y[39:])]
    vectors = random_vectors(3, sum(p.numel() for p in model.parameters()), torch.float32)
    with opened(model, loss, batches) as problem:
        found = CurvatureOperator(problem, curvature)(vectors)

    assert [module.training for module in model.modules()] == modes
    with opened(model, loss, batches) as problem, pytest.raises(ValueError, match="unknown curvature"):
        CurvatureOperator(problem, "laplacian")  # type: ignore[arg-type]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, frozen_at[name]) for name, value in model.state_dict().items())

    model.eval()
    if loss == "mse":  # theirs is the mean over all entries of (f − y)²: 2/C of ½‖f − y‖²
        function, scale = nn.MSELoss(reduction="mean"), 3.0 / 2.0
        batches = [(x, F.one_hot(y, 3).float()) for x, y in batches]
    else:
        function, scale = nn.CrossEntropyLoss(reduction="mean"), 1.0  # type: ignore[assignment]
    oracle = curvlinops.HessianLinearOperator if curvature == "hessian" else curvlinops.GGNLinearOperator
    with other_peoples_warnings():
        expected = scale * (oracle(model, function, list(model.parameters()), batches) @ vectors.T).T.detach()
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) <= 1e-5


# Data in parts


@pytest.mark.parametrize("curvature", CURVATURES)
def test_ragged_batches_are_one_mean_over_examples(curvature: Curvature) -> None:
    model, (x, y) = smooth_mlp(), rows(count=138)
    sizes = [100, 37, 1]
    batches = list(zip(torch.split(x, sizes), torch.split(y, sizes), strict=True))
    expected = matrix(model, "cross_entropy", (x, y), curvature)
    assert_close(matrix(model, "cross_entropy", batches, curvature), expected)
    assert_close(matrix(model, "cross_entropy", batches, curvature, chunk=10), expected)
    parts = [matrix(model, "cross_entropy", batch, curvature) for batch in batches]
    assert_close(sum(size * part for size, part in zip(sizes, parts, strict=True)) / 138, expected)  # type: ignore[arg-type]
    assert float((sum(parts[1:], parts[0]) / 3 - expected).abs().max()) > 1e-3 * float(expected.abs().max())


@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_shuffling_loader_gives_a_symmetric_operator(curvature: Curvature) -> None:
    """Read anew for every product it would be a different sum each time (here only by rounding, but in batch norm's
    training mode, or with a loader that drops the last batch, by much)."""
    model, (x, y) = smooth_mlp(), rows(count=50)
    data = TensorDataset(x, y)
    loader = DataLoader(data, batch_size=8, shuffle=True, drop_last=True, generator=torch_generator(0, "order"))
    with opened(model, "cross_entropy", loader) as problem:
        operator = CurvatureOperator(problem, curvature)
        u, v = random_vectors(2, operator.size)
        assert float(u @ operator(v)) == pytest.approx(float(v @ operator(u)), rel=1e-12)
        assert torch.equal(operator(v), operator(v))
        assert problem.num_examples == 48


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("budget", [0, 1, 7_000, 2**31])
def test_graphs_that_are_not_kept_give_the_same_products(curvature: Curvature, budget: int) -> None:
    model, (x, y) = smooth_mlp(), rows(count=60)
    with opened(model, "cross_entropy", (x, y), chunk=16) as problem:
        vectors = random_vectors(3, problem.num_parameters)
        found = CurvatureOperator(problem, curvature, max_graph_bytes=budget)
        kept = [not isinstance(each, tuple) for each in found.kept]
        assert (sum(kept) == 0) == (budget < 2)
        assert all(kept) == (budget > 10**6)
        expected = CurvatureOperator(problem, curvature)(vectors)
        assert_close(found(vectors), expected, 1e-14)
        assert_close(found(vectors[0]), expected[0], 1e-14)


def test_the_budget_holds_where_the_first_batch_is_the_smallest() -> None:
    """What a graph takes must not be guessed from a first batch of one example."""
    model, (x, y) = smooth_mlp(), rows(count=201)
    batches = [(x[:1], y[:1]), *zip(torch.split(x[1:], 50), torch.split(y[1:], 50), strict=True)]
    with opened(model, "cross_entropy", batches) as problem:
        operator = CurvatureOperator(problem, max_graph_bytes=0)
        budget = 2 * operator.graph_bytes(problem.chunks[1])
        kept = CurvatureOperator(problem, max_graph_bytes=budget).kept
        taken = [operator.graph_bytes(c) for c, k in zip(problem.chunks, kept, strict=True) if not isinstance(k, tuple)]
        assert sum(taken) <= budget


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_a_block_of_vectors_is_taken_row_by_row(kind: str, curvature: Curvature, loss: LossName) -> None:
    model, data = (smooth_mlp(), rows()) if kind == "mlp" else (small_cnn(), images())
    with opened(model, loss, data, chunk=5) as problem:
        operator = CurvatureOperator(problem, curvature)
        vectors = random_vectors(4, operator.size)
        block = operator(vectors)
        assert operator.num_products == 4
        assert_close(block, torch.stack([operator(vector) for vector in vectors]), 1e-12)
        assert operator.num_products == 8
        assert_close(operator(vectors[:1]), block[:1], 1e-12)
        unchanged = random_vectors(4, operator.size)
        assert torch.equal(vectors, unchanged)


@given(seed=st.integers(0, 10**6), curvature=st.sampled_from(CURVATURES), loss=st.sampled_from(LOSSES))
@settings(max_examples=25)
def test_every_curvature_is_linear_and_symmetric(seed: int, curvature: Curvature, loss: LossName) -> None:
    generator = torch_generator(seed, "law")
    with opened(smooth_mlp(), loss, rows(seed=seed)) as problem:
        operator = CurvatureOperator(problem, curvature)
        u, v = torch.randn(2, operator.size, generator=generator, dtype=F64)
        a, b = torch.randn(2, generator=generator, dtype=F64)
        assert_close(operator(a * u + b * v), a * operator(u) + b * operator(v), 1e-10)
        scale = float(operator(u).norm() * v.norm())
        assert abs(float(v @ operator(u) - u @ operator(v))) <= 1e-13 * scale
        if curvature != "hessian":
            assert float(u @ operator(u)) >= -1e-13 * scale


# Saturated networks


def test_the_softmax_product_keeps_its_digits_where_p_is_nearly_one_hot() -> None:
    """p₁(1 − p₁) with 1 − p₁ = 1e-8 is 0 in float32 if 1 − p₁ is taken by subtraction."""
    z = torch.tensor([[18.0, 0.0, -3.0]])
    p = F.softmax(z.double(), 1)[0]
    expected = torch.diag(p) - torch.outer(p, p)
    with opened(nn.Linear(4, 3), "cross_entropy", (torch.zeros(1, 4), torch.tensor([0]))) as problem:
        product = output_curvature(problem, z, torch.tensor([0]))
        found = torch.stack([product(unit[None])[0] for unit in torch.eye(3)]).double()
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-6

"""Products with curvatures against closed forms, plain double backward, naive loops and curvlinops."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

from overparam.measure.convolution import SecondOrder
from overparam.measure.losses import LossName, per_example
from overparam.measure.operators import (
    CURVATURES,
    Curvature,
    CurvatureOperator,
    MatrixOperator,
    dense,
    output_curvature,
)
from overparam.measure.problem import Batch, Problem, evaluating, opened
from overparam.models.build import build
from overparam.rng.torch_generators import torch_generator
from overparam.specs.run import CNN, MLP

F64 = torch.float64
LOSSES: tuple[LossName, ...] = ("cross_entropy", "mse")


def rows(count: int = 12, inputs: int = 4, classes: int = 3, seed: int = 0) -> Batch:
    generator = torch_generator(seed, "test")
    x = torch.randn(count, inputs, generator=generator, dtype=F64)
    return x, torch.randint(0, classes, (count,), generator=generator)


def images(count: int = 6, channels: int = 2, size: int = 8, classes: int = 3) -> Batch:
    generator = torch_generator(0, "images")
    x = torch.randn(count, channels, size, size, generator=generator, dtype=F64)
    return x, torch.randint(0, classes, (count,), generator=generator)


def shaken(model: nn.Module) -> nn.Module:
    """Weights, scales and running statistics at no special value, float64."""
    generator = torch_generator(0, "shaken")
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                scale = 1.0 if value.ndim < 2 else value[0].numel() ** -0.5
                value.copy_(0.7 * scale * torch.randn(value.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.abs_().add_(0.5)
    return model.double()


def smooth_mlp() -> nn.Module:
    return shaken(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


def random_vectors(count: int, size: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(count, size, generator=torch_generator(0, "vectors"), dtype=F64).to(dtype)


def matrix(model: nn.Module, loss: Any, data: Any, curvature: Curvature = "hessian", **options: Any) -> Tensor:
    with opened(model, loss, data, **options) as problem:
        return dense(CurvatureOperator(problem, curvature))


def flat_function(model: nn.Module) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """`f(θ, x)` by plain PyTorch, and θ; attention by the kernel that has second derivatives."""
    names, values = zip(*[(n, p.detach().clone()) for n, p in model.named_parameters()], strict=True)
    sizes = [value.numel() for value in values]

    def function(theta: Tensor, x: Tensor) -> Tensor:
        parts = [part.reshape(value.shape) for part, value in zip(torch.split(theta, sizes), values, strict=True)]
        with sdpa_kernel(SDPBackend.MATH):
            out: Tensor = functional_call(model, dict(zip(names, parts, strict=True)), (x,))
        return out

    return function, torch.cat([value.reshape(-1) for value in values])


def plain_products(model: nn.Module, loss: LossName, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
    """Rows `H v` for the Hessian of the mean loss by PyTorch's own double backward."""
    function, theta = flat_function(model)
    with evaluating(model):
        leaf = theta.clone().requires_grad_()
        (grad,) = torch.autograd.grad(per_example(loss, function(leaf, x), y).mean(), leaf, create_graph=True)
        return torch.stack([torch.autograd.grad(grad, leaf, vector, retain_graph=True)[0] for vector in vectors])


def plain_hessian(model: nn.Module, loss: LossName, x: Tensor, y: Tensor) -> Tensor:
    return plain_products(model, loss, x, y, torch.eye(sum(p.numel() for p in model.parameters()), dtype=F64))


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """`∂f(x_i)/∂θ` (n, C, P) by one backward pass per output."""
    function, theta = flat_function(model)
    with evaluating(model):
        leaf = theta.clone().requires_grad_()
        outputs = function(leaf, x)
        found = [torch.autograd.grad(each, leaf, retain_graph=True)[0] for each in outputs.reshape(-1)]
    return torch.stack(found).reshape(*outputs.shape, -1)


def naive_ggn(model: nn.Module, loss: LossName, x: Tensor) -> Tensor:
    jacobians = jacobian(model, x)
    with evaluating(model), torch.no_grad():
        p = F.softmax(model(x), 1)
    inner = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1) if loss == "cross_entropy" else torch.eye(p.shape[1])
    return torch.einsum("ncp,ncd,ndq->pq", jacobians, inner.double().expand(len(x), -1, -1), jacobians) / len(x)


def assert_close(found: Tensor, expected: Tensor, tol: float = 1e-10) -> None:
    """Relative in the largest entry."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tol * float(expected.abs().max())


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
def test_unused_parameters_have_zero_rows(curvature: Curvature) -> None:
    model = shaken(Ignoring())
    found = matrix(model, "cross_entropy", rows(), curvature)
    assert_close(found[:15, :15], matrix(model.used, "cross_entropy", rows(), curvature))  # type: ignore[arg-type]
    assert torch.equal(found[15:], torch.zeros(6, 21, dtype=F64))


@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_function_of_no_measured_parameter_has_curvature_zero(curvature: Curvature) -> None:
    found = matrix(shaken(Ignoring()), "cross_entropy", rows(), curvature, params="unused")
    assert torch.equal(found, torch.zeros(6, 6, dtype=F64))


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
@pytest.mark.parametrize("budget", [0, 1, 10_000, 2**31])
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


# The convolution of its own


def scalar_of(out: Tensor) -> Tensor:
    """A loss that is curved in every output."""
    weights = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).reshape(out.shape)
    return (torch.tanh(out) * weights).sum()


def second_derivative(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Gradient of `scalar_of(function(…))` in all inputs at once, and its Hessian times six random vectors."""
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    grads = torch.autograd.grad(scalar_of(function(*leaves)), leaves, create_graph=True)
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    found = [
        torch.cat([part.reshape(-1) for part in torch.autograd.grad(flat, leaves, vector, retain_graph=True)])
        for vector in random_vectors(6, len(flat))
    ]
    return flat.detach(), torch.stack(found)


def assert_same_derivatives(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> SecondOrder:
    """With and without `SecondOrder`: value, gradient and Hessian products, to 1e-10 in float64."""
    expected = second_derivative(function, inputs)
    forms = SecondOrder()
    with forms:
        value = function(*inputs)
        found = second_derivative(function, inputs)
    assert_close(value, function(*inputs))
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])
    return forms


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch_generator(seed, "tensors")
    return [torch.randn(shape, generator=generator, dtype=F64) / max(shape[0], 2) ** 0.5 for shape in shapes]


GEOMETRIES: dict[str, tuple[dict[str, Any], int, int]] = {  # options, channels in, channels out
    "plain": ({}, 2, 3),
    "stride": ({"stride": 2}, 2, 3),
    "uneven stride": ({"stride": (2, 1)}, 2, 3),
    "stride that leaves a rest": ({"stride": 3}, 2, 2),
    "padding": ({"padding": 1}, 2, 3),
    "uneven padding": ({"padding": (0, 2)}, 2, 3),
    "dilation": ({"dilation": 2}, 2, 3),
    "groups": ({"groups": 2}, 4, 2),
    "depthwise": ({"groups": 3, "padding": 1}, 3, 3),
    "depthwise, two per channel": ({"groups": 2, "stride": 2}, 2, 4),
    "everything": ({"stride": 2, "padding": 2, "dilation": 2, "groups": 2}, 2, 4),
    "one-element lists": ({"stride": [2], "padding": [1]}, 2, 2),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_convolutions_have_pytorchs_derivatives(name: str, bias: bool) -> None:
    """In the input as well as in weight and bias."""
    options, channels_in, channels_out = GEOMETRIES[name]
    groups = options.get("groups", 1)
    inputs = tensors((2, channels_in, 5, 6), (channels_out, channels_in // groups, 3, 3), (channels_out,))
    if bias:
        forms = assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, b, **options), inputs)
    else:
        forms = assert_same_derivatives(lambda x, w: F.conv2d(x, w, **options), inputs[:2])
    assert forms.seen


@given(
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(5, 6), st.just(5)),
    bias=st.booleans(),
)
@settings(max_examples=20)
def test_convolutions_of_any_geometry_have_pytorchs_derivatives(
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    size: tuple[int, int],
    bias: bool,
) -> None:
    inputs = tensors((2, 2, *size), (2, 2 // groups, *kernel), (2,))
    rest = (stride, padding, dilation, groups)
    if bias:
        assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, b, *rest), inputs)
    else:
        assert_same_derivatives(lambda x, w: F.conv2d(x, w, None, *rest), inputs[:2])


def test_named_padding_stays_pytorchs() -> None:
    inputs = tensors((2, 2, 5, 5), (3, 2, 3, 3), (3,))
    assert not assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, b, padding="same"), inputs).seen
    assert not assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, b, padding="valid"), inputs).seen


def test_an_image_without_batch_axis_stays_pytorchs() -> None:
    assert not assert_same_derivatives(lambda x, w: F.conv2d(x, w), tensors((2, 5, 5), (3, 2, 3, 3))).seen


def test_a_convolution_may_be_called_by_keywords() -> None:
    inputs = tensors((2, 2, 5, 5), (3, 2, 3, 3), (3,))
    assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, bias=b, stride=2), inputs)
    assert_same_derivatives(lambda x, w, b: F.conv2d(x, weight=w, bias=b), inputs)
    assert_same_derivatives(lambda x, w, b: F.conv2d(input=x, weight=w, bias=b, padding=1), inputs)


def test_a_frozen_input_or_weight_gets_no_derivative() -> None:
    x, w, b = tensors((2, 2, 5, 5), (3, 2, 3, 3), (3,))
    for function, inputs in (
        (lambda w, b: F.conv2d(x, w, b), [w, b]),
        (lambda x: F.conv2d(x, w, b), [x]),
        (lambda w: F.conv2d(x, w, b), [w]),
        (lambda b: F.conv2d(x, w, b), [b]),
        (lambda x, b: F.conv2d(x, w, b), [x, b]),
    ):
        assert_same_derivatives(function, inputs)


def test_once_is_linear_in_the_cotangent() -> None:
    """`twice=False`: the backward map may be differentiated in its cotangent, which gives Jv."""
    inputs = tensors((2, 2, 5, 5), (3, 2, 3, 3), (3,))
    found = []
    for mode in (SecondOrder(twice=False), other_peoples_warnings()):
        leaves = [each.clone().requires_grad_() for each in inputs]
        with mode:
            out = F.conv2d(leaves[0], leaves[1], leaves[2], stride=2)
        dual = torch.zeros_like(out, requires_grad=True)
        back = torch.autograd.grad(out, leaves, dual, create_graph=True)
        found.append(torch.autograd.grad(back, dual, tensors(*[each.shape for each in inputs], seed=1))[0])
    assert_close(found[0], found[1])


class Net(nn.Module):
    """A body on images, then the mean of each channel and a linear layer."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.body(x)).mean((2, 3)))
        return out


class UsedTwice(nn.Module):
    """The convolution's output goes into the batch norm and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        normed: Tensor = self.norm(out)
        both: Tensor = normed * out + normed
        return both


class BatchStatistics(nn.Module):
    """Batch norm by the statistics of the batch even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        out = self.conv(x)
        return F.batch_norm(out, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=True)


class Residual(nn.Module):
    """Conv – BN – ReLU – conv – BN, added to the input, twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = F.relu(x[:, :2] + block(x[:, :2]))
        return x


def conv_then(*layers: nn.Module, **options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3, **options), *layers)


def small_cnn() -> nn.Module:
    body = conv_then(nn.BatchNorm2d(3), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(3, 3, 2, bias=False), nn.BatchNorm2d(3))
    return shaken(Net(body, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: Net(conv_then(), 3),
    "conv, same padding": lambda: Net(conv_then(padding="same"), 3),
    "conv, circular padding": lambda: Net(conv_then(padding=1, padding_mode="circular"), 3),
    "conv, batch norm": lambda: Net(conv_then(nn.BatchNorm2d(3)), 3),
    "conv without bias, batch norm": lambda: Net(conv_then(nn.BatchNorm2d(3), bias=False), 3),
    "conv, batch norm without affine": lambda: Net(conv_then(nn.BatchNorm2d(3, affine=False)), 3),
    "conv, batch norm without statistics": lambda: Net(conv_then(nn.BatchNorm2d(3, track_running_stats=False)), 3),
    "conv, batch norm twice": lambda: Net(conv_then(nn.BatchNorm2d(3), nn.BatchNorm2d(3)), 3),
    "conv, relu in place, batch norm": lambda: Net(conv_then(nn.ReLU(inplace=True), nn.BatchNorm2d(3)), 3),
    "conv, relu, batch norm": lambda: Net(conv_then(nn.ReLU(), nn.BatchNorm2d(3)), 3),
    "conv, batch norm, relu in place": lambda: Net(conv_then(nn.BatchNorm2d(3), nn.ReLU(inplace=True)), 3),
    "strided grouped conv, batch norm": lambda: Net(
        nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, groups=2), nn.BatchNorm2d(4)), 4
    ),
    "output used twice": lambda: Net(UsedTwice(), 3),
    "statistics of the batch": lambda: Net(BatchStatistics(), 3),
    "residual": lambda: Net(Residual(2), 2),
    "deep": small_cnn,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_convolutional_networks_have_pytorchs_curvature(name: str) -> None:
    """Products with random vectors, which see every entry."""
    model, (x, y) = shaken(NETWORKS[name]()), images(size=7)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with opened(model, "cross_entropy", (x, y)) as problem:
        vectors = random_vectors(6, problem.num_parameters)
        gradient = problem.gradient()
        hessian, ggn = CurvatureOperator(problem)(vectors), CurvatureOperator(problem, "ggn")(vectors)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    function, theta = flat_function(model)
    with evaluating(model):
        expected = torch.func.grad(lambda theta: per_example("cross_entropy", function(theta, x), y).mean())(theta)
    assert_close(gradient, expected)
    assert_close(hessian, plain_products(model, "cross_entropy", x, y, vectors))
    assert_close(ggn, vectors @ naive_ggn(model, "cross_entropy", x))


def test_batch_norm_is_folded_only_right_after_a_convolution() -> None:
    """The form is for speed; that it is taken is seen in the convolutions noted: one each, and one more if folded."""

    def noted(body: nn.Module) -> int:
        with evaluating(body), SecondOrder() as forms:
            body(images(size=7)[0])
        return len(forms.seen)

    assert noted(conv_then(nn.BatchNorm2d(3)).double()) == 2
    assert noted(conv_then(nn.BatchNorm2d(3, affine=False), bias=False).double()) == 2
    assert noted(conv_then(nn.ReLU(inplace=True), nn.BatchNorm2d(3)).double()) == 1
    assert noted(conv_then(nn.ReLU(), nn.BatchNorm2d(3)).double()) == 1
    assert noted(BatchStatistics().double()) == 1
    assert noted(nn.BatchNorm2d(2).double()) == 0


def test_only_batch_norm_may_be_measured() -> None:
    """Folding puts trainable scales into a frozen weight."""
    model, (x, y) = small_cnn(), images(size=7)
    whole = matrix(model, "cross_entropy", (x, y))
    names = [name for name, value in model.named_parameters() for _ in range(value.numel())]
    for params in ("body.1", "body.0", ["body.1", "body.4.weight"]):
        wanted = [params] if isinstance(params, str) else params
        index = torch.tensor([i for i, name in enumerate(names) if any(name.startswith(word) for word in wanted)])
        assert_close(matrix(model, "cross_entropy", (x, y), params=params), whole[index][:, index])


def test_signals_have_pytorchs_curvature() -> None:
    """One-dimensional convolutions are PyTorch's own."""
    body = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    model, (x, y) = shaken(body), rows(inputs=8)
    x = x.unsqueeze(1)
    assert_close(matrix(model, "cross_entropy", (x, y)), plain_hessian(model, "cross_entropy", x, y))
    assert_close(matrix(model, "cross_entropy", (x, y), "ggn"), naive_ggn(model, "cross_entropy", x))


@pytest.mark.parametrize(
    "spec", [MLP(width=4, depth=3), MLP(width=4, depth=3, parameterization="ntk"), MLP(width=(5, 3))]
)
def test_networks_of_a_spec_have_pytorchs_curvature(spec: MLP) -> None:
    model, (x, y) = build(spec, (4,), 3, generator=torch_generator(0, "init")).double(), rows()
    assert_close(matrix(model, "cross_entropy", (x, y)), plain_hessian(model, "cross_entropy", x, y))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=5, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x).mean(1))
        return out


class ScaledDotProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).chunk(3, dim=-1)
        out: Tensor = self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean(1))
        return out


@pytest.mark.parametrize("kind", [Attention, ScaledDotProduct])
def test_attention_has_pytorchs_curvature(kind: type[nn.Module]) -> None:
    model = shaken(kind())
    x = torch.randn(5, 6, 4, generator=torch_generator(0, "tokens"), dtype=F64)
    y = torch.tensor([0, 1, 2, 1, 0])
    with opened(model, "cross_entropy", (x, y)) as problem:
        operator = CurvatureOperator(problem)
        assert operator.fallback is None
        assert_close(dense(operator), plain_hessian(model, "cross_entropy", x, y))
    assert_close(matrix(model, "cross_entropy", (x, y), "ggn"), naive_ggn(model, "cross_entropy", x))


# Operations without second derivative


class OnceTanh(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.tanh(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        slope: Tensor = 1 - out * out
        return grad * slope


class Once(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = OnceTanh.apply(x)  # type: ignore[no-untyped-call]
        return out


class Centers(nn.Module):
    """Radial basis functions by `torch.cdist`, whose backward pass PyTorch cannot differentiate."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own, self.centers, self.head = own, nn.Parameter(torch.zeros(4, 4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.own:
            far = (x.unsqueeze(1) - self.centers).square().sum(2).sqrt()
        else:
            far = torch.cdist(x, self.centers, compute_mode="donot_use_mm_for_euclid_dist")
        out: Tensor = self.head(torch.exp(-0.3 * far))
        return out


def pairs_without_second_derivative() -> dict[str, tuple[nn.Module, nn.Module]]:
    """A model with such an operation, and its equal without."""
    return {
        "once_differentiable": (
            shaken(nn.Sequential(nn.Linear(4, 5), Once(), nn.Linear(5, 3))),
            shaken(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))),
        ),
        "cdist": (shaken(Centers(own=False)), shaken(Centers(own=True))),
    }


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("chunk", [250, 5])
@pytest.mark.parametrize("name", ["once_differentiable", "cdist"])
def test_where_there_is_no_second_derivative_products_are_differences(
    name: str, chunk: int, dtype: torch.dtype
) -> None:
    lacking, whole = pairs_without_second_derivative()[name]
    with opened(lacking, "cross_entropy", rows(), chunk=chunk, dtype=dtype) as problem:
        operator = CurvatureOperator(problem)
        vectors = random_vectors(3, operator.size, dtype)
        found = operator(vectors)
        assert operator.fallback is not None
        assert name.split("_")[-1] in operator.fallback
        assert operator.num_products == 3
        assert_close(operator(vectors[0]), found[0], 1e-12)
        assert_close(operator(1e6 * vectors[0]), 1e6 * found[0], 2e-3 if dtype is torch.float32 else 1e-6)
        assert torch.equal(operator(torch.zeros_like(vectors[0])), torch.zeros_like(vectors[0]))
    with opened(whole, "cross_entropy", rows(), chunk=chunk) as problem:
        expected = CurvatureOperator(problem)(vectors.double())
    for one, other in zip(found.double(), expected, strict=True):
        assert float((one - other).norm() / other.norm()) <= (1e-2 if dtype is torch.float32 else 1e-6)


@pytest.mark.parametrize("name", ["once_differentiable", "cdist"])
def test_gauss_newton_needs_one_derivative_only_where_the_operation_has_it(name: str) -> None:
    """Jv is taken by double backward, so there GGN is an error of PyTorch's, never a wrong number."""
    lacking, _ = pairs_without_second_derivative()[name]
    with (
        opened(lacking, "cross_entropy", rows()) as problem,
        pytest.raises(RuntimeError, match="differentia|derivative"),
    ):
        operator = CurvatureOperator(problem, "ggn")
        operator(random_vectors(1, operator.size)[0])


def test_other_errors_are_not_taken_for_a_missing_derivative() -> None:
    class Breaking(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("out of order")
            return super().forward(x)

    with (
        opened(Breaking(4, 3).double(), "cross_entropy", rows()) as problem,
        pytest.raises(RuntimeError, match="out of order"),
    ):
        CurvatureOperator(problem)


# Refusals and matrices


def test_an_unknown_curvature_is_an_error() -> None:
    with opened(smooth_mlp(), "mse", rows()) as problem, pytest.raises(ValueError, match='unknown curvature "gauss"'):
        CurvatureOperator(problem, "gauss")  # type: ignore[arg-type]


def test_the_fisher_needs_a_likelihood() -> None:
    def own(outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.square().sum(1)

    with (
        opened(smooth_mlp(), own, rows()) as problem,
        pytest.raises(ValueError, match="needs a loss that is a likelihood"),
    ):
        CurvatureOperator(problem, "fisher")


def test_a_matrix_is_its_own_operator() -> None:
    a = torch.randn(7, 7, generator=torch_generator(0, "a"), dtype=F64)
    a = a + a.T
    operator = MatrixOperator(a)
    assert torch.equal(dense(operator, rows=3), a)
    assert operator.num_products == 7
    assert operator(a[0]).shape == (7,)
    assert operator.num_products == 8


def test_a_dense_matrix_has_a_limit() -> None:
    with pytest.raises(ValueError, match="8,193 parameters is too large; allowed: at most 8,192"):
        dense(MatrixOperator(torch.empty(8193, 0)))


def test_products_leave_the_problem_as_it_was() -> None:
    def all_of(problem: Problem) -> list[Tensor]:
        return [problem.theta, *problem.fixed.values(), *(each for chunk in problem.chunks for each in chunk)]

    model = small_cnn()
    with opened(model, "cross_entropy", images(), chunk=4) as problem:
        before = [each.clone() for each in all_of(problem)]
        curvatures: tuple[Curvature, ...] = ("hessian", "ggn", "fisher", "empirical_fisher")
        for curvature in curvatures:
            operator = CurvatureOperator(problem, curvature, max_graph_bytes=1)
            operator(random_vectors(2, operator.size))
        assert all(torch.equal(one, other) for one, other in zip(before, all_of(problem), strict=True))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_solve_frees_its_graphs() -> None:
    """A graph that holds itself is not freed by anything: twenty operators of 16 MB would show."""
    model = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 3))
    data = torch.ones(250, 1, 8, 8), torch.zeros(250, dtype=torch.long)

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    sizes = []
    for _ in range(20):
        with opened(model, "cross_entropy", data) as problem:
            operator = CurvatureOperator(problem)
            assert operator.graph_bytes(problem.chunks[0]) > 4e6
        sizes.append(resident())
    assert sizes[-1] - sizes[4] < 40.0

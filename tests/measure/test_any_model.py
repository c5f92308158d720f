"""Models, data and circumstances that a caller may bring: measured rightly, or refused in words."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import CurvatureOperator
from overparam.measure.sharpness.weight_noise import perturbation_curve
from overparam.measure.sharpness.worst_case import worst_case_sharpness
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.measure.spectrum.trace import hessian_trace
from tests.support.matrices import of_matrix
from tests.support.networks import images, rows, shaken, smooth_mlp
from tests.support.oracles import assert_close, matrix, naive_ggn, plain_hessian, plain_products, random_vectors

F64 = torch.float64


# Circumstances


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_numbers(context: Callable[[], Any]) -> None:
    """Curvature 0, converged and certified, is what a graph without gradients would give."""
    model, data = smooth_mlp(), rows()
    plain = top_eigenvalues(model, "cross_entropy", data).values, hessian_trace(model, "cross_entropy", data).value
    with context():
        x = data[0].clone()  # made in inference mode
        found = top_eigenvalues(model, "cross_entropy", (x, data[1])).values
        traced = hessian_trace(model, "cross_entropy", data).value
        worst = worst_case_sharpness(model, "cross_entropy", data, radius=0.1).value
    assert torch.equal(found, plain[0]) and traced == plain[1] and worst > 0.0


def test_a_forward_pass_without_gradients_is_an_error() -> None:
    class Closed(nn.Linear):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    with pytest.raises(ValueError, match="depend on no trainable parameter.*no_grad"):
        top_eigenvalues(Closed(4, 3).double(), "cross_entropy", rows())


def test_half_precision_is_computed_in_float32() -> None:
    model, (x, y) = smooth_mlp().bfloat16(), rows()
    found = top_eigenvalues(model, "cross_entropy", (x.bfloat16(), y), tol=1e-3)
    exact = top_eigenvalues(model, "cross_entropy", (x.bfloat16(), y), tol=1e-6, dtype=F64)
    assert found.vectors.dtype is torch.float32
    assert float((found.values - exact.values).abs().max()) <= 1e-4 * float(exact.values.max())


def test_data_and_random_state_are_left_alone() -> None:
    class Shifting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5))

    x, y = rows()
    before = x.clone()
    writing, plain = shaken(Shifting(4, 3)), shaken(nn.Linear(4, 3))
    found, expected = matrix(writing, "cross_entropy", (x, y)), matrix(plain, "cross_entropy", (x - 0.5, y))
    assert torch.equal(x, before) and torch.equal(found, expected)
    model, state = smooth_mlp(), torch.random.get_rng_state()
    top_eigenvalues(model, "cross_entropy", DataLoader(TensorDataset(x, y), 5, shuffle=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_modules_change_mode_by_their_own_train() -> None:
    """One that merges weights for evaluation is measured merged, and is unmerged again."""

    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> "Merging":
            if mode != self.training:
                with torch.no_grad():
                    self.weight.add_(1.0 if not mode else -1.0)
            super().train(mode)
            return self

    model, merged = Merging(4, 3).double(), nn.Linear(4, 3).double()
    with torch.no_grad():
        merged.weight.copy_(model.weight + 1.0)
        merged.bias.copy_(model.bias)
    before = model.weight.detach().clone()
    found, expected = (top_eigenvalues(m, "cross_entropy", rows()).values for m in (model, merged))
    assert torch.allclose(found, expected)
    assert torch.allclose(model.weight, before) and model.training


# Labels and parameters


@pytest.mark.parametrize(
    ("outputs", "y", "loss", "match"),
    [
        (3, torch.tensor([0, 1, 3]), "cross_entropy", "labels lie in 0 … 3 for 3 outputs"),
        (3, torch.tensor([0, -100, 1]), "cross_entropy", "labels lie in -100 … 1"),
        (1, torch.tensor([0, 0, 0]), "mse", "C ≥ 2"),
        (3, torch.tensor([7, 0, 1]), "mse", "labels lie in 0 … 7"),
        (3, torch.rand(3, 3), "cross_entropy", "allowed: \\(N, C\\) outputs and integer labels"),
        (3, torch.zeros(3, 1, dtype=torch.long), "cross_entropy", "allowed: \\(N, C\\) outputs"),
        (3, torch.zeros(3, 1), "mse", "targets of shape \\(3, 1\\) for outputs of shape \\(3, 3\\)"),
    ],
)
def test_labels_that_do_not_fit_are_errors(outputs: int, y: Tensor, loss: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        top_eigenvalues(nn.Linear(2, outputs), loss, (torch.ones(3, 2), y))


def test_small_integers_are_labels() -> None:
    x, y = rows()
    found = [
        top_eigenvalues(smooth_mlp(), "cross_entropy", (x, y.to(kind))).values for kind in (torch.uint8, torch.int64)
    ]
    assert torch.equal(found[0], found[1])


def test_regression_targets_may_have_any_shape_that_the_outputs_have() -> None:
    model, x = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    flat = top_eigenvalues(model, "mse", (x, torch.zeros(2)), 3, tol=1e-5).values
    square = top_eigenvalues(model[0], "mse", (x, torch.zeros(2, 1)), 3, tol=1e-5).values
    assert torch.allclose(flat, square)


def test_one_output_has_no_accuracy() -> None:
    """The largest of one is always the first."""

    def logistic(outputs: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], y.to(outputs.dtype), reduction="none")

    x, _ = rows()
    with opened(nn.Linear(4, 1).double(), logistic, (x, (x[:, 0] > 0).long())) as problem:
        assert problem.risk()[1] != problem.risk()[1]


def test_complex_parameters_and_mixed_precisions_are_errors() -> None:
    class Mixed(nn.Module):
        def __init__(self, second: torch.dtype) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3, dtype=second))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.a * self.b.real.to(x.dtype)

    data = torch.ones(4, 2), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="b is torch.complex64; measures are of real parameters"):
        top_eigenvalues(Mixed(torch.complex64), "cross_entropy", data)
    with pytest.raises(ValueError, match="float32 and float64; bring them to one"):
        top_eigenvalues(Mixed(F64), "cross_entropy", data)
    top_eigenvalues(Mixed(F64), "cross_entropy", data, dtype=torch.float32)


def test_a_loss_that_is_not_finite_anywhere_is_an_error_for_every_measure() -> None:
    x, y = rows(count=600)
    x[400] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        worst_case_sharpness(smooth_mlp(), "cross_entropy", (x, y), radius=0.1)
    with pytest.raises(ValueError, match="not finite"):
        perturbation_curve(smooth_mlp(), "cross_entropy", (x, y), [0.1])


# Operations


@pytest.mark.parametrize("old", [False, True], ids=["parametrization", "hook"])
def test_weight_norm_has_its_true_curvature(old: bool) -> None:
    """PyTorch's `_weight_norm` has a wrong second derivative on the CPU; here the network is g·v/‖v‖ written out."""

    class Written(nn.Module):
        def __init__(self, weight: Tensor, bias: Tensor) -> None:
            super().__init__()
            scales = torch.linspace(0.5, 1.5, len(weight), dtype=F64)[:, None]
            self.bias, self.g, self.v = nn.Parameter(bias), nn.Parameter(scales), nn.Parameter(weight.clone())

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.g * self.v / self.v.norm(dim=1, keepdim=True), self.bias)

    whole = smooth_mlp()
    written = nn.Sequential(Written(whole[0].weight.data, whole[0].bias.data), *whole[1:])  # type: ignore[index]
    norm: Any = torch.nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    with pytest.warns(FutureWarning) if old else torch.enable_grad():
        normed = norm(nn.Linear(4, 5).double())
    with torch.no_grad():
        normed.bias.copy_(written[0].bias)
        for value in normed.parameters():
            if value.ndim == 2:  # g is (5, 1), v is (5, 4)
                value.copy_(written[0].g if value.shape[1] == 1 else written[0].v)
    model = nn.Sequential(normed, *whole[1:])  # type: ignore[index]
    assert_close(matrix(model, "cross_entropy", rows()), plain_hessian(written, "cross_entropy", *rows()), 1e-8)


def test_a_symmetric_but_wrong_second_derivative_is_an_error() -> None:
    """A backward pass that uses what was computed forwards: autograd does not see how it depends on the input."""

    class Saved(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.slope = 1.0 - torch.tanh(x).square()
            return torch.tanh(x)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * ctx.slope  # type: ignore[no-any-return]

    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return Saved.apply(super().forward(x))  # type: ignore[no-untyped-call,no-any-return]

    for measure in (top_eigenvalues, partial(top_eigenvalues, warm_start=3), hessian_trace):
        with pytest.raises(ValueError, match="second derivative of the model is wrong"):
            measure(Model(4, 3).double(), "cross_entropy", rows())


def test_kinks_under_the_weights_are_no_wrong_derivative() -> None:
    """Zero biases under blank images sit on the kink of ReLU; a difference of gradients there is anything."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        model[0].bias.zero_()  # type: ignore[operator]
    x = torch.zeros(10, 1, 8, 8)
    x[:, :, 3, 3] = 1.0
    found = top_eigenvalues(model, "cross_entropy", (x, torch.arange(10) % 3))
    assert found.fallback is None and found.status == "converged"


def test_gauss_newton_of_a_loss_that_can_be_differentiated_once_is_an_error() -> None:
    class Square(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square().sum(1)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return 2.0 * grad[:, None] * x  # type: ignore[no-any-return]

    def own(outputs: Tensor, y: Tensor) -> Tensor:
        return Square.apply(outputs)  # type: ignore[no-untyped-call,no-any-return]

    with pytest.raises(ValueError, match="only once"):
        top_eigenvalues(nn.Linear(4, 3).double(), own, rows(), curvature="ggn")


class Force(nn.Module):
    """Its output is a derivative: of an energy that convolutions make, in the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = x.detach().clone().requires_grad_()
            energy = torch.tanh(self.conv(moved)).square().sum()
            (force,) = torch.autograd.grad(energy, moved, create_graph=True)
        out: Tensor = self.head(force.flatten(1))
        return out


class Vectorized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Linear(108, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = torch.vmap(lambda one: torch.relu(self.conv(one.unsqueeze(0)))[0])(x)
        out: Tensor = self.head(found.flatten(1))
        return out


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
        self.head = nn.Linear(108, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(checkpoint(self.body, x, use_reentrant=False).flatten(1))
        return out


def test_gradient_checkpointing_is_an_error() -> None:
    """It would compute activations again from the model's own weights, wherever θ is."""
    with pytest.raises(ValueError, match="turn gradient checkpointing and offloading off"):
        top_eigenvalues(shaken(Checkpointed()), "cross_entropy", images())


@pytest.mark.parametrize("kind", [Force, Vectorized])
def test_unusual_convolutional_models_have_pytorchs_curvature(kind: type[nn.Module]) -> None:
    model, (x, y) = shaken(kind()), images()
    with opened(model, "cross_entropy", (x, y)) as problem:
        vectors = random_vectors(4, problem.num_parameters)
        hessian, ggn = (CurvatureOperator(problem, name)(vectors) for name in ("hessian", "ggn"))
    assert_close(hessian, plain_products(model, "cross_entropy", x, y, vectors))
    assert_close(ggn, vectors @ naive_ggn(model, "cross_entropy", x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0][:, -1])
        return out


def test_a_model_that_cannot_be_vectorized_over_examples_goes_by_lanczos() -> None:
    x = torch.randn(6, 5, 4, generator=torch_generator(0, "signals"), dtype=F64)
    model, data = shaken(Recurrent()), (x, torch.arange(6) % 3)
    found = top_eigenvalues(model, "cross_entropy", data, curvature="ggn", tol=1e-6)
    exact = torch.linalg.eigvalsh(naive_ggn(model, "cross_entropy", x))
    assert abs(float(found.values[0] - exact[-1])) <= 1e-5 * float(exact[-1])


def test_an_early_invariant_space_does_not_certify_too_much() -> None:
    """All but one eigenvalue are 1; one step seems to exhaust the space, and the larger one hides in rounding."""
    values = torch.ones(4000, dtype=F64)
    values[0] = 1.0 + 1e-5
    diagonal = torch.diag(values).float()
    for seed in range(10):
        found = of_matrix(diagonal, generator=torch_generator(seed, "start"))
        assert float(found.lower[0]) <= 1.0 + 1e-5 <= float(found.upper[0])

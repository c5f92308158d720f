"""Operations without second derivative, and with a wrong one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import Function

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import CurvatureOperator
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from tests.support.matrices import ends
from tests.support.networks import Once, rows, shaken
from tests.support.oracles import assert_close, matrix, random_vectors

F64 = torch.float64


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
    """Jv is taken by double backward, so there GGN is an error, never a wrong number."""
    lacking, _ = pairs_without_second_derivative()[name]
    with (
        opened(lacking, "cross_entropy", rows()) as problem,
        pytest.raises(ValueError, match="differentia|derivative"),
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
        pytest.raises(ValueError, match="out of order"),
        opened(Breaking(4, 3).double(), "cross_entropy", rows()) as problem,
    ):
        CurvatureOperator(problem)


@pytest.mark.parametrize("name", ["once_differentiable", "cdist"])
def test_eigenvalues_by_differences_say_so(name: str) -> None:
    lacking, whole = pairs_without_second_derivative()[name]
    spectrum = torch.linalg.eigvalsh(matrix(whole, "cross_entropy", rows()))
    found = top_eigenvalues(lacking, "cross_entropy", rows(), 2, which="both", tol=1e-2)
    assert found.fallback is not None
    assert name.split("_")[-1] in found.fallback
    assert float((found.values - ends(spectrum, 2)).abs().max()) <= 1e-2 * float(spectrum.abs().max())
    assert top_eigenvalues(whole, "cross_entropy", rows()).fallback is None


def test_a_wrong_second_derivative_is_an_error() -> None:
    """A backward pass that hides from autograd how it depends on its input gives products that are not symmetric."""

    class Hiding(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            x, w = ctx.saved_tensors
            return grad @ w.detach().T, x.T @ grad

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch_generator(0, "init")
            self.first = nn.Parameter(0.5 * torch.randn(10, 6, generator=generator, dtype=F64))
            self.second = nn.Parameter(0.5 * torch.randn(6, 4, generator=generator, dtype=F64))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = Hiding.apply(torch.tanh(x @ self.first), self.second)  # type: ignore[no-untyped-call]
            return out

    with pytest.raises(ValueError, match="second derivative of the model is wrong"):
        top_eigenvalues(Model(), "cross_entropy", rows(60, 10, 4), tol=1e-4)


class Hidden(Function):
    """tanh whose backward pass is right, and hides from autograd that it depends on anything."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.tanh(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        with torch.no_grad():
            slope: Tensor = grad * (1 - out * out)
            return slope


class Behind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = Hidden.apply(self.first(x))  # type: ignore[no-untyped-call]
        out: Tensor = self.last(hidden)
        return out


@pytest.mark.parametrize("curvature", ["ggn", "fisher", "empirical_fisher"])
@pytest.mark.parametrize("params", [None, "first"])
def test_parameters_behind_a_hidden_dependence_are_not_left_out(curvature: Any, params: str | None) -> None:
    """Without them the Gauss–Newton matrix would lack a block, and for them alone be zero and certified."""
    with pytest.raises(ValueError, match=r"after first\.weight, first\.bias hides"):
        top_eigenvalues(shaken(Behind()), "cross_entropy", rows(40), which="both", curvature=curvature, params=params)


def test_a_loss_that_is_linear_in_the_outputs_may_have_weights_of_its_own() -> None:
    """Its Hessian in the outputs is 0, although its slope can be differentiated: in those weights."""
    own = nn.Parameter(torch.ones(3, dtype=F64))

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return outputs @ own

    with opened(shaken(nn.Linear(4, 3)), loss, rows()) as problem:
        operator = CurvatureOperator(problem, "ggn")
        assert float(operator(torch.ones(operator.size, dtype=F64)).abs().max()) == 0.0

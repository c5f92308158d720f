"""Curvature by the plain means of PyTorch: what products are compared with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import Curvature, CurvatureOperator, dense
from overparam.measure.products.second_order import SecondOrder
from overparam.models.losses import LossName, per_example

F64 = torch.float64


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


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

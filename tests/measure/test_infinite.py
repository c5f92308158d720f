"""Infinitely wide networks: closed forms on the circle, quadrature of the Gaussian integrals, wide networks."""

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.kernels import infinite
from overparam.measure.kernels.dual_activations import KnownDual
from overparam.measure.kernels.infinite import Parameterization, analytic_ntk, learning_rate_map

F64 = torch.float64
Z = 4.5
Array = NDArray[np.float64]


def points(count: int = 6, inputs: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, inputs, generator=torch_generator(seed, "points"), dtype=F64)


def circle(*angles: float) -> Tensor:
    return torch.tensor([[math.cos(a), math.sin(a)] for a in angles], dtype=F64)


# Closed forms

ANGLES = (0.0, 1e-9, 1e-7, 1e-4, 0.01, 0.0142, 0.5, math.pi / 3, math.pi / 2, 2.0, 3.13, math.pi - 1e-8, math.pi)


def test_one_hidden_layer_has_its_textbook_values() -> None:
    """Θ = r k₀ + k₁ at r = −1, 0, ½, 1 for unit inputs, times 2/d."""
    x = circle(0.0, math.pi, math.pi / 2, math.pi / 3, 0.0)
    true = [0.0, 1.0 / math.pi, (1 / 2) * (2 / 3) + (math.sqrt(3) / 2 + math.pi / 3) / math.pi, 2.0]
    assert analytic_ntk(x[:1], x[1:], depth=2)[0].tolist() == pytest.approx(true, abs=1e-14)
    wide = torch.cat([x, torch.zeros(5, 6, dtype=F64)], dim=1)
    assert (4.0 * analytic_ntk(wide[:1], wide[1:], depth=2))[0].tolist() == pytest.approx(true, abs=1e-14)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_depth_follows_the_recursion_at_any_angle(depth: int) -> None:
    """S ← k₁, Θ ← Θ k₀ + S in 60 digits: cosines in float64 would be wrong by 1e-8 near r = 1."""
    found = analytic_ntk(circle(0.0), circle(*ANGLES), depth=depth)[0]
    gram = analytic_ntk(circle(0.0), circle(*ANGLES), depth=depth, kind="nngp")[0]
    with mpmath.workdps(60):
        for k, angle in enumerate(ANGLES):
            r = theta = mpmath.cos(mpmath.mpf(angle))
            for _ in range(depth - 1):
                k0, other = (mpmath.pi - mpmath.acos(r)) / mpmath.pi, mpmath.sqrt(1 - r * r)
                r = (other + r * (mpmath.pi - mpmath.acos(r))) / mpmath.pi
                theta = theta * k0 + r
            assert float(found[k]) == pytest.approx(float(theta), abs=1e-13 * depth), angle
            assert float(gram[k]) == pytest.approx(float(r), abs=1e-13 * depth), angle


def test_the_diagonal_is_the_number_of_layers() -> None:
    x = torch.nn.functional.normalize(points(40, 7), dim=1)
    for depth in (1, 2, 5, 12):
        kernel = analytic_ntk(x, depth=depth)
        assert (3.5 * kernel.diagonal() - depth).abs().max() < 1e-13 * depth
        again = analytic_ntk(x, x.clone(), depth=depth)
        assert (again - kernel).abs().max() < 1e-13 * depth


@pytest.mark.parametrize("bias", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_one_layer_is_the_linear_kernel(activation: KnownDual, bias: float) -> None:
    x = points()
    true = 1.7**2 / 3 * x @ x.T + bias**2
    options: dict[str, Any] = {"depth": 1, "activation": activation, "sigma_w": 1.7, "sigma_b": bias}
    assert torch.allclose(analytic_ntk(x, **options), true, rtol=1e-14, atol=1e-14)
    assert torch.allclose(analytic_ntk(x, **options, kind="nngp"), true, rtol=1e-14, atol=1e-14)
    standard = analytic_ntk(x, **options, parameterization="standard", width=9)
    assert torch.allclose(standard, x @ x.T + (bias > 0.0), rtol=1e-14, atol=1e-14)


def test_biases_keep_the_digits_of_nearly_equal_inputs() -> None:
    """ReLU's slope kernel is linear in the angle: over inputs s·(1, δ) and s·(1, 0) the kernel is linear in δ, too."""
    steps = [1e-9, 2e-9, 1e-7, 1e-5]
    x = torch.tensor([[1.0, 0.0], *[[1.0, step] for step in steps]], dtype=F64)
    kernel = analytic_ntk(x, depth=4, sigma_b=0.4)[0]
    rates = ((kernel[0] - kernel[1:]) / torch.tensor(steps, dtype=F64))[2:]
    assert float(rates[0]) == pytest.approx(float(rates[1]), rel=1e-3)
    assert (kernel[0] - kernel[1:3]).tolist() == pytest.approx(
        [1e-9 * float(rates[0]), 2e-9 * float(rates[0])], abs=1e-14
    )


# The integrals


def expectation(function: Callable[[Array], Array], covariance: Array, breaks: bool) -> float:
    """`E f(h) f(h')` in polar coordinates: Gauss–Legendre in the radius and between the kinks in the angle."""
    factor = np.linalg.cholesky(covariance + 1e-15 * np.eye(2))
    nodes, weights = np.polynomial.legendre.leggauss(80)
    kinks = [math.atan2(row[0], -row[1]) % math.pi for row in factor] if breaks else []
    edges = sorted({0.0, 2.0 * math.pi, *kinks, *[kink + math.pi for kink in kinks], *np.linspace(0, 2 * math.pi, 5)})
    total = 0.0
    radius, radial = 5.0 * (nodes + 1.0), 5.0 * weights
    for low, high in itertools.pairwise(edges):
        turn, arc = low + (high - low) / 2 * (nodes + 1.0), (high - low) / 2 * weights
        z = np.stack([np.cos(turn), np.sin(turn)])[:, :, None] * radius
        h = np.tensordot(factor, z, axes=1)
        values = function(h[0]) * function(h[1]) * radius * np.exp(-(radius**2) / 2) / (2 * math.pi)
        total += float(arc @ values @ radial)
    return total


FUNCTIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda h: np.maximum(h, 0.0), lambda h: (h > 0.0).astype(float)),
    "erf": (erf, lambda h: 2.0 / math.sqrt(math.pi) * np.exp(-(h**2))),
}


def by_quadrature(x: Array, y: Array, depth: int, name: str, sigma_w: float, sigma_b: float) -> tuple[float, float]:
    """Θ and S of one pair by the recursion as it is defined."""
    stack = np.stack([x, y])
    s = sigma_w**2 / len(x) * stack @ stack.T + sigma_b**2
    theta, (function, slope) = s[0, 1], FUNCTIONS[name]
    for _ in range(depth - 1):
        pairs = [s[np.ix_(ij, ij)] for ij in ([0, 0], [0, 1], [1, 1])]
        moments = [expectation(function, pair, name == "relu") for pair in pairs]
        slopes = expectation(slope, pairs[1], name == "relu")
        s = sigma_w**2 * np.array([[moments[0], moments[1]], [moments[1], moments[2]]]) + sigma_b**2
        theta = sigma_w**2 * slopes * theta + s[0, 1]
    return float(theta), float(s[0, 1])


@pytest.mark.parametrize("sigma_b", [0.0, 0.5])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_the_closed_forms_are_the_gaussian_integrals(activation: KnownDual, sigma_b: float) -> None:
    x = points(5, 4)
    for depth in (2, 3):
        options: dict[str, Any] = {"depth": depth, "activation": activation, "sigma_w": 1.3, "sigma_b": sigma_b}
        ntk, nngp = analytic_ntk(x, **options), analytic_ntk(x, **options, kind="nngp")
        for i, j in itertools.combinations(range(5), 2):
            true = by_quadrature(x[i].numpy(), x[j].numpy(), depth, activation, 1.3, sigma_b)
            assert (float(ntk[i, j]), float(nngp[i, j])) == pytest.approx(true, rel=1e-9, abs=1e-9)


# Networks


def outputs(parameters: list[Tensor], x: Tensor, scales: list[float], bias: float, activation: str) -> Tensor:
    """Weights and biases in turn, each layer `scale·W φ + bias·b`."""
    h = x
    for layer, scale in enumerate(scales):
        h = h if layer == 0 else (torch.relu(h) if activation == "relu" else torch.erf(h))
        h = scale * h @ parameters[2 * layer].T + bias * parameters[2 * layer + 1]
    return h


def drawn(widths: list[int], seed: int) -> list[Tensor]:
    generator = torch_generator(seed, "network")
    shapes = [shape for m, n in itertools.pairwise(widths) for shape in ((n, m), (n,))]
    return [torch.randn(shape, generator=generator, dtype=F64) for shape in shapes]


def empirical(parameters: list[Tensor], run: Callable[[list[Tensor], Tensor], Tensor], x: Tensor) -> Tensor:
    """Of the first output."""
    jacobians = torch.func.vmap(torch.func.jacrev(lambda p, one: run(p, one)[0]), in_dims=(None, 0))(parameters, x)
    rows = torch.cat([j.flatten(1) for j in jacobians], dim=1)
    return rows @ rows.T


def kernels_of_networks(
    count: int, widths: list[int], x: Tensor, activation: str, sigma_w: float, sigma_b: float, parameterization: str
) -> Tensor:
    """Of `count` networks that are drawn alike: (count, N, N)."""
    scales, bias = [sigma_w / n**0.5 for n in widths[:-1]], sigma_b
    networks = [drawn(widths, seed) for seed in range(count)]
    if parameterization == "standard":
        factors = [factor for scale in scales for factor in (scale, sigma_b)]
        networks = [[factor * p for factor, p in zip(factors, network, strict=True)] for network in networks]
        scales, bias = [1.0] * len(scales), float(sigma_b > 0.0)

    def run(parameters: list[Tensor], one: Tensor) -> Tensor:
        return outputs(parameters, one, scales, bias, activation)

    return torch.stack([empirical(network, run, x) for network in networks])


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_wide_networks_have_this_kernel(activation: KnownDual, parameterization: Parameterization) -> None:
    """With one hidden layer the kernel is a mean over its units, so the mean over networks is this one exactly."""
    x, width, count = points(5, 4), 200, 50
    found = kernels_of_networks(count, [4, width, 1], x, activation, 1.4, 0.6, parameterization)
    at = width if parameterization == "standard" else None
    true = analytic_ntk(
        x, depth=2, activation=activation, sigma_w=1.4, sigma_b=0.6, parameterization=parameterization, width=at
    )
    allowed = Z * found.std(0) / count**0.5
    assert ((found.mean(0) - true).abs() <= allowed).all()
    assert float(allowed.max() / true.diagonal().max()) < 0.2


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_deep_networks_come_near_it(parameterization: Parameterization) -> None:
    """Two hidden layers of 300: fluctuations 1/√width, a mean that is off by order 1/width."""
    x, width, count = points(4, 3), 300, 20
    found = kernels_of_networks(count, [3, width, width, 1], x, "relu", 2.0**0.5, 0.0, parameterization)
    at = width if parameterization == "standard" else None
    true = analytic_ntk(x, depth=3, parameterization=parameterization, width=at)
    allowed = Z * found.std(0) / count**0.5 + 3.0 / width * true.diagonal().max()
    assert ((found.mean(0) - true).abs() <= allowed).all()
    assert float(allowed.max() / true.diagonal().max()) < 0.2


def test_standard_weights_train_at_the_mapped_rates_as_those_of_the_ntk() -> None:
    x, y, sigma_w, lr = points(7, 4), points(7, 2, seed=1), 1.4, 0.3
    widths = [4, 6, 5, 2]
    scales = [sigma_w / n**0.5 for n in widths[:-1]]
    ntk = drawn(widths, 0)
    standard = [scales[i // 2] * p if i % 2 == 0 else 0.5 * p for i, p in enumerate(ntk)]
    rates = learning_rate_map(lr, fan_ins=widths[:-1], sigma_w=sigma_w)

    def loss(parameters: list[Tensor], scales: list[float], bias: float) -> Tensor:
        return 0.5 * (outputs(parameters, x, scales, bias, "erf") - y).square().sum(1).mean()

    start = outputs(ntk, x, scales, 0.5, "erf")
    for _ in range(20):
        slopes = torch.func.grad(lambda p: loss(p, scales, 0.5))(ntk)
        ntk = [p - lr * g for p, g in zip(ntk, slopes, strict=True)]
        slopes = torch.func.grad(lambda p: loss(p, [1.0] * 3, 1.0))(standard)
        steps = [rates[i // 2] if i % 2 == 0 else lr * 0.5**2 for i in range(6)]
        standard = [p - step * g for p, step, g in zip(standard, steps, slopes, strict=True)]
    end = outputs(ntk, x, scales, 0.5, "erf")
    assert (outputs(standard, x, [1.0] * 3, 1.0, "erf") - end).abs().max() < 1e-10
    assert (end - start).abs().max() > 0.1


# Laws


@given(
    seed=st.integers(0, 1000), depth=st.integers(1, 5), activation=st.sampled_from(["relu", "erf"]),
    bias=st.sampled_from([0.0, 0.2, 3.0]), kind=st.sampled_from(["ntk", "nngp"]), count=st.integers(1, 12),
)  # fmt: skip
@settings(max_examples=60)
def test_kernels_are_symmetric_and_positive_whatever_the_blocks(
    seed: int, depth: int, activation: Any, bias: float, kind: Any, count: int
) -> None:
    x = points(count, 3, seed)
    x = torch.cat([x, x[:1], -2.0 * x[:1], 1e3 * x[:1], 0.0 * x[:1]])
    options: dict[str, Any] = {"depth": depth, "activation": activation, "sigma_b": bias, "kind": kind}
    kernel = analytic_ntk(x, **options)
    assert kernel.dtype is F64 and bool(kernel.isfinite().all())
    assert torch.equal(kernel, kernel.T)
    assert float(torch.linalg.eigvalsh(kernel)[0]) >= -1e-12 * float(kernel.trace())
    order = torch.randperm(len(x), generator=torch_generator(seed, "order"))
    roots = kernel.diagonal().sqrt()
    close = 1e-12 * roots[:, None] * roots
    assert ((analytic_ntk(x[order], **options) - kernel[order][:, order]).abs() <= close[order][:, order]).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infinite, "ELEMENTS", 7)
        assert ((analytic_ntk(x, **options) - kernel).abs() <= close).all()
        assert torch.equal(analytic_ntk(x, **options), analytic_ntk(x, **options).T)
    across = analytic_ntk(x[:2], x[1:], **options)
    assert ((across - kernel[:2, 1:]).abs() <= close[:2, 1:]).all()


def test_relu_without_bias_is_homogeneous() -> None:
    x = points()
    assert torch.allclose(analytic_ntk(3.0 * x, depth=4), 9.0 * analytic_ntk(x, depth=4), rtol=1e-13)


def test_parallel_inputs_of_different_lengths_keep_their_digits() -> None:
    x = torch.tensor([[1.0, 1.0, 1.0], [0.1, 0.1, 0.1], [-7.0, -7.0, -7.0]], dtype=F64)
    assert analytic_ntk(x, depth=2)[0].tolist() == pytest.approx([4.0, 0.4, 0.0], abs=1e-14)


def test_erf_at_large_variances_keeps_its_digits() -> None:
    """Against 60 digits where `(1 + 2S₁₁)(1 + 2S₂₂) − 4S₁₂²` cancels."""
    x = torch.tensor([[3e3, 0.0], [3e3, 1.0], [-3e3, 2.0]], dtype=F64)
    found = analytic_ntk(x, depth=2, activation="erf", sigma_w=1.0)
    with mpmath.workdps(60):
        for i, j in itertools.product(range(3), repeat=2):
            a, b = ([mpmath.mpf(float(value)) for value in x[k]] for k in (i, j))
            s11, s22, s12 = (sum(p * q for p, q in zip(u, v, strict=True)) / 2 for u, v in ((a, a), (b, b), (a, b)))
            product = (1 + 2 * s11) * (1 + 2 * s22)
            value = 2 / mpmath.pi * mpmath.asin(2 * s12 / mpmath.sqrt(product))
            true = value + 4 / mpmath.pi / mpmath.sqrt(product - 4 * s12**2) * s12
            assert float(found[i, j]) == pytest.approx(float(true), rel=1e-11, abs=0.0)


def test_images_are_flattened_and_integers_taken() -> None:
    x = torch.arange(24).reshape(2, 3, 2, 2)
    assert torch.equal(analytic_ntk(x, depth=3), analytic_ntk(x.flatten(1).float(), depth=3))
    assert analytic_ntk(torch.tensor([[1.0], [2.0]]), depth=1, sigma_w=1.0).tolist() == [[1.0, 2.0], [2.0, 4.0]]


def test_the_standard_kernel_grows_with_the_width_and_its_gaussian_process_does_not() -> None:
    x = points()
    narrow, wide = (analytic_ntk(x, depth=3, parameterization="standard", width=n) for n in (100, 200))
    assert float(wide.trace() / narrow.trace()) == pytest.approx(2.0, rel=0.1)
    process = analytic_ntk(x, depth=3, kind="nngp", parameterization="standard", sigma_b=0.3)
    assert torch.equal(process, analytic_ntk(x, depth=3, kind="nngp", sigma_b=0.3))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"activation": "tanh"}, "activation=\"tanh\"; allowed: 'relu', 'erf'"),
        ({"kind": "ck"}, "kind=\"ck\"; allowed: 'ntk', 'nngp'"),
        ({"parameterization": "mup"}, "parameterization=\"mup\"; allowed: 'ntk', 'standard'"),
        ({"depth": 0}, "depth = 0; allowed: at least 1"),
        ({"sigma_w": 0.0}, "sigma_w = 0.0, sigma_b = 0.0; allowed: sigma_w above 0"),
        ({"sigma_b": -1.0}, "sigma_b = -1.0"),
        ({"parameterization": "standard"}, "width = None in the standard parameterization, whose kernel grows"),
        ({"width": 8}, 'width = 8, but the kernel of parameterization="ntk" is a limit'),
        ({"x2": torch.zeros(2, 4)}, "examples of shapes (3,) and (4,)"),
        ({"x2": torch.full((2, 3), math.nan)}, "x2 (torch.float32) holds values that are not finite"),
        ({"x1": torch.zeros(3)}, "x1 has shape (3,); allowed: (N, …)"),
        ({"x1": torch.zeros(0, 3)}, "x1 has shape (0, 3); allowed: (N, …), at least one example"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_errors(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        analytic_ntk(**{"x1": torch.zeros(2, 3), "depth": 2, **options})


@pytest.mark.parametrize(
    ("lr", "fan_ins", "match"),
    [(0.0, (3,), "lr = 0.0; allowed: a positive"), (1.0, (), "fan_ins = ()"), (1.0, (3, 0), "fan_ins = (3, 0)")],
)
def test_rates_out_of_range_are_errors(lr: float, fan_ins: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        learning_rate_map(lr, fan_ins=fan_ins)

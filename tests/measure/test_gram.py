"""The Gram matrix of the outputs has the spectrum of the Gauss–Newton matrix."""

import math
from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Batch
from overparam.measure.products.operators import Curvature, CurvatureOperator, dense
from overparam.measure.spectrum import gram
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.measure.spectrum.gram import gram_pairs, gram_pays, gram_rows, softmax_root
from overparam.models.build import build
from overparam.models.losses import LossName, per_example
from overparam.specs.models.mlp import MLP

F64 = torch.float64
LOSSES: tuple[LossName, ...] = ("cross_entropy", "mse")
GAUSS_NEWTON: tuple[Curvature, ...] = ("ggn", "fisher", "empirical_fisher")


def network(dtype: torch.dtype = F64) -> nn.Module:
    model = build(MLP(width=6, depth=3, activation="tanh"), (5,), 3, generator=torch_generator(0, "init"))
    return model.to(dtype)


def cnn() -> nn.Module:
    generator = torch_generator(0, "cnn")
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.4 * torch.randn(value.shape, generator=generator) + 0.3 * (value.ndim == 1))
        model(torch.randn(50, 2, 6, 6, generator=generator))
    return model.double()


def examples(*shape: int, count: int = 8, classes: int = 3, dtype: torch.dtype = F64) -> Batch:
    generator = torch_generator(1, "data")
    x = torch.randn(count, *shape, generator=generator, dtype=F64).to(dtype)
    return x, torch.randint(0, classes, (count,), generator=generator)


@given(scale=st.floats(0.0, 20.0), classes=st.integers(1, 6), seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_the_root_times_itself_is_the_softmax_curvature(scale: float, classes: int, seed: int) -> None:
    """R Rᵀ = diag(p) − p pᵀ."""
    z = scale * torch.randn(4, classes, generator=torch_generator(seed, "logits"), dtype=F64)
    p, root = F.softmax(z, 1), softmax_root(z)
    expected = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    assert float((root @ root.mT - expected).abs().max()) <= 1e-14


@pytest.mark.parametrize("margin", [5.0, 12.0, 18.0, 30.0])
def test_the_root_keeps_its_digits_in_float32(margin: float) -> None:
    """At margin 18 the entry p(1 − p) is 1.5e-8, which 1 − p loses."""
    z = torch.tensor([[margin, 0.0, -1.0]])
    p = F.softmax(z.double(), 1)[0]
    others = p[1:].sum()
    expected = torch.diag(p) - torch.outer(p, p)
    expected[0, 0] = p[0] * others
    root = softmax_root(z)[0].double()
    assert float((root @ root.T - expected).abs().max() / expected.abs().max()) <= 1e-6
    assert float(root[0, 0]) == pytest.approx(float(p[0].sqrt() * others), rel=1e-5)


@pytest.mark.parametrize("chunk", [250, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("curvature", GAUSS_NEWTON)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_rows_times_themselves_are_the_matrix(kind: str, curvature: Curvature, loss: LossName, chunk: int) -> None:
    """MᵀM/N = GGN."""
    model, data = (network(), examples(5)) if kind == "mlp" else (cnn(), examples(2, 6, 6))
    with opened(model, loss, data, chunk=chunk) as problem:
        rows = gram_rows(problem, curvature)
        assert len(rows) == (8 if curvature == "empirical_fisher" else 24)
        expected = dense(CurvatureOperator(problem, curvature))
        assert float((rows.T @ rows - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


def test_for_mse_it_is_the_tangent_kernel() -> None:
    model, (x, y) = network(), examples(5)
    leaves = list(model.parameters())
    jacobian = torch.stack(
        [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(each, leaves, retain_graph=True)])
            for each in model(x).flatten()
        ]
    )
    with opened(model, "mse", (x, y)) as problem:
        rows = gram_rows(problem, "ggn")
    kernel = jacobian @ jacobian.T / len(x)
    assert float((rows @ rows.T - kernel).abs().max()) <= 1e-12 * float(kernel.max())


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("curvature", GAUSS_NEWTON)
@pytest.mark.parametrize("k", [1, 4, 8, 16, 24])
def test_pairs_are_eigenpairs_within_the_stated_residual(
    k: int, curvature: Curvature, loss: LossName, dtype: torch.dtype
) -> None:
    """Also beyond the rank (softmax rows have rank C − 1 each), where a null vector of the Gram matrix maps to 0."""
    model, data = network(dtype), examples(5, dtype=dtype)
    found = top_eigenvalues(model, loss, data, k, curvature=curvature)
    with opened(model, loss, data, dtype=F64) as problem:
        matrix = dense(CurvatureOperator(problem, curvature))
    vectors = found.vectors.double()
    assert found.values.shape == (k,)
    assert found.vectors.shape == (k, len(matrix))
    expected = torch.linalg.eigvalsh(matrix).flip(0)[:k]
    assert bool((found.lower <= expected).all())
    assert bool((expected <= found.upper).all())
    assert float((vectors @ vectors.T - torch.eye(k, dtype=F64)).abs().max()) <= 1e-3
    residuals = (vectors @ matrix - found.values[:, None] * vectors).norm(dim=1)
    assert bool((residuals <= found.residuals).all())


@pytest.mark.parametrize("curvature", GAUSS_NEWTON)
def test_more_pairs_than_rows_are_all_given(curvature: Curvature) -> None:
    """The matrix has P eigenvalues, of which all but the number of rows are 0."""
    model, data = network(), examples(5)
    found = top_eigenvalues(model, "mse", data, 30, curvature=curvature, tol=1e-6, max_products=2000)
    with opened(model, "mse", data) as problem:
        expected = torch.linalg.eigvalsh(dense(CurvatureOperator(problem, curvature))).flip(0)[:30]
    assert found.values.shape == (30,)
    assert float((found.values - expected).abs().max()) <= 1e-6 * float(expected[0])


def test_it_pays_only_where_it_is_the_same_matrix_and_small() -> None:
    def own(outputs: Tensor, y: Tensor) -> Tensor:
        return per_example("cross_entropy", outputs, y)

    with opened(network(), "cross_entropy", examples(5)) as problem:  # 99 parameters, 8 examples, 3 classes
        assert [gram_pays(problem, curvature, 3) for curvature in GAUSS_NEWTON] == [True] * 3
        assert not gram_pays(problem, "hessian", 3)
        assert not gram_pays(problem, "ggn", 13)
        assert gram_pays(problem, "empirical_fisher", 13)
    with opened(network(), own, examples(5)) as problem:
        assert not gram_pays(problem, "ggn", 3)
    with opened(network(), "cross_entropy", examples(5, count=33)) as problem:  # 99 rows for 99 parameters
        assert not gram_pays(problem, "ggn", 3)
        assert gram_pays(problem, "empirical_fisher", 3)


def wide_mlp() -> tuple[nn.Module, Batch]:
    model = build(MLP(width=150, depth=3, activation="tanh"), (50,), 3, generator=torch_generator(0, "init"))
    return model, examples(50, count=40, dtype=torch.float32)


def wide_cnn() -> tuple[nn.Module, Batch]:
    """Its activations, 4,096 and 8,192 numbers per example for 6,627 parameters, weigh more than its rows."""
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 3))
    return model, examples(3, 16, 16, count=40, dtype=torch.float32)


@pytest.mark.parametrize("make", [wide_mlp, wide_cnn])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("k", [1, 60])
def test_it_is_refused_where_it_would_take_more_memory_than_allowed(
    k: int, loss: LossName, make: Callable[[], tuple[nn.Module, Batch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """120 rows in float32: the peak is at most what is counted, and not far below it."""
    model, data = make()
    with opened(model, loss, data) as problem:
        counted = 120 * problem.num_parameters * 24
        for limit, pays in ((counted, True), (counted - 1, False)):
            monkeypatch.setattr(gram, "MAX_BYTES", limit)
            assert gram_pays(problem, "ggn", 3) is pays
        with torch.profiler.profile(profile_memory=True) as run:
            gram_pairs(problem, "ggn", k)
    events = run.profiler.kineto_results.events()
    peak = max(accumulate(event.nbytes() for event in events if event.name() == "[memory]"))
    assert 0.4 * counted <= peak <= counted


def test_rows_leave_a_device_before_they_become_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device without float64: only `.cpu()` gives a tensor that has it."""

    class Elsewhere(Tensor):
        def double(self) -> Tensor:
            raise TypeError("this device has no float64")

        def cpu(self) -> Tensor:  # type: ignore[override]
            return self.as_subclass(Tensor)

    with opened(network(torch.float32), "mse", examples(5, dtype=torch.float32)) as problem:
        expected = gram_pairs(problem, "ggn", 2)
        monkeypatch.setattr(gram, "gram_rows", lambda *args: gram_rows(*args).as_subclass(Elsewhere))
        found = gram_pairs(problem, "ggn", 2)
    assert found is not None and expected is not None
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert [each.dtype for each in found] == [F64, torch.float32, F64]


def test_a_batch_norm_network_has_both_routes() -> None:
    model, data = cnn(), examples(2, 6, 6)
    gram = top_eigenvalues(model, "cross_entropy", data, 3, curvature="ggn")
    lanczos = top_eigenvalues(model, "cross_entropy", data, 3, curvature="ggn", which="both", tol=1e-8)
    assert (gram.route, lanczos.route) == ("gram", "lanczos")
    assert torch.allclose(gram.values, lanczos.values[0], rtol=1e-9)
    overlap = (gram.vectors * lanczos.vectors[0]).sum(1).abs()
    assert float((overlap - 1.0).abs().max()) <= 1e-6


def test_an_example_whose_derivatives_are_not_finite_is_an_error() -> None:
    """One that the first look at the data does not reach."""
    model = nn.Sequential(nn.Linear(5, 128), nn.Tanh(), nn.Linear(128, 3)).double()
    x, y = examples(5, count=260)
    with opened(model, "mse", (x, y)) as problem:
        assert gram_pays(problem, "ggn", 3)
    x[-1] = torch.nan
    with pytest.raises(ValueError, match="not finite on some example"):
        top_eigenvalues(model, "mse", (x, y), curvature="ggn")


def test_saturated_networks_keep_their_digits() -> None:
    """Weights ×30: the losses are far below float32's epsilon, the spectrum is still that of float64."""
    model, (x, _) = network(torch.float32), examples(5, dtype=torch.float32)
    with torch.no_grad():
        list(model.parameters())[-2].mul_(30.0)
        y = model(x).argmax(1)
    found = top_eigenvalues(model, "cross_entropy", (x, y), 3, curvature="ggn")
    with opened(model, "cross_entropy", (x, y), dtype=F64) as problem:
        expected = torch.linalg.eigvalsh(dense(CurvatureOperator(problem, "ggn"))).flip(0)[:3]
    assert math.isfinite(float(expected[0]))
    assert float((found.values - expected).abs().max()) <= 1e-5 * float(expected[0])

"""What comes with eigenvalues: intervals, flags, counts, refusals."""

import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.products.operators import CURVATURES, Curvature, CurvatureOperator
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.models.losses import LossName
from tests.support.classifiers import exact, examples, known_matrix, small_cnn, small_mlp
from tests.support.matrices import ends, of_matrix, rotated, saddle

F64 = torch.float64
LOSSES: tuple[LossName, ...] = ("cross_entropy", "mse")
TIGHT: dict[str, Any] = {"tol": 1e-6, "max_products": 2000}


# Intervals


def random_spectrum(index: int, generator: torch.Generator) -> tuple[str, Tensor]:
    """A problem of one of several kinds; sizes 5 … 200."""
    kinds = ("goe", "low rank and noise", "outlier", "geometric", "equal", "two clusters", "uniform")
    kind = kinds[index % len(kinds)]
    size = int(torch.randint(5, 201, (1,), generator=generator))
    normal = torch.randn(size, size, generator=generator, dtype=F64)
    if kind == "goe":
        return kind, torch.linalg.eigvalsh((normal + normal.T) / math.sqrt(2 * size))
    values = {
        "low rank and noise": torch.cat([3.0 * normal[0, :3], 1e-3 * normal[1, 3:]]),
        "outlier": torch.cat([0.1 * normal[0, 1:], torch.tensor([1.0 + float(normal[1, 0]) ** 2], dtype=F64)]),
        "geometric": torch.sign(normal[0]) * 0.7 ** torch.arange(size, dtype=F64),
        "equal": torch.full((size,), float(normal[0, 0]), dtype=F64),
        "two clusters": torch.sign(normal[0]) + 1e-2 * normal[1],
        "uniform": torch.linspace(-1.0, 1.0, size, dtype=F64) * float(normal[0, 0]),
    }
    return kind, values[kind].sort().values


@pytest.mark.parametrize("problems", [150, pytest.param(500, marks=pytest.mark.slow)])
def test_intervals_of_both_ends_at_once_cover_in_95_of_100_problems(problems: int) -> None:
    """Early stops included; an infinite bound is no miss, and from 8 products on there is none."""
    generator = torch_generator(0, "coverage")
    covered, finite, early = 0, 0, 0
    for index in range(problems):
        _, values = random_spectrum(index, generator)
        dtype = (torch.float32, F64)[index // 7 % 2]
        matrix = rotated(values, index, dtype)
        most = int(torch.randint(3, 31, (1,), generator=generator))
        found = of_matrix(matrix, which="both", max_products=most, generator=torch_generator(index, "start"))
        spectrum = torch.linalg.eigvalsh(matrix.double())
        truth = torch.stack([spectrum[-1], spectrum[0]])
        covered += bool(((found.lower[:, 0] <= truth) & (truth <= found.upper[:, 0])).all())
        finite += bool(found.lower.isfinite().all() and found.upper.isfinite().all())
        early += found.status == "max_products"
        assert found.num_products <= most
        assert bool(found.certified.all())
        assert found.confidence == 0.95
        assert found.num_products < 8 or bool(found.upper.isfinite().all())
        rounding = 20 * float(torch.finfo(dtype).eps) * math.sqrt(most) * float(spectrum.abs().max())
        assert float(found.values[0, 0]) <= float(truth[0]) + rounding  # Ritz values are bounds from inside
        assert float(found.values[1, 0]) >= float(truth[1]) - rounding
        assert float(found.lower[0, 0]) <= float(truth[0])
        assert float(found.upper[1, 0]) >= float(truth[1])
    assert covered >= 0.95 * problems
    assert 0.6 * problems < finite < problems
    assert early > 0.3 * problems


def test_an_early_stop_says_so() -> None:
    matrix = rotated(torch.linspace(-1.0, 1.0, 200))
    found = of_matrix(matrix, which="both", tol=1e-4, max_products=12)
    assert found.status == "max_products"
    assert found.num_products == 12
    assert not bool(found.converged.any())
    assert float(found.residuals.min()) > 1e-4
    assert float(found.lower[0, 0]) <= 1.0 <= float(found.upper[0, 0]) < math.inf
    assert -math.inf < float(found.lower[1, 0]) <= -1.0 <= float(found.upper[1, 0])


def test_a_stop_before_anything_is_certain_has_infinite_intervals() -> None:
    found = of_matrix(rotated(torch.linspace(-1.0, 1.0, 200)), which="both", max_products=3)
    assert found.status == "max_products"
    assert float(found.upper[0, 0]) == math.inf
    assert float(found.lower[1, 0]) == -math.inf
    assert float(found.lower[0, 0]) <= 1.0
    assert float(found.upper[1, 0]) >= -1.0


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_fewer_products_than_pairs_leave_nan(most: int, which: Any) -> None:
    found = of_matrix(rotated(torch.linspace(-1.0, 1.0, 50)), 5, which=which, max_products=most)

    def rows(column: Tensor) -> Tensor:
        return column if which == "both" else column[None]

    values = rows(found.values)
    assert values.shape[1] == 5
    assert bool((values.isfinite().sum(1) == most).all())
    missing = values.isnan()
    assert bool(rows(found.residuals)[missing].isinf().all())
    assert bool((rows(found.lower)[missing] == -math.inf).all())
    assert bool((rows(found.upper)[missing] == math.inf).all())
    assert not bool(rows(found.converged).any())
    assert found.vectors.shape == (*found.values.shape, 50)
    assert found.status == "max_products"


def test_products_spent_between_two_passes_keep_what_was_found() -> None:
    values = torch.cat([torch.tensor([1.0, 1.0, 1.0]), torch.linspace(-0.1, 0.1, 97)])
    matrix = rotated(values)
    products = of_matrix(matrix, 3, tol=1e-3).num_products
    for most in range(8, products + 1):
        found = of_matrix(matrix, 3, tol=1e-3, max_products=most)
        assert found.num_products == most
        assert abs(float(found.values[0]) - 1.0) <= 0.05
        assert (found.status == "converged") == (most == products)


def test_certify_narrows_the_interval() -> None:
    """To ε/(1 − 2ε) of the spread, in the number of products that the theorem says."""
    values = torch.cat([torch.tensor([1.0, -0.5]), torch.linspace(-0.1, 0.1, 298)])
    wide = of_matrix(rotated(values), which="both")
    for share in (0.2, 0.06, 0.016):
        narrow = of_matrix(rotated(values), which="both", certify=share)
        width = (narrow.upper - narrow.lower)[:, 0]
        assert float(width.max()) <= 1.5 * share / (1 - 2 * share) + 1e-6
        assert narrow.status == "converged"
        assert float(narrow.lower[0, 0]) <= 1.0 + 1e-6 <= float(narrow.upper[0, 0]) + 2e-6
    assert narrow.num_products > wide.num_products
    assert float(width.max()) < float((wide.upper - wide.lower)[:, 0].max())


def test_inner_values_are_not_certified() -> None:
    found = of_matrix(saddle(), 3, which="both", tol=1e-4)
    assert found.certified.tolist() == [[True, False, False], [False, False, True]]
    for row, place in ((0, 1), (0, 2), (1, 0), (1, 1)):
        value, residual = float(found.values[row, place]), float(found.residuals[row, place])
        assert float(found.lower[row, place]) == value - residual
        assert float(found.upper[row, place]) == value + residual


# The record


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
def test_vectors_have_the_stated_residuals(which: Any, tol: float) -> None:
    """‖Cv − θv‖ of the unit rows, at most tol·‖C‖ where converged; some eigenvalue lies that near each value."""
    model, data = small_mlp("tanh"), examples(10)
    matrix = known_matrix("tanh", "cross_entropy")
    found = top_eigenvalues(model, "cross_entropy", data, 3, which=which, tol=tol, dtype=F64)
    assert found.vectors.dtype is F64
    values, residuals, vectors = found.values.reshape(-1), found.residuals.reshape(-1), found.vectors.reshape(-1, 964)
    spectrum = torch.linalg.eigvalsh(matrix)
    true = (vectors @ matrix - values[:, None] * vectors).norm(dim=1)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors), dtype=F64))
    assert found.status == "converged"
    norm, rounding = float(spectrum.abs().max()), 1e-13 * float(spectrum.abs().max())
    assert float(residuals.max()) <= tol * norm
    assert bool((true <= residuals + rounding).all())  # also where a later pass ran outside of inexact pairs
    nearest = (values[:, None] - spectrum).abs().min(1).values
    assert bool((nearest <= residuals + rounding).all())


@pytest.mark.parametrize("tol", [3e-2, 1e-2])
@pytest.mark.parametrize("k", [1, 8])
def test_converged_means_a_residual_of_at_most_the_tolerance(k: int, tol: float) -> None:
    """Relative to ‖C‖ itself, not to an estimate that may be larger: the row sums of T are up to twice ‖T‖."""
    for seed in range(10):
        values = torch.randn(100, generator=torch_generator(seed, "values"), dtype=F64)
        found = of_matrix(rotated(values, seed), k, which="both", tol=tol, max_products=2000)
        assert found.status == "converged"
        assert float(found.residuals.max()) <= tol * float(values.abs().max())


@pytest.mark.parametrize(("which", "shape"), [("largest", (3,)), ("smallest", (3,)), ("both", (2, 3))])
def test_the_record_has_its_shapes_and_counts(which: Any, shape: tuple[int, ...]) -> None:
    model, data = small_mlp(), examples(10)
    found = top_eigenvalues(model, "cross_entropy", data, 3, which=which, tol=1e-3)
    for name in ("values", "residuals", "lower", "upper", "converged", "certified"):
        assert getattr(found, name).shape == shape, name
    assert found.vectors.shape == (*shape, 964)
    assert found.values.dtype is F64
    assert bool((found.values.diff(dim=-1) <= 0).all())
    assert (found.num_examples, found.num_parameters, found.curvature) == (60, 964, "hessian")
    assert (found.route, found.fallback) == ("lanczos", None)
    assert found.asymmetry <= 1e-5
    assert 0 < found.num_products <= 200


def test_the_products_counted_are_those_made(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    product = CurvatureOperator.__call__

    def counted(self: CurvatureOperator, vectors: Tensor) -> Tensor:
        calls.append(tuple(vectors.shape))
        return product(self, vectors)

    monkeypatch.setattr(CurvatureOperator, "__call__", counted)
    found = top_eigenvalues(small_mlp(), "cross_entropy", examples(10), 3, which="both", tol=1e-4)
    assert calls == [(964,)] * found.num_products


def test_the_same_call_gives_the_same_numbers_and_moves_no_global_state() -> None:
    model, data = small_mlp(), examples(10)
    state = torch.get_rng_state()
    once = top_eigenvalues(model, "cross_entropy", data, 2, which="both")
    again = top_eigenvalues(model, "cross_entropy", data, 2, which="both")
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("values", "residuals", "lower", "upper", "vectors"):
        assert torch.equal(getattr(once, name), getattr(again, name))
    other = top_eigenvalues(model, "cross_entropy", data, 2, which="both", generator=torch_generator(1, "lanczos"))
    assert not torch.equal(once.vectors, other.vectors)
    assert torch.allclose(once.values, other.values, rtol=1e-2)


def test_only_trainable_parameters_are_measured() -> None:
    model, data = small_mlp("gelu"), examples(10)
    for value in list(model.parameters())[:2]:
        value.requires_grad_(False)
    found = top_eigenvalues(model, "cross_entropy", data, which="both", **TIGHT)
    assert found.num_parameters == 964 - 264
    assert found.vectors.shape == (2, 1, 700)
    spectrum = exact(model, "cross_entropy", data)
    assert len(spectrum) == 700
    assert float((found.values - ends(spectrum, 1)).abs().max()) <= 1e-5 * float(spectrum.abs().max())
    last = top_eigenvalues(model, "cross_entropy", data, params="5")
    assert last.num_parameters == 100


@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_parameter_that_is_held_adds_no_eigenvalues(k: int) -> None:
    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.used = nn.Linear(7, 7), small_mlp("gelu")

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    model, data = Ignoring(), examples(10)
    used = torch.linalg.eigvalsh(known_matrix("gelu", "cross_entropy"))
    found = top_eigenvalues(model, "cross_entropy", data, k, which="both", unused="hold", **TIGHT)
    assert float((found.values - ends(used, k)).abs().max()) <= 1e-5 * float(used.abs().max())
    assert found.vectors.shape[-1] == len(used)


@pytest.mark.parametrize("curvature", ["ggn", "fisher", "empirical_fisher"])
@pytest.mark.parametrize("k", [1, 5])
def test_both_routes_to_gauss_newton_agree(curvature: Curvature, k: int) -> None:
    """`which="both"` goes by Lanczos, "largest" by the Gram matrix where it is small."""
    model, data = small_mlp("gelu"), examples(10, count=20)
    gram = top_eigenvalues(model, "cross_entropy", data, k, curvature=curvature)
    lanczos = top_eigenvalues(model, "cross_entropy", data, k, curvature=curvature, which="both", **TIGHT)
    assert (gram.route, lanczos.route) == ("gram", "lanczos")
    assert (gram.num_products, gram.confidence) == (0, 1.0)
    assert bool(gram.certified.all())
    norm = float(gram.values[0])
    assert float((gram.values - lanczos.values[0]).abs().max()) <= 1e-5 * norm
    assert float(lanczos.values[1].abs().max()) <= 1e-5 * norm


# What is refused


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 0}, "k = 0; allowed: an integer ≥ 1"),
        ({"k": -2}, "k = -2"),
        ({"which": "biggest"}, 'which = "biggest"; allowed: "largest", "smallest", "both"'),
        ({"curvature": "fischer"}, 'unknown curvature "fischer"; allowed: hessian, ggn, fisher, empirical_fisher'),
        ({"loss": "hinge"}, 'unknown loss "hinge"'),
        ({"tol": 0.0}, "tol = 0.0; allowed: between 0 and 1"),
        ({"tol": 1.0}, "tol = 1.0"),
        ({"tol": -1e-3}, "tol = -0.001"),
        ({"tol": math.nan}, "tol = nan"),
        ({"certify": 0.0}, "certify = 0.0"),
        ({"certify": 0.5}, "certify = 0.5; allowed: between 0 and 1/2"),
        ({"max_products": 0}, "max_products = 0"),
        ({"params": "body"}, 'under "body"'),
        ({"data": (torch.zeros(0, 10), torch.zeros(0, dtype=torch.long))}, "no example"),
        ({"loss": F.cross_entropy}, 'reduction="none"'),
        ({"loss": lambda outputs, y: outputs.sum(), "curvature": "fisher"}, 'reduction="none"|likelihood'),
        ({"loss": functools.partial(F.cross_entropy, reduction="none"), "curvature": "fisher"}, "likelihood"),
    ],
)
def test_arguments_out_of_range_are_errors(options: dict[str, Any], match: str) -> None:
    model = small_cnn() if "data" not in options else small_mlp()
    model.train()
    list(model.children())[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    call = {"loss": "cross_entropy", "data": examples(1, 8, 8), "k": 1, **options}
    with pytest.raises(ValueError, match=match):
        top_eigenvalues(model, call.pop("loss"), call.pop("data"), call.pop("k"), **call)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_examples_that_are_not_finite_are_said_wherever_they_are() -> None:
    """Not only in the first chunk, which the check of determinism sees."""
    x, y = examples(10)
    broken = x.clone()
    broken[7] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        top_eigenvalues(small_mlp(), "cross_entropy", [(x, y), (broken, y)])


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("which", ["largest", "both"])
def test_measuring_leaves_the_model_alone(which: Any, curvature: Curvature) -> None:
    model = small_cnn()
    model.train()
    list(model.children())[5].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    top_eigenvalues(model, "cross_entropy", examples(1, 8, 8, count=10), 2, which=which, curvature=curvature)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None and value.requires_grad for value in model.parameters())

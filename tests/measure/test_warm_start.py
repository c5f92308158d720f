"""A solve that starts from the eigenvectors of a few examples: what it finds, and what it may still promise."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import CHUNK, Batch
from overparam.measure.products.operators import CurvatureOperator, MatrixOperator
from overparam.measure.spectrum.eigenvalues import Eigenvalues, top_eigenvalues
from overparam.measure.spectrum.extremes import CONFIDENCE, Solve, mixed
from overparam.measure.spectrum.lanczos import Krylov, seen_ends
from overparam.measure.spectrum.warm_start import WARM_STEPS, drawn_subset, warm_vector
from overparam.models.build import build
from overparam.models.losses import LossName
from overparam.specs.models.mlp import MLP
from tests.support.classifiers import exact, examples
from tests.support.matrices import Form, ends, rotated
from tests.support.networks import images, rows, small_cnn, smooth_mlp

F64 = torch.float64
COLUMNS = ("values", "residuals", "lower", "upper", "vectors", "converged", "certified")
COUNTS = ("status", "num_products", "subsample_products", "route", "asymmetry")


def network() -> nn.Module:
    """244 parameters, float32."""
    return build(MLP(width=10, depth=3, activation="gelu"), (8,), 4, generator=torch_generator(0, "init"))


def solved(k: int = 1, *, loss: Any = "cross_entropy", **options: Any) -> Eigenvalues:
    return top_eigenvalues(network(), loss, examples(8), k, **options)


def assert_identical(found: Eigenvalues, expected: Eigenvalues) -> None:
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in COLUMNS)
    assert [getattr(found, name) for name in COUNTS] == [getattr(expected, name) for name in COUNTS]


# What is found


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_values_are_those_of_the_dense_matrix(loss: LossName, which: Any, k: int) -> None:
    spectrum = exact(network(), loss, examples(8))
    found = solved(k, loss=loss, which=which, tol=1e-5, warm_start=20)
    both = ends(spectrum, k)
    expected, norm = {"largest": both[0], "smallest": both[1], "both": both}[which], float(spectrum.abs().max())
    assert found.status == "converged"
    assert bool(((found.values - expected).abs() <= found.residuals).all())
    assert float(found.residuals.max()) <= 1e-5 * norm
    assert bool(((found.lower <= expected) & (expected <= found.upper)).all())
    assert found.subsample_products > 0


def test_none_is_no_warm_start_bit_for_bit() -> None:
    assert_identical(solved(3, which="both", warm_start=None), solved(3, which="both"))
    assert solved(warm_start=None).subsample_products == 0


@pytest.mark.parametrize("size", [None, 1, 20, 59])
def test_one_pair_draws_the_subset_and_one_vector_for_each_solve(size: int | None) -> None:
    """What comes after is the same whatever the subset says."""
    generator, replayed = torch_generator(0, "own"), torch_generator(0, "own")
    solved(generator=generator, warm_start=size)
    if size is not None:
        torch.randperm(60, generator=replayed)
        torch.randn(244, generator=replayed, dtype=F64)
    torch.randn(244, generator=replayed, dtype=F64)
    assert torch.equal(generator.get_state(), replayed.get_state())


@pytest.mark.parametrize(("which", "outliers"), [("largest", [5, 4, 3]), ("both", [5, 4, 3, -5, -4, -3])])
def test_the_vector_holds_every_wanted_eigenvector_alike(which: Any, outliers: list[int]) -> None:
    values = torch.cat([torch.linspace(-0.1, 0.1, 40), torch.tensor(outliers)]).double()
    form = Form(rotated(values))
    exact_values, vectors = torch.linalg.eigh(form.matrix)
    with opened(form, form.loss, (torch.zeros(1, 1), torch.zeros(1))) as problem:
        warm = warm_vector(problem, "hessian", 3, which, torch_generator(0, "warm"))
    held = (vectors.T @ warm.vector)[exact_values.abs() > 1.0].abs()
    assert held.tolist() == pytest.approx([len(outliers) ** -0.5] * len(outliers), rel=0.02)
    assert float(warm.vector.norm()) == pytest.approx(1.0)


def test_a_solve_starts_from_the_guess_and_its_own_random_vector() -> None:
    matrix, guess = rotated(torch.linspace(-1.0, 1.0, 30)), torch.eye(30, dtype=F64)[7]
    cold, warm = (
        Solve(MatrixOperator(matrix), 1, "both", 0.1, 9, torch_generator(0, "start"), warm=start).krylov.basis[0]
        for start in (None, guess)
    )
    assert torch.equal(warm, mixed(guess, cold))
    assert float(warm @ guess) > 0.5 > float(cold @ guess)


# What it costs


def test_products_on_all_the_data_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[int] = Counter()
    product = CurvatureOperator.__call__

    def counted(operator: CurvatureOperator, vectors: Tensor) -> Tensor:
        made[operator.problem.num_examples] += 1
        return product(operator, vectors)

    monkeypatch.setattr(CurvatureOperator, "__call__", counted)
    found = solved(3, which="both", warm_start=20)
    assert made == {20: found.subsample_products, 60: found.num_products}


def test_an_outlier_that_a_subset_shows_takes_fewer_products() -> None:
    """Inputs that vary tenfold along one direction."""
    x, _ = examples(40, count=400)
    data = (x + 10.0 * x[:, :1] * torch.linspace(-1.0, 1.0, 40), x[:, :1])
    cold, warm = (
        top_eigenvalues(nn.Linear(40, 1), "mse", data, tol=1e-3, certify=0.02, warm_start=size) for size in (None, 100)
    )
    assert (cold.status, warm.status) == ("converged", "converged")
    assert WARM_STEPS <= warm.num_products <= cold.num_products / 2
    assert float(warm.upper[0] - warm.values[0]) <= 0.02 / 0.96 * float(warm.values[0]) * 1.01
    assert float(warm.values[0]) == pytest.approx(float(cold.values[0]), rel=1e-5)


@pytest.mark.parametrize("certify", [0.06, 0.01, 0.003])
def test_intervals_become_as_narrow_as_asked_for_in_fewer_products(certify: float) -> None:
    options: dict[str, Any] = {"which": "both", "tol": 0.1}
    cold, warm = (solved(**options, certify=certify, warm_start=size) for size in (None, 20))
    reach = certify / (1.0 - 2.0 * certify) * float(warm.values[0] - warm.values[1])
    rounding = 1e-3 * float(warm.values.abs().max())  # of float32, over the least share
    assert bool((warm.upper - warm.lower <= reach + rounding).all())
    assert warm.num_products < cold.num_products
    wide = solved(**options, warm_start=20)
    assert not bool((wide.upper - wide.lower <= reach + rounding).all())


# What is refused, and where it changes nothing


@pytest.mark.parametrize("size", [0, -1, 60, 1000])
@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_sizes_out_of_range_are_errors(size: int, curvature: Any) -> None:
    allowed = f"warm_start = {size}; allowed: at least 1 and fewer than the 60 examples of the data"
    with pytest.raises(ValueError, match=allowed):
        solved(curvature=curvature, warm_start=size)


@pytest.mark.parametrize("inputs", [1, 2])
def test_fewer_than_three_parameters_ignore_it(inputs: int) -> None:
    """With one parameter, v + g may be 0."""
    model, data = nn.Linear(inputs, 1, bias=False), (examples(inputs)[0], torch.zeros(60, 1))
    for seed in range(4):
        cold, warm = (
            top_eigenvalues(model, "mse", data, generator=torch_generator(seed, "own"), warm_start=size)
            for size in (None, 5)
        )
        assert_identical(warm, cold)


def test_a_gram_matrix_ignores_it() -> None:
    generator = torch_generator(0, "own")
    found = solved(2, curvature="ggn", generator=generator, warm_start=20)
    assert found.route == "gram"
    assert_identical(found, solved(2, curvature="ggn"))
    assert torch.equal(generator.get_state(), torch_generator(0, "own").get_state())


# The subset


def tagged(*batches: Batch) -> list[Batch]:
    """Every entry of an input says which example it is."""
    begin, found = 0, []
    for x, _ in batches:
        tags = torch.arange(begin, begin + len(x))
        found.append((tags.reshape(-1, *[1] * (x.ndim - 1)).expand_as(x).to(x.dtype), tags % 3))
        begin += len(x)
    return found


RAGGED = (smooth_mlp, tagged(rows(5), rows(250), rows(1), rows(300)), [250, 150])
MIXED = (small_cnn, tagged(images(6), images(9, size=10), images(7), images(1, size=10)), [2, 3, 6, 1])


@pytest.mark.parametrize(("make", "data", "lengths"), [RAGGED, MIXED], ids=["ragged", "mixed shapes"])
def test_a_subset_is_drawn_without_replacement_in_the_order_of_the_data(
    make: Any, data: Any, lengths: list[int]
) -> None:
    with opened(make(), "cross_entropy", data) as problem:
        subset = drawn_subset(problem, sum(lengths), torch_generator(0, "subset"))
        operator = CurvatureOperator(subset)
        assert bool(operator(torch.ones_like(subset.theta)).isfinite().all())
    order = torch.randperm(problem.num_examples, generator=torch_generator(0, "subset"))
    tags = torch.cat([x.flatten(1)[:, 0] for x, _ in subset.chunks]).long()
    assert tags.tolist() == sorted(order[: sum(lengths)].tolist())
    assert torch.equal(torch.cat([y for _, y in subset.chunks]), tags % 3)
    assert all(torch.equal(x.flatten(1).min(1).values, x.flatten(1).max(1).values) for x, _ in subset.chunks)
    assert [len(y) for _, y in subset.chunks] == lengths
    assert max(lengths) <= CHUNK
    assert all(x.ndim == 2 or x.is_contiguous(memory_format=torch.channels_last) for x, _ in subset.chunks)


# What it may promise


def matrix_of(index: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix of one of four kinds, of size 6 … 60, with its exact eigenvalues and eigenvectors (columns)."""
    normal = torch.randn(int(torch.randint(6, 61, (1,), generator=generator)), generator=generator, dtype=F64)
    signs, geometric = torch.sign(normal), 0.7 ** torch.arange(len(normal), dtype=F64)
    outlier = torch.cat([0.1 * normal[1:], 1.0 + normal[:1] ** 2])
    matrix = rotated((normal, signs * geometric, signs + 0.01 * normal, outlier)[index % 4], index)
    return matrix, *torch.linalg.eigh(matrix)


def covered(solve: Solve, values: Tensor) -> bool:
    assert solve.ends is not None
    (low, high), (bottom, top) = solve.ends.largest, solve.ends.smallest
    return low <= float(values[-1]) <= high and bottom <= float(values[0]) <= top


GUESSES: dict[str, Any] = {
    "orthogonal to both": lambda vectors: vectors[:, 1:-1].sum(1),
    "the second": lambda vectors: vectors[:, -2],
    "the right one": lambda vectors: vectors[:, -1],
    "against both": lambda vectors: -vectors[:, -1] - vectors[:, 0],
}


@pytest.mark.parametrize("guess", GUESSES)
def test_intervals_cover_both_ends_however_wrong_the_guess(guess: str) -> None:
    """240 problems, early stops included; one residual each way would cover in far fewer."""
    generator, good, naive, early = torch_generator(0, "coverage"), 0, 0, 0
    for index in range(240):
        matrix, values, vectors = matrix_of(index, generator)
        warm = GUESSES[guess](vectors)
        most = (1, 3, 5, 200)[index // 4 % 4]
        start = torch_generator(index, "start")
        solve = Solve(MatrixOperator(matrix), 1, "both", 0.1, most, start, WARM_STEPS, warm / warm.norm())
        solve.run()
        good += covered(solve, values)
        top, bottom = solve.found[1][0], solve.found[-1][0]
        naive += bool(values[-1] <= top.value + top.residual and values[0] >= bottom.value - bottom.residual)
        early += not solve.done
    assert good >= 240 * CONFIDENCE > 190 > naive
    assert 120 <= early < 240


def test_intervals_hold_wherever_the_start_holds_as_much_as_is_promised() -> None:
    """`|⟨q₁, u⟩|` at the quantile for 2.5 % at each end covers at every stop, half of it does not."""
    generator, missed = torch_generator(0, "quantile"), 0
    for index in range(20):
        matrix, values, vectors = matrix_of(index, generator)
        size = len(values)
        quantile = (1.0 - CONFIDENCE) / 2 / (2.0 * math.sqrt(2.0 * size / math.pi))
        for part, most in [(part, most) for part in (1.001, 0.5) for most in (1, 3, size // 2, size - 1)]:
            share = part * quantile
            start = torch.full((size,), math.sqrt((1.0 - 2.0 * share**2) / (size - 2)), dtype=F64)
            start[[0, -1]] = share
            start = vectors @ start
            solve = Solve(MatrixOperator(matrix), 1, "both", 1e-12, most, torch_generator(0, "start"), warm=start)
            solve.krylov.basis[0] = start
            solve.run()
            assert part < 1.0 or covered(solve, values)
            missed += not covered(solve, values)
    assert missed >= 10


@pytest.mark.parametrize("size", [3, 10, 100])
@pytest.mark.parametrize("along", [-1.0, -0.7, 0.0, 0.7, 1.0])
def test_a_start_seldom_lacks_an_eigenvector_however_wrong_the_guess(along: float, size: int) -> None:
    """`P(|⟨q₁, u⟩| ≤ t) ≤ 2 √(2P/π) t` to four standard errors, u the first axis; more weight on v would break it."""
    random = torch.randn(40_000, size, generator=torch_generator(size, "sphere"), dtype=F64)
    random /= random.norm(dim=1, keepdim=True)
    v = torch.tensor([along, math.sqrt(1.0 - along**2)] + [0.0] * (size - 2), dtype=F64)
    quantiles = [(p, p / (2.0 * math.sqrt(2.0 * size / math.pi))) for p in (0.01, 0.05, 0.2)]

    def lacks(v: Tensor) -> list[bool]:
        shares = torch.vmap(mixed, in_dims=(None, 0))(v, random)[:, 0].abs()
        return [float((shares <= t).double().mean()) <= p + 4.0 * math.sqrt(p / 40_000) for p, t in quantiles]

    assert all(lacks(v))
    assert along != 0.0 or not all(lacks(4.0 * v))


@given(seed=st.integers(0, 10**6), size=st.integers(3, 12), little=st.floats(-4.0, 0.0), stop=st.integers(1, 12))
@settings(max_examples=100)
def test_what_a_start_holds_bounds_the_ends(seed: int, size: int, little: float, stop: int) -> None:
    """For any start: by what is seen, sharp where all is, and by the polynomial of Kuczyński and Woźniakowski."""
    generator = torch_generator(seed, "law")
    matrix = rotated(torch.randn(size, generator=generator, dtype=F64), seed)
    values, vectors = torch.linalg.eigh(matrix)
    start = torch.randn(size, generator=generator, dtype=F64)
    start[[0, -1]] *= 10.0**little
    start /= start.norm()
    krylov = Krylov(MatrixOperator(matrix), generator, matrix[:0])
    krylov.basis[0] = vectors @ start
    steps = min(stop, size - 1)
    for _ in range(steps):
        krylov.step()
    theta, tiny = krylov.ritz()[0], 1e-9
    for end, outward in ((0, -1.0), (-1, 1.0)):
        share, true = float(start[end].abs()), float(values[end])
        bound = seen_ends(krylov.alphas, krylov.betas, share)[end]
        assert outward * (bound - true) >= -tiny
        assert steps < size - 1 or bound == pytest.approx(true, abs=1e-6)
        missed = min(1.0 - 1e-12, max(0.0, outward * (true - float(theta[end])) / float(values[-1] - values[0])))
        assert share <= 1.0 / math.cosh((2 * steps - 1) * math.atanh(math.sqrt(missed))) + tiny


@pytest.mark.parametrize("most", [1, 2, 3])
def test_an_early_stop_says_so_and_still_covers(most: int) -> None:
    """Without a warm start so few products say nothing from outside."""
    spectrum = exact(network(), "cross_entropy", examples(8))
    found, cold = (solved(which="both", tol=1e-5, max_products=most, warm_start=size) for size in (20, None))
    truth = torch.stack([spectrum[-1:], spectrum[:1]])
    assert (found.status, found.num_products) == ("max_products", most)
    assert not bool(found.converged.any())
    assert bool(((found.lower <= truth) & (truth <= found.upper)).all())
    assert bool(found.upper.isfinite().all() and found.lower.isfinite().all() and not cold.upper.isfinite().all())


# Going on from a file


@pytest.mark.parametrize(("k", "stops"), [(1, (10,)), (3, (30,)), (3, (31, 44)), (3, (20,))], ids=str)
def test_a_stopped_solve_goes_on_bit_for_bit(k: int, stops: tuple[int, ...], tmp_path: Path) -> None:
    options: dict[str, Any] = {"which": "both", "tol": 1e-4, "certify": 0.05, "warm_start": 20}
    whole = solved(k, **options)
    for most in stops:
        assert solved(k, **options, checkpoint=tmp_path / "solve", max_products=most).num_products == most
    assert whole.num_products > stops[-1]
    assert_identical(solved(k, **options, checkpoint=tmp_path / "solve"), whole)


@pytest.mark.parametrize(("first", "second"), [(20, 21), (20, None), (None, 20)])
def test_a_file_of_another_warm_start_is_refused(first: int | None, second: int | None, tmp_path: Path) -> None:
    solved(checkpoint=tmp_path / "solve", warm_start=first)
    with pytest.raises(ValueError, match="solve belongs to another model, other data or other settings"):
        solved(checkpoint=tmp_path / "solve", warm_start=second)

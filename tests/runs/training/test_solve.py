"""Solved models against their definitions, against the loop, and the peak with what removes it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.models.risk import risk
from overparam.runs.training.loop import train_loop
from overparam.runs.training.solve import descended, least_squares, solve
from overparam.specs import SGD, TrainSpec

Draw = Callable[..., Tensor]


def drawing(purpose: str) -> Draw:
    generator = torch_generator(0, purpose)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_gradient_descent_in_closed_form_is_gradient_descent(shape: tuple[int, int]) -> None:
    draw = drawing("descent")
    features, targets, lr, weights = draw(*shape), draw(shape[0]), 0.1, torch.zeros(shape[1], dtype=torch.float64)
    for _ in range(50):
        weights -= lr * features.T @ (features @ weights - targets) / len(features)
    found = descended(features, targets, lr=lr, steps=50)
    torch.testing.assert_close(found, weights, rtol=1e-10, atol=1e-10)
    outside = found - torch.linalg.pinv(features) @ (features @ found)
    assert float(outside.norm()) < 1e-12 or shape[0] > shape[1]


def test_gradient_descent_tends_to_the_minimum_norm_and_diverges_above_its_bound() -> None:
    draw = drawing("limit")
    features, targets = draw(5, 12), draw(5)
    limit = torch.linalg.pinv(features) @ targets
    torch.testing.assert_close(least_squares(features, targets), limit)
    bound = 2 * len(features) / float(torch.linalg.svdvals(features)[0]) ** 2
    torch.testing.assert_close(descended(features, targets, lr=0.9 * bound, steps=5000), limit)
    far = descended(features, targets, lr=1.1 * bound, steps=500).norm()
    assert float(far) > 1e6 * float(limit.norm())


@pytest.mark.parametrize("time", [0.1, 1.0, 10.0, 100.0])
def test_stopping_early_is_about_as_good_as_a_ridge(time: float) -> None:
    """Gradient flow at time t against ridge n/t: the risks' ratio is at most 1.6862 (Ali, Kolter & Tibshirani 2019)."""
    draw, noise = drawing("flow"), 0.25
    features = draw(60, 30)
    values = torch.linalg.svdvals(features).square() / len(features)

    def expected(kept: Tensor) -> float:
        """Risk over β of norm 1 in any direction and over the noise: bias and variance."""
        bias = (1 - kept).square().mean()
        return float(bias + noise / len(features) * (kept.square() / values).sum())

    flow = expected(1 - torch.exp(-time * values))
    assert 1.0 / 1.6862 < flow / expected(values / (values + 1 / time)) <= 1.6862


@pytest.mark.parametrize("noise", [0.5, 0.0])
def test_random_features_peak_at_as_many_features_as_examples(noise: float) -> None:
    medians = {features: median_risk(features, noise) for features in (60, 95, 100, 105, 200, 800)}
    assert max(medians, key=lambda features: medians[features]) == 100
    assert medians[100] > 3 * max(medians[95], medians[105])
    assert medians[800] < medians[200] < medians[60]
    if noise:  # medians of 60 draws of a heavy-tailed risk
        assert {n: medians[n] for n in (95, 105)} == pytest.approx({95: 6.0, 105: 6.4}, rel=0.6)
        assert {n: medians[n] for n in (200, 800)} == pytest.approx({200: 0.58, 800: 0.25}, rel=0.3)


def median_risk(features: int, noise: float, **solver: float) -> float:
    """Median over draws of the squared error on noiseless test targets: 100 examples of 20 inputs, linear teacher."""
    draw, risks = drawing(f"features {features}"), []
    for _ in range(60):
        teacher, hidden = draw(20), draw(20, features) / 20**0.5
        x, test = draw(100, 20), draw(200, 20)
        targets = x @ (teacher / teacher.norm()) + noise * draw(100)
        readout = least_squares((x @ hidden).relu(), targets, **solver)
        risks.append(((test @ hidden).relu() @ readout - test @ (teacher / teacher.norm())).square().mean())
    return float(torch.stack(risks).median())


@pytest.mark.parametrize("solver", [{"cutoff": 0.02}, {"ridge": 2.0}])
def test_without_small_singular_values_there_is_no_peak(solver: dict[str, float]) -> None:
    medians = {features: median_risk(features, 0.5, **solver) for features in (60, 100, 200)}
    assert medians[100] < 1.5 * min(medians[60], medians[200])


@pytest.mark.parametrize("ablation", ["linear target", "projected test points"])
def test_the_peak_needs_noise_and_test_points_outside_the_data(ablation: str) -> None:
    """With targets that the features can express, or test points in their main directions, n = p is nothing special."""
    draw, n, medians = drawing(ablation), 40, {}
    for p in (20, 40, 80):
        errors = []
        for _ in range(100):
            x, test, teacher = draw(n, p), draw(100, p), draw(p)
            teacher /= teacher.norm()
            noise = 0.0 if ablation == "linear target" else 0.5
            fitted = least_squares(x, x @ teacher + noise * draw(n))
            if ablation == "projected test points":
                main = torch.linalg.svd(x, full_matrices=False)[2][:10]
                test = test @ main.T @ main
            errors.append((test @ (fitted - teacher)).square().mean())
        medians[p] = float(torch.stack(errors).median())
    assert medians[40] <= 1.5 * max(medians[20], medians[80])


def test_a_solved_network_is_what_the_loop_tends_to() -> None:
    """Frozen first layer, trained readout from 0: the same weights, at the same kind of moment."""
    x, y = drawing("network")(8, 3), torch.arange(8) % 2
    spec = TrainSpec(
        optimizer=SGD(lr=0.2, momentum=0.95), batch_size="full", steps=1500, schedule="constant", loss="mse"
    )
    solved, trained = network(drawing("weights")), network(drawing("weights"))
    start, end = solve(solved, x, y)
    (last,) = train_loop(trained, x, y, spec, order=torch.arange, stops=frozenset())
    assert (start.step, start.end, end.step, end.end, last.end) == (0, None, 1, "length", "length")
    torch.testing.assert_close(end.state().weights["2.weight"], last.state().weights["2.weight"], atol=1e-5, rtol=1e-4)
    assert risk(end.model, x, y, "mse").loss < 1e-12
    assert end.state().weights.keys() == last.state().weights.keys()


def network(draw: Draw) -> nn.Sequential:
    hidden, readout = nn.Linear(3, 30, bias=False), nn.Linear(30, 2, bias=False)
    with torch.no_grad():
        hidden.weight.copy_(draw(30, 3))
        readout.weight.zero_()
    hidden.weight.requires_grad_(False)
    return nn.Sequential(hidden, nn.ReLU(), readout).double()


def test_a_solution_is_the_one_nearest_to_the_start() -> None:
    draw = drawing("nearest")
    model = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(draw(1, 6))
    before = model.weight.detach().clone()
    x, y = draw(3, 6), draw(3, 1)
    list(solve(model, x, y))
    moved = (model.weight - before).detach()
    torch.testing.assert_close(model(x).detach(), y)
    torch.testing.assert_close(moved @ (torch.eye(6) - torch.linalg.pinv(x) @ x), torch.zeros(1, 6).double())


def test_a_network_that_is_not_linear_is_refused_and_left_as_it_was() -> None:
    model = network(drawing("not linear"))
    model.requires_grad_(True)
    with torch.no_grad():
        list(model.parameters())[-1].fill_(0.1)
    before = [value.clone() for value in model.parameters()]
    with pytest.raises(ValueError, match="not linear"):
        list(solve(model, drawing("x")(8, 3), drawing("y")(8, 2)))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("wrong", [{"ridge": -1.0}, {"cutoff": -0.1}])
def test_negative_penalties_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        least_squares(torch.eye(2), torch.ones(2), **wrong)

"""Closed-form risks against simulations and against their own limits."""

import math
from itertools import pairwise

import numpy as np
import pytest

from overparam.foundations.numpy_generators import numpy_generator
from overparam.report.figures.least_squares import min_norm_risk, optimal_ridge_risk, weak_features_risk

N, NOISE = 40, 0.25


@pytest.mark.parametrize("p", [10, 20, 80, 160])  # the variance of the risk is finite there
def test_isotropic_risk_is_that_of_simulated_fits(p: int) -> None:
    generator, risks = numpy_generator(p, "isotropic"), []
    for _ in range(1500):
        x, beta = generator.standard_normal((N, p)), generator.standard_normal(p)
        beta /= np.linalg.norm(beta)
        fitted = np.linalg.lstsq(x, x @ beta + math.sqrt(NOISE) * generator.standard_normal(N), rcond=None)[0]
        risks.append(float(np.square(fitted - beta).sum()))
    assert np.mean(risks) == pytest.approx(
        min_norm_risk(N, p, noise=NOISE), abs=4 * float(np.std(risks)) / math.sqrt(1500)
    )


@pytest.mark.parametrize("p", [10, 60, 120])
def test_weak_features_risk_is_that_of_simulated_fits(p: int) -> None:
    features, generator, risks = 120, numpy_generator(p, "weak features"), []
    beta = np.full(features, 1 / math.sqrt(features))
    for _ in range(1500):
        x = generator.standard_normal((N, features))
        y = x @ beta + math.sqrt(NOISE) * generator.standard_normal(N)
        fitted = np.linalg.lstsq(x[:, :p], y, rcond=None)[0]
        risks.append(float(np.square(fitted - beta[:p]).sum() + np.square(beta[p:]).sum() + NOISE))
    expected = weak_features_risk(N, p, features, noise=NOISE)
    assert np.mean(risks) == pytest.approx(expected, abs=4 * float(np.std(risks)) / math.sqrt(1500))


@pytest.mark.parametrize("p", [20, 60])
def test_optimal_ridge_risk_is_the_least_of_simulated_penalties(p: int) -> None:
    """A wrong best penalty or a wrong trace would leave another penalty with less risk, or another value."""
    generator, n = numpy_generator(p, "ridge"), 400
    x = generator.standard_normal((n, 10 * p))
    values = np.maximum(np.linalg.eigvalsh(x.T @ x), 0.0)
    best = NOISE * 10 * p

    def risk(penalty: float) -> float:
        """Expected over the noise and over an isotropic β of norm 1."""
        shrunk = penalty / (values + penalty)
        return float(np.square(shrunk).mean() + NOISE * (values / (values + penalty) ** 2).sum())

    assert risk(best) < min(risk(0.7 * best), risk(1.4 * best))
    assert risk(best) == pytest.approx(optimal_ridge_risk(n, 10 * p, noise=NOISE), rel=0.02)


def test_min_norm_peaks_at_as_many_parameters_as_examples_and_the_best_ridge_nowhere() -> None:
    widths = range(2, 200)
    least = [min_norm_risk(N, p, noise=NOISE) for p in widths]
    assert [p for p, risk in zip(widths, least, strict=True) if math.isinf(risk)] == [N - 1, N, N + 1]
    ridge = [optimal_ridge_risk(N, p, noise=NOISE) for p in widths]
    assert all(a < b for a, b in pairwise(ridge))  # rises to the signal: no peak
    assert all(a < b for a, b in zip(ridge, least, strict=True))


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_exact_risk_tends_to_the_proportional_limit(ratio: float) -> None:
    limit = NOISE * ratio / (1 - ratio) if ratio < 1 else (1 - 1 / ratio) + NOISE / (ratio - 1)
    assert min_norm_risk(10**6, int(ratio * 10**6), noise=NOISE) == pytest.approx(limit, rel=1e-5)

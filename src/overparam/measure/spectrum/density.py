"""The whole spectrum by stochastic Lanczos quadrature."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from torch import nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.estimate import Estimate, mean_with_interval
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss
from overparam.measure.products.operators import Curvature, CurvatureOperator, Operator
from overparam.measure.spectrum.lanczos import Floats, Krylov, refuse_asymmetric
from overparam.models.reach import Unused


@dataclass(frozen=True)
class Density:
    """Quadrature of a spectrum: `(1/P) Σ_j f(λ_j) ≈ mean over probes of Σ_i w_i f(θ_i)`.

    `nodes` and `weights` have one row per probe; the weights of a row sum to 1; a probe that met an invariant subspace
    early has its last nodes repeated with weight 0. The sums are exact for polynomials f of degree 2·steps − 1 on each
    probe's own measure; there the only error is that of the probes. A CDF is no polynomial: between nodes it is as
    coarse as they are, which intervals over probes do not show. `fallback` is what PyTorch said about an operation
    without second derivative: products were finite differences then.
    """

    nodes: Floats
    weights: Floats
    num_parameters: int
    curvature: Curvature
    num_products: int
    fallback: str | None = None

    def cdf(self, x: ArrayLike) -> Floats:
        """Share of eigenvalues ≤ x, the mean over probes."""
        found: Floats = self._cdfs(x).mean(0)
        return found

    def cdf_band(self, x: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Pointwise Student interval of the CDF over the probes, within [0, 1]; the error of few steps is not in it.

        Raises:
            ValueError: there is one probe only.
        """
        found = self._cdfs(x)
        n = len(found)
        if n < 2:
            raise ValueError("a band needs at least two probes; call spectral_density with probes=2 or more")
        half = stdtrit(n - 1, 0.5 + confidence / 2) * found.std(0, ddof=1) / np.sqrt(n)
        mean = found.mean(0)
        return np.clip(mean - half, 0.0, 1.0), np.clip(mean + half, 0.0, 1.0)

    def density(self, x: ArrayLike, bandwidth: float) -> Floats:
        """Density of the eigenvalues at x, each node spread by a Gaussian of standard deviation `bandwidth`.

        The bandwidth decides what can be seen; look at two, and at the CDF, which needs none.
        """
        if not bandwidth > 0.0:
            raise ValueError(f"bandwidth = {bandwidth}; allowed: a positive number in the unit of the eigenvalues")
        z = (np.asarray(x, dtype=np.float64)[..., None, None] - self.nodes) / bandwidth
        peaks = self.weights * np.exp(-0.5 * z**2) / (bandwidth * np.sqrt(2.0 * np.pi))
        found: Floats = peaks.sum((-1, -2)) / len(self.nodes)
        return found

    def trace(self) -> Estimate:
        """`tr(C) = P Σ w θ`."""
        return self._sum(self.nodes)

    def frobenius(self) -> Estimate:
        """Squared Frobenius norm `‖C‖_F² = P Σ w θ²`."""
        return self._sum(self.nodes**2)

    def effective_dimension(self, c: float) -> Estimate:
        """`Σ_j λ_j/(λ_j + c)` over the positive eigenvalues (MacKay 1992): the directions that data fixes against a
        prior of precision c.
        """
        if not c > 0.0:
            raise ValueError(f"c = {c}; allowed: a positive number in the unit of the eigenvalues")
        positive = np.maximum(self.nodes, 0.0)
        return self._sum(positive / (positive + c))

    def _sum(self, values: Floats) -> Estimate:
        samples = self.num_parameters * (self.weights * values).sum(1)
        return replace(mean_with_interval(samples.tolist(), self.num_products), fallback=self.fallback)

    def _cdfs(self, x: ArrayLike) -> Floats:
        below = self.nodes[..., None] <= np.asarray(x, dtype=np.float64).reshape(-1)
        found: Floats = (self.weights[..., None] * below).sum(1)
        return found.reshape(len(self.nodes), *np.shape(x))


def spectral_density(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    steps: int = 80,
    probes: int = 4,
    curvature: Curvature = "hessian",
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> Density:
    """Spectral density of a curvature of `L = (1/N) Σ ℓ(f(x_i), y_i)` by stochastic Lanczos quadrature.

    Each probe runs Lanczos from a Gaussian start v; the eigenvalues of T are the nodes, the squared first entries of
    its unit eigenvectors the weights (Golub and Welsch 1969; Ubaru et al. 2017). Costs steps·probes products.

    Raises:
        ValueError: steps or probes are below 1, or the model, loss or data cannot be measured.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])  # eigenvalues 1/2 and 9/2
    >>> spectral_density(model, "mse", (x, torch.zeros(2, 1)), steps=2).nodes[0].round(4).tolist()
    [0.5, 4.5]
    """
    if steps < 1 or probes < 1:
        raise ValueError(f"steps = {steps}, probes = {probes}; allowed: both at least 1")
    generator = generator or torch_generator(0, "spectrum")
    with opened(model, loss, data, params=params, unused=unused) as problem:
        return quadrature(CurvatureOperator(problem, curvature), steps, probes, generator)


def quadrature(operator: Operator, steps: int, probes: int, generator: torch.Generator) -> Density:
    """Nodes and weights of an operator's spectrum."""
    steps = min(steps, operator.size)
    rows = [_one(operator, steps, generator) for _ in range(probes)]
    curvature: Curvature = operator.curvature if isinstance(operator, CurvatureOperator) else "hessian"
    nodes, weights = (np.stack(column) for column in zip(*rows, strict=True))
    fallback: str | None = getattr(operator, "fallback", None)
    return Density(nodes, weights, operator.size, curvature, operator.num_products, fallback)


def _one(operator: Operator, steps: int, generator: torch.Generator) -> tuple[Floats, Floats]:
    none = torch.empty(0, operator.size, dtype=operator.dtype, device=operator.device)
    krylov = Krylov(operator, generator, none)
    while krylov.steps < steps and not krylov.broken:
        krylov.step()
    theta, _, s = krylov.ritz()
    refuse_asymmetric(krylov.asymmetry, float(np.abs(theta).max()), getattr(operator, "fallback", None))
    missing = steps - len(theta)
    return np.pad(theta, (0, missing), mode="edge"), np.pad(s[0] ** 2, (0, missing))

"""Lanczos tridiagonalization with full reorthogonalization, and what it certifies about both ends of a spectrum.

After m products from a unit vector q₁ the basis Q (rows) and the tridiagonal T satisfy
`A Qᵀ = Qᵀ T + β_m q_{m+1} e_mᵀ`. For an eigenpair (θ, s) of T the Ritz vector Qᵀs has the residual
`‖A Qᵀs − θ Qᵀs‖ = β_m |s_m|`. The basis is kept in the operator's precision, the coefficients are float64; β is taken
after two passes of Gram–Schmidt, so that T is Q A Qᵀ; no norm is divided by with an epsilon added.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from overparam.measure.products.operators import Operator

Floats = NDArray[np.float64]
ASYMMETRY = 1e-2  # relative to ‖C‖; rounding leaves some 1e-6 of it in float32
KW = 1.648  # Kuczyński and Woźniakowski (1992), theorem 4.1 b


@dataclass
class Krylov:
    """A Lanczos process that can be stopped, saved and gone on with. `basis[j]` is q_{j+1}; `locked` rows stay out.

    `outer_norm` is what earlier processes know of ‖A‖: rounding is relative to that, even in a space where A is small.

    When the process meets an invariant subspace it goes on from a fresh random direction with β = 0, until the whole
    space is used up; `exhausted` is then true and T has the whole spectrum outside the locked rows.
    """

    operator: Operator
    generator: torch.Generator
    locked: Tensor
    basis: Tensor = field(init=False)
    alphas: list[float] = field(default_factory=list)
    betas: list[float] = field(default_factory=list)
    outer_norm: float = 0.0
    coupling: list[list[float]] = field(default_factory=list)
    broken: bool = False
    asymmetry: float = 0.0

    def __post_init__(self) -> None:
        self.basis = torch.empty(8, self.operator.size, dtype=self.operator.dtype, device=self.operator.device)
        self.basis[0] = self._fresh()

    @property
    def steps(self) -> int:
        return len(self.alphas)

    @property
    def room(self) -> int:
        """Dimension of the space outside the locked vectors."""
        return self.operator.size - len(self.locked)

    @property
    def exhausted(self) -> bool:
        return self.steps >= self.room

    def step(self) -> None:
        """One product: extends T by one row, and the basis by one vector unless the space is used up."""
        j = self.steps
        w = self.operator(self.basis[j])
        self.coupling.append((self.locked @ w).cpu().double().tolist())
        inside = self.basis[: j + 1]
        coefficients = self._against(inside, w)
        self._note_asymmetry(coefficients)
        self.alphas.append(float(coefficients[j] + self._against(inside, w)[j]))
        beta = _norm(w)
        if self.exhausted:
            self.betas.append(0.0)
            return
        if beta <= self.rounding:
            self.broken, beta, w = True, 0.0, self._fresh()
        else:
            w = w / beta
        self.betas.append(beta)
        self._append(w)

    def _against(self, inside: Tensor, w: Tensor) -> Floats:
        """One pass of Gram–Schmidt on w in place; the coefficients against `inside`."""
        if len(self.locked):
            w -= self.locked.T @ (self.locked @ w)
        c = inside @ w
        w -= inside.T @ c
        found: Floats = c.cpu().double().numpy()
        return found

    def _note_asymmetry(self, coefficients: Floats) -> None:
        """In exact arithmetic `q_iᵀ A q_j` is 0 for i < j − 1 and β for i = j − 1; what it is instead is asymmetry."""
        j = len(coefficients) - 1
        expected = np.zeros(j)
        if j:
            expected[j - 1] = self.betas[j - 1]
            self.asymmetry = max(self.asymmetry, float(np.abs(coefficients[:j] - expected).max()))

    def _fresh(self) -> Tensor:
        """A random unit vector outside the locked vectors and the basis."""
        cpu = torch.randn(self.operator.size, generator=self.generator, dtype=torch.float64, device="cpu")
        w = cpu.to(self.operator.device, self.operator.dtype)
        for _ in range(2):
            w = w / torch.linalg.vector_norm(w)
            self._against(self.basis[: self.steps], w)
        unit: Tensor = w / torch.linalg.vector_norm(w)
        return unit

    def _append(self, w: Tensor) -> None:
        if self.steps >= len(self.basis):
            self.basis = torch.cat([self.basis, torch.empty_like(self.basis)])
        self.basis[self.steps] = w

    @property
    def norm(self) -> float:
        """Estimate of ‖A‖: the largest row sum of T, between ‖T‖ and twice that, or what is known from outside."""
        a, b = np.abs(self.alphas), np.abs(self.betas)
        before, after = np.concatenate([[0.0], b])[: len(a)], np.concatenate([b, [0.0]])[: len(a)]
        return float((a + before + after).max(initial=self.outer_norm))

    @property
    def floor(self) -> float:
        """What no residual is below: rounding, or the asymmetry of the products if that is larger."""
        return max(self.rounding, self.asymmetry)

    @property
    def rounding(self) -> float:
        """`8 ε √m ‖A‖`."""
        return 8.0 * float(torch.finfo(self.operator.dtype).eps) * math.sqrt(self.steps) * self.norm

    def ritz(self) -> tuple[Floats, Floats, Floats]:
        """Ritz values ascending, their residuals, and T's eigenvectors.

        The residual has a part outside the space, `β_m |s_m|`, and one along the locked vectors, which are eigenvectors
        only to their own residuals; it is at least the rounding floor.
        """
        theta, s = eigh_tridiagonal(np.array(self.alphas), np.array(self.betas[:-1]))
        along = np.linalg.norm(np.array(self.coupling).reshape(self.steps, -1).T @ s, axis=0)
        residuals = np.maximum(np.hypot(self.betas[-1] * np.abs(s[-1]), along), self.floor)
        return theta.astype(np.float64), residuals.astype(np.float64), s.astype(np.float64)

    def vectors(self, s: Floats) -> Tensor:
        """Unit Ritz vectors as rows, for columns `s` of eigenvectors of T."""
        coefficients = torch.from_numpy(s.T.copy()).to(self.operator.device, self.operator.dtype)
        found = coefficients @ self.basis[: self.steps]
        units: Tensor = found / torch.linalg.vector_norm(found, dim=1, keepdim=True)
        return units


def _norm(w: Tensor) -> float:
    """In float64 where the device has it."""
    return float(torch.linalg.vector_norm(w if w.device.type == "mps" else w.double()))


@dataclass(frozen=True)
class Ends:
    """An interval for each end of a spectrum that holds for both with the stated confidence."""

    largest: tuple[float, float]
    smallest: tuple[float, float]


def certified_ends(lowest: float, highest: float, steps: int, size: int, delta: float, rounding: float) -> Ends:
    """Two-sided intervals for λmax and λmin from the extreme Ritz values of `steps` products and a random start.

    The Ritz values are bounds from inside. From outside (Kuczyński and Woźniakowski 1992), for a start that is uniform
    on the sphere, `P[λmax − θmax > ε (λmax − λmin)] ≤ 1.648 √P exp(−√ε (2m − 1))`, the same for λmin by symmetry. With

        √ε = ln(2 · 1.648 √P / δ) / (2m − 1)

    both hold with probability 1 − δ, the spread is at most `(θmax − θmin)/(1 − 2ε)`, and each end lies within ε times
    that of its Ritz value. Where ε ≥ ½ nothing is known from outside: the bound is infinite. `rounding` widens all.

    >>> ends = certified_ends(0.0, 1.0, steps=40, size=150_000, delta=0.05, rounding=0.0)
    >>> ends.largest[0], round(ends.largest[1], 4)
    (1.0, 1.0171)
    """
    epsilon = 0.0 if steps >= size else (_log_odds(size, delta) / (2 * steps - 1)) ** 2
    reach = epsilon * (highest - lowest) / (1.0 - 2.0 * epsilon) if epsilon < 0.5 else math.inf
    return Ends((highest - rounding, highest + reach + rounding), (lowest - reach - rounding, lowest + rounding))


def seen_ends(alphas: list[float], betas: list[float], share: float) -> tuple[float, float]:
    """Bounds on λmin and λmax from outside by what the process has seen, if `|⟨q₁, u⟩| ≥ share` for both eigenvectors.

    `⟨q_{j+1}, u⟩ = p_j(λ) ⟨q₁, u⟩` for every eigenpair (λ, u), with p_j the orthonormal polynomials of T, and the q are
    orthonormal: `Σ_{j≤m} p_j(λ)² ≤ 1/share²`. The sum grows without bound from the extreme Ritz values outward (van
    Dorsselaer, Hochstenbach and van der Vorst 2001). No β may be 0.

    >>> low, high = seen_ends([0.0] * 9, [0.5] * 9, 1e-3)  # p_j = U_j, of Chebyshev
    >>> round(low, 3), round(high, 3)
    (-1.273, 1.273)
    """
    limit = share**-2
    return -_seen_above([-alpha for alpha in alphas], betas, limit), _seen_above(alphas, betas, limit)


def _seen_above(alphas: list[float], betas: list[float], limit: float) -> float:
    """The place above the largest Ritz value where the sum passes the limit, by bisection, to the upper side."""
    theta = eigh_tridiagonal(np.array(alphas), np.array(betas[:-1]), eigvals_only=True)
    low = float(theta[-1])
    width = max(float(theta[-1] - theta[0]), max(betas))
    while not _passes(low + width, alphas, betas, limit):
        width *= 2.0
    high = low + width
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _passes(middle, alphas, betas, limit) else (middle, high)
    return high


def _passes(x: float, alphas: list[float], betas: list[float], limit: float) -> bool:
    before, now, total = 0.0, 1.0, 1.0
    for alpha, beta, previous in zip(alphas, betas, [0.0, *betas], strict=False):
        before, now = now, ((x - alpha) * now - previous * before) / beta
        total += now * now
        if total > limit:
            return True
    return False


def refuse_asymmetric(asymmetry: float, norm: float, fallback: str | None) -> None:
    """`|uᵀCv − vᵀCu|` above 1 % of the norm of C is no rounding; finite differences have an asymmetry of their own.

    Raises:
        ValueError: it is.
    """
    if asymmetry > ASYMMETRY * norm and fallback is None:
        raise ValueError(
            f"the products are not symmetric (by {asymmetry / norm if norm else asymmetry:.1e} of ‖C‖): an operation "
            "of the model has a wrong second derivative or draws random numbers"
        )


def steps_to_certify(epsilon: float, size: int, delta: float) -> int:
    """Steps after which both ends are certified to `epsilon/(1 − 2 epsilon)` of the spread; at most `size`.

    >>> [steps_to_certify(epsilon, 150_000, 0.05) for epsilon in (0.06, 0.016, 0.001)]
    [22, 41, 161]
    """
    return min(size, math.ceil((_log_odds(size, delta) / math.sqrt(epsilon) + 1) / 2))


def _log_odds(size: int, delta: float) -> float:
    return math.log(2.0 * KW * math.sqrt(size) / delta)

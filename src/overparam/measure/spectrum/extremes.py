"""The k extreme eigenpairs of an operator at one end of its spectrum or both: Lanczos with locking.

A Krylov space from one vector holds one copy of a repeated eigenvalue. For k > 1 every solve is therefore followed by
passes from fresh random vectors outside the pairs found so far, until such a pass finds nothing beyond the k-th.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from overparam.measure.products.operators import Operator
from overparam.measure.spectrum.lanczos import Ends, Floats, Krylov, certified_ends, seen_ends

Which = Literal["largest", "smallest", "both"]
CONFIDENCE = 0.95
FIRST_PASS = 0.25  # of the tolerance: pairs of later passes carry the residuals of those locked before them
MIN_STEPS = 8  # a small residual in a space of fewer dimensions may be chance
DILUTION = 2.0  # how much likelier a warm start is to lack an eigenvector, see `mixed`


@dataclass(frozen=True)
class Pair:
    """A Ritz pair: value, residual norm, unit vector."""

    value: float
    residual: float
    vector: Tensor


@dataclass
class Solve:
    """A solve under way. `tol` bounds the residuals relative to ‖A‖.

    `warm` is a unit vector that the first pass starts from, `mixed` with a random one. `narrow` bounds the intervals of
    the wanted ends, as a share of the spread.
    """

    operator: Operator
    k: int
    which: Which
    tol: float
    max_products: int
    generator: torch.Generator
    min_steps: int = MIN_STEPS
    warm: Tensor | None = None
    narrow: float = math.inf
    found: dict[int, list[Pair]] = field(init=False)  # +1: the largest, descending; −1: the smallest, ascending
    krylov: Krylov = field(init=False)
    ends: Ends | None = None
    passes: int = 0
    asymmetry: float = 0.0
    largest_norm: float = 0.0
    largest_floor: float = 0.0
    done: bool = False

    def __post_init__(self) -> None:
        self.k = min(self.k, self.operator.size)
        sides = {"largest": (1,), "smallest": (-1,), "both": (1, -1)}[self.which]
        self.found = {side: [] for side in sides}
        self.krylov = self._started()

    def run(self, after_step: Callable[["Solve"], None] = lambda solve: None) -> None:
        """Work until all pairs are converged or the products are spent."""
        while not self.done and self.operator.num_products < self.max_products:
            self.krylov.step()
            if self.krylov.exhausted or self._settled():
                self._take()
            after_step(self)
        if not self.done:
            self._merge(self._candidates(converged_only=False))

    @property
    def scale(self) -> float:
        """Largest |Ritz value| of all passes: at most ‖A‖, and it never falls, so that what was converged stays so."""
        return self.largest_norm

    @property
    def bound(self) -> float:
        """Residual that counts as converged: the tolerance, or rounding if that is larger."""
        return max(self.tol * self.scale, self.largest_floor, self.krylov.floor)

    def converged(self, side: int) -> list[bool]:
        flags = [pair.residual <= self.bound for pair in self.found[side]]
        return flags + [False] * (self.k - len(flags))

    def _started(self) -> Krylov:
        locked = [pair.vector for pairs in self.found.values() for pair in pairs]
        none = torch.empty(0, self.operator.size, dtype=self.operator.dtype, device=self.operator.device)
        rows = _orthonormal(torch.stack(locked)) if locked else none
        krylov = Krylov(self.operator, self.generator, rows, outer_norm=self.largest_norm)
        if self.warm is not None and self.passes == 0:
            krylov.basis[0] = mixed(self.warm, krylov.basis[0])
        return krylov

    def _ritz(self) -> tuple[Floats, Floats, Floats]:
        theta, residuals, s = self.krylov.ritz()
        self.largest_norm = max(self.largest_norm, float(np.abs(theta).max()))
        return theta, residuals, s

    def _wanted(self) -> int:
        """Pairs that the present pass must settle at each end: all in the first, one in the passes after it."""
        return min(self.k, self.krylov.room) if self.passes == 0 else 1

    def _settled(self) -> bool:
        theta, residuals, _ = self._ritz()
        count = self._wanted()
        if len(theta) < max(count, self.min_steps if self.passes == 0 else MIN_STEPS):
            return False
        first = self.passes == 0 and self.k > 1
        bound = max(self.bound * (FIRST_PASS if first else 1.0), self.krylov.floor)
        places = {1: slice(len(theta) - count, None), -1: slice(0, count)}
        small = all(bool((residuals[places[side]] <= bound).all()) for side in self.found)
        return small and (self.passes > 0 or self._narrow(float(theta[0]), float(theta[-1])))

    def _narrow(self, lowest: float, highest: float) -> bool:
        """Whether the intervals of the wanted ends reach, beyond their rounding, no farther than asked for."""
        if math.isinf(self.narrow):
            return True
        ends = self._ends()
        reach = {1: sum(ends.largest) - 2.0 * highest, -1: 2.0 * lowest - sum(ends.smallest)}
        return all(reach[side] <= self.narrow * (highest - lowest) for side in self.found)

    def _candidates(self, *, converged_only: bool) -> dict[int, list[Pair]]:
        """What the present Krylov space offers at each end, best first."""
        if not self.krylov.steps:
            return {side: [] for side in self.found}
        theta, residuals, s = self._ritz()
        offers, bound = {}, self.bound
        for side in self.found:
            order = np.argsort(-side * theta)[: self.k]
            order = order[residuals[order] <= bound] if converged_only else order
            vectors = self.krylov.vectors(s[:, order])
            offers[side] = [Pair(float(theta[i]), float(residuals[i]), v) for i, v in zip(order, vectors, strict=True)]
        return offers

    def _take(self) -> None:
        """End a pass: merge what it found, and stop if it found nothing beyond what was known."""
        before = {side: [pair.value for pair in pairs] for side, pairs in self.found.items()}
        self._merge(self._candidates(converged_only=self.passes > 0))
        known = all(self._same(before[side], [p.value for p in self.found[side]], side) for side in self.found)
        full = len(self.krylov.locked) + self.krylov.steps >= self.operator.size
        self.done = self.k == 1 or full or (self.passes > 0 and known)
        self.passes += 1
        if not self.done:
            self.krylov = self._started()

    def _same(self, before: list[float], now: list[float], side: int) -> bool:
        """Whether no value moved outward by more than the tolerance."""
        slack = self.tol * self.scale
        return len(before) == len(now) and all(side * (b - a) <= slack for a, b in zip(before, now, strict=True))

    def _merge(self, offers: dict[int, list[Pair]]) -> None:
        self.largest_floor = max(self.largest_floor, self.krylov.floor)
        self.asymmetry = max(self.asymmetry, self.krylov.asymmetry / self.scale if self.scale else 0.0)
        if self.passes == 0:
            self.ends = self._ends()
        for side, pairs in offers.items():
            self.found[side] = sorted([*self.found[side], *pairs], key=lambda pair: -side * pair.value)[: self.k]

    def _ends(self) -> Ends:
        return _ends(self.krylov, self.operator.size, warm=self.warm is not None)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that is needed to go on."""
        krylov = self.krylov
        tensors = {
            "basis": krylov.basis[: krylov.steps + 1],
            "locked": krylov.locked,
            "generator": self.generator.get_state(),
        }
        for side, pairs in self.found.items():
            tensors |= {f"vector/{side}/{i}": pair.vector for i, pair in enumerate(pairs)}
        meta = {
            "alphas": krylov.alphas,
            "betas": krylov.betas,
            "broken": krylov.broken,
            "krylov_asymmetry": krylov.asymmetry,
            "found": {str(side): [[p.value, p.residual] for p in pairs] for side, pairs in self.found.items()},
            "ends": None if self.ends is None else [self.ends.largest, self.ends.smallest],
            "passes": self.passes,
            "asymmetry": self.asymmetry,
            "largest_norm": self.largest_norm,
            "largest_floor": self.largest_floor,
            "coupling": krylov.coupling,
            "outer_norm": krylov.outer_norm,
            "done": self.done,
            "num_products": self.operator.num_products,
        }
        return tensors, meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from a `state`."""
        like, krylov = self.krylov.basis, self.krylov
        krylov.locked, krylov.basis = tensors["locked"].to(like).clone(), tensors["basis"].to(like).clone()
        krylov.outer_norm = meta["outer_norm"]
        krylov.alphas, krylov.betas, krylov.broken = meta["alphas"], meta["betas"], meta["broken"]
        krylov.asymmetry = meta["krylov_asymmetry"]
        self.generator.set_state(tensors["generator"])
        for side in self.found:
            pairs = enumerate(meta["found"][str(side)])
            self.found[side] = [Pair(v, r, tensors[f"vector/{side}/{i}"].to(like).clone()) for i, (v, r) in pairs]
        self.ends = None if meta["ends"] is None else Ends(*(tuple(end) for end in meta["ends"]))
        self.passes, self.asymmetry, self.done = meta["passes"], meta["asymmetry"], meta["done"]
        self.largest_norm, self.largest_floor = meta["largest_norm"], meta["largest_floor"]
        krylov.coupling = meta["coupling"]
        self.operator.num_products = meta["num_products"]


def mixed(warm: Tensor, random: Tensor) -> Tensor:
    """The unit vector q₁ along `x = v + g`, of unit vectors v and g, g uniform on the sphere and independent of v.

    All that a certificate needs of its start is that `|⟨q₁, u⟩|` is seldom small, u an extreme eigenvector. As for
    Kuczyński and Woźniakowski: with the polynomial `√(1 − ε − λ) p(λ) ∝ T_{2m−1}(√(1 − λ/(1 − ε)))`, for a spectrum
    scaled to [0, 1], an end that is missed by more than ε has `|⟨q₁, u⟩| < 1/cosh((2m − 1) artanh √ε)`, whatever q₁
    is; `P(|⟨g, u⟩| ≤ t) ≤ √(2P/π) t` turns that into their bound, since 1/cosh(z) ≤ 2 exp(−z). Now `⟨x, u⟩` is
    `⟨g, u⟩` moved by the fixed `⟨v, u⟩`, and the density of `⟨g, u⟩` is at most √(P/2π) everywhere for P ≥ 3, so that
    `P(|⟨x, u⟩| ≤ t) ≤ √(2P/π) t` too. With ‖x‖ ≤ ‖v‖ + ‖g‖ = 2: `P(|⟨q₁, u⟩| ≤ t) ≤ 2 √(2P/π) t`. The probability of
    failure grows by 2 = `DILUTION`, however wrong v is.
    """
    x = warm + random
    unit: Tensor = x / torch.linalg.vector_norm(x)
    return unit


def _ends(krylov: Krylov, size: int, *, warm: bool = False) -> Ends:
    """Certified intervals of the first pass.

    A subspace that is invariant to within β holds an end λ of a random start's spectrum to within `β/|⟨q₁, v⟩|`, v the
    eigenvector of λ, and `|⟨q₁, v⟩| ≥ (δ/2) √(π/2P)` for both ends at once with probability 1 − δ.

    A warm start has δ/2 for δ (see `mixed`). It takes so few products that the theorem, which knows nothing of the
    spectrum, says nothing; the same event bounds the ends by what was seen, and the narrower of the two bounds is
    taken. There rounding counts by its component along v, 1/√P of it if it has no preferred direction, over
    `|⟨q₁, v⟩|`.
    """
    theta, _, _ = krylov.ritz()
    delta, whole = (1.0 - CONFIDENCE) / (DILUTION if warm else 1.0), krylov.exhausted
    reach = krylov.floor if whole or not krylov.broken else krylov.floor * math.sqrt(2.0 * size / math.pi) * 2.0 / delta
    steps = size if whole or krylov.broken else krylov.steps
    ends = certified_ends(float(theta[0]), float(theta[-1]), steps, size, delta, reach)
    if not warm or whole or krylov.broken:
        return ends
    share = delta / 2.0 * math.sqrt(math.pi / (2.0 * size))
    lowest, highest = seen_ends(krylov.alphas, krylov.betas, share)
    reach *= 1.0 + 1.0 / (share * math.sqrt(size))
    (low, high), (bottom, top) = ends.largest, ends.smallest
    return Ends((low, min(high, highest + reach)), (max(bottom, lowest - reach), top))


def _orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows; a row that the ones before it nearly span is dropped (both ends may hold the same pair)."""
    kept = rows[:0]
    for row in rows:
        for _ in range(2):
            row = row - kept.T @ (kept @ row)
        size = torch.linalg.vector_norm(row)
        if size > 0.1:
            kept = torch.cat([kept, (row / size).unsqueeze(0)])
    return kept

"""Expectations of an activation at pairs of jointly Gaussian preactivations, in closed form.

Sources: Cho & Saul (2009) for relu, Williams (1997) for erf; "dual activation" is Daniely, Frostig & Singer's (2016).
A pair is held as two variances and the angle between them: a cosine near ±1 has lost the digits of the angle, which
relu's kernel is linear in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KnownDual = Literal["relu", "erf"]
TINY = float(torch.finfo(torch.float64).tiny)


@dataclass(frozen=True)
class Pairs:
    """Preactivations h, h' of two sets of examples: their variances (n, 1) and (1, m) and angles (n, m)."""

    first: Tensor
    second: Tensor
    angle: Tensor


@dataclass(frozen=True)
class DualActivation:
    """`E[φ²]` at a variance; `1 − E[φφ']/√(E[φ²]E[φ'²])` and `E[φ̇φ̇']` at pairs."""

    square: Callable[[Tensor], Tensor]
    gap: Callable[[Pairs], Tensor]
    slope: Callable[[Pairs], Tensor]


def _relu_gap(pairs: Pairs) -> Tensor:
    """`1 − k₁ = 1 − (sin ω + (π − ω) cos ω)/π`, regrouped."""
    angle = pairs.angle
    return 2.0 * (angle / 2.0).sin().square() + (angle * angle.cos() - angle.sin()) / math.pi


def _relu_slope(pairs: Pairs) -> Tensor:
    return (math.pi - pairs.angle) / (2.0 * math.pi)


def _erf_root(pairs: Pairs) -> Tensor:
    """`√((1 + 2S₁₁)(1 + 2S₂₂) − 4S₁₂²)`."""
    a, b = pairs.first, pairs.second
    return (1.0 + 2.0 * (a + b) + 4.0 * a * b * pairs.angle.sin().square()).sqrt()


def _erf_square(q: Tensor) -> Tensor:
    return 2.0 / math.pi * torch.atan2(2.0 * q, (1.0 + 4.0 * q).sqrt())


def _erf_gap(pairs: Pairs) -> Tensor:
    """With `asin(2S₁₂/√((1 + 2S₁₁)(1 + 2S₂₂)))` as an arctangent, which has no edge at 1."""
    covariance = (pairs.first.sqrt() * pairs.second.sqrt()) * pairs.angle.cos()
    value = 2.0 / math.pi * torch.atan2(2.0 * covariance, _erf_root(pairs))
    return 1.0 - value / (_erf_square(pairs.first).sqrt() * _erf_square(pairs.second).sqrt()).clamp_min(TINY)


DUALS: dict[KnownDual, DualActivation] = {
    "relu": DualActivation(lambda q: q / 2.0, _relu_gap, _relu_slope),
    "erf": DualActivation(_erf_square, _erf_gap, lambda pairs: 4.0 / math.pi / _erf_root(pairs)),
}

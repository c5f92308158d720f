"""Neural tangent kernel and Gaussian process of an infinitely wide fully connected network, in closed form.

From layer to layer `1 − cos` of the angles is propagated, not the cosine: near 1 that has lost their digits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from overparam.measure.kernels.dual_activations import DUALS, TINY, DualActivation, KnownDual, Pairs

Kind = Literal["ntk", "nngp"]
Parameterization = Literal["ntk", "standard"]
ELEMENTS = 2**20  # of a block of rows, and of the vectors whose angles are taken at a time
NEARLY_PARALLEL = 1e-4  # of 1 − |cos|, beyond which arccos keeps 14 digits


@torch.no_grad()
def analytic_ntk(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    activation: KnownDual = "relu",
    sigma_w: float = 2**0.5,
    sigma_b: float = 0.0,
    kind: Kind = "ntk",
    parameterization: Parameterization = "ntk",
    width: int | None = None,
) -> Tensor:
    """Kernel (N1, N2) of the infinitely wide network with `depth` linear layers, between two sets of inputs.

    Every layer, the first too, is `h = σ_w/√fan_in · W φ + σ_b b` with standard normal W and b. At the first layer
    `S = σ_w²/d x·x' + σ_b²` and `Θ = S`, at the others `S ← σ_w² E[φφ'] + σ_b²` and `Θ ← σ_w² E[φ̇φ̇'] Θ + S`; "ntk" is Θ
    of the last layer, "nngp" its S. Both are of one output: the blocks of a network with C outputs are `Θ ⊗ 1_C`. For
    unit inputs, relu, σ_w² = 2 and σ_b = 0 the textbook's kernel without 1/d is d/2 times this one.

    `parameterization="standard"` trains `σ_w/√fan_in · W` and `σ_b b` themselves: the weights of a layer then add
    `fan_in/σ_w²` times as much, a bias 1 instead of σ_b², or nothing if σ_b = 0. The kernel grows with the `width` that
    it is taken at and has no limit; "nngp" is the same.

    Inputs (N, …) are flattened. Float64 on the CPU. Sources: Jacot, Gabriel & Hongler (2018), Lee et al. (2018); the
    expectations are those of Cho & Saul (2009) for relu and of Williams (1997) for erf.

    Raises:
        ValueError: inputs are not finite or do not match, or an option is out of range.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> [round(float(k), 12) for k in analytic_ntk(x, depth=2)[0]]  # 2, 1/π, 0
    [2.0, 0.318309886184, 0.0]
    """
    _refuse_options(depth, activation, sigma_w, sigma_b, kind, parameterization, width)
    _refuse_inputs(x1, x2)
    first = x1.detach().cpu().double().reshape(len(x1), -1)
    second = first if x2 is None else x2.detach().cpu().double().reshape(len(x2), -1)
    factors, bias = (1.0,) * depth, sigma_b**2
    if parameterization == "standard" and kind == "ntk":
        factors = tuple(n / sigma_w**2 for n in (first.shape[1], *[width or 1] * (depth - 1)))
        bias = float(sigma_b > 0.0)
    network = _Network(DUALS[activation], sigma_w, sigma_b, factors, bias)
    return _by_rows(lambda a, b: network(a, b, kind), first, second, symmetric=x2 is None)


def learning_rate_map(lr: float, *, fan_ins: Sequence[int], sigma_w: float = 2**0.5) -> tuple[float, ...]:
    """Learning rates `lr·σ_w²/fan_in` of the layers, at which standard weights train as those of the NTK's network do.

    Gradient descent on weights drawn from `N(0, σ_w²/fan_in)` is then, step by step, that with rate `lr` on W in
    `σ_w/√fan_in · W`. A bias drawn from `N(0, σ_b²)` needs `lr·σ_b²`.

    Raises:
        ValueError: the rate or σ_w is not positive, or a fan-in is below 1.

    >>> learning_rate_map(1.0, fan_ins=(4, 8), sigma_w=2.0)
    (1.0, 0.5)
    """
    for name, value in (("lr", lr), ("sigma_w", sigma_w)):
        if not (math.isfinite(value) and value > 0.0):
            raise ValueError(f"{name} = {value}; allowed: a positive number")
    if not fan_ins or min(fan_ins) < 1:
        raise ValueError(f"fan_ins = {tuple(fan_ins)}; allowed: the number of inputs of each layer, at least 1")
    return tuple(lr * sigma_w**2 / fan_in for fan_in in fan_ins)


@dataclass(frozen=True)
class _Network:
    """The recursion over layers; `factors` and `bias` scale what weights and bias of a layer add to the NTK."""

    activation: DualActivation
    sigma_w: float
    sigma_b: float
    factors: tuple[float, ...]
    bias: float

    def __call__(self, x1: Tensor, x2: Tensor, kind: Kind) -> Tensor:
        weights = self.sigma_w**2 / x1.shape[1] * (x1 @ x2.T)
        ntk = self.factors[0] * weights + self.bias
        pairs = self._inputs(x1, x2, weights)
        for factor in self.factors[1:]:
            a, b = (self.sigma_w * self.activation.square(q).sqrt() for q in (pairs.first, pairs.second))
            gap = self.activation.gap(pairs)
            weights = a * b * (1.0 - gap)
            ntk = self.sigma_w**2 * self.activation.slope(pairs) * ntk + factor * weights + self.bias
            angle = _angle_after(a, b, gap, self.sigma_b)
            pairs = Pairs(a.square() + self.sigma_b**2, b.square() + self.sigma_b**2, angle)
        return ntk if kind == "ntk" else weights + self.sigma_b**2

    def _inputs(self, x1: Tensor, x2: Tensor, weights: Tensor) -> Pairs:
        """The bias acts as one more input, the same for all examples."""
        scale = self.sigma_w / x1.shape[1] ** 0.5
        u, v = (torch.cat([scale * x, x.new_full((len(x), 1), self.sigma_b)], dim=1) for x in (x1, x2))
        lengths = [torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(TINY) for x in (u, v)]
        cosines = (weights + self.sigma_b**2) / lengths[0] / lengths[1].T
        angles = _angles(u / lengths[0], v / lengths[1], cosines)
        return Pairs(lengths[0].square(), lengths[1].square().T, angles)


def _angles(u: Tensor, v: Tensor, cosines: Tensor) -> Tensor:
    """Of unit rows; by `2 atan2(‖u − v‖, ‖u + v‖)` (Kahan) where arccos would lose digits."""
    angles = cosines.clamp(-1.0, 1.0).acos()
    near = (1.0 - cosines.abs() < NEARLY_PARALLEL).nonzero()
    for i, j in (part.unbind(1) for part in torch.split(near, max(1, ELEMENTS // u.shape[1]))):
        apart, together = (torch.linalg.vector_norm(w, dim=1) for w in (u[i] - v[j], u[i] + v[j]))
        angles[i, j] = 2.0 * torch.atan2(apart, together)
    return angles


def _angle_after(a: Tensor, b: Tensor, gap: Tensor, bias: float) -> Tensor:
    """Angle with `cos = (ab(1 − gap) + bias²)/(pq)`, where p² = a² + bias² and q² = b² + bias².

    `pq − ab − bias² = bias²(a − b)²/(pq + ab + bias²)` (Lagrange's identity) subtracts nothing that is nearly equal.
    """
    norms = (torch.hypot(a, torch.full_like(a, bias)) * torch.hypot(b, torch.full_like(b, bias))).clamp_min(TINY)
    apart = bias**2 * (a - b).square() / (norms + a * b + bias**2) + a * b * gap
    return 2.0 * (apart / norms / 2.0).clamp(0.0, 1.0).sqrt().asin()


def _by_rows(kernel: Callable[[Tensor, Tensor], Tensor], x1: Tensor, x2: Tensor, *, symmetric: bool) -> Tensor:
    """The kernel by blocks of rows; a symmetric one is computed right of its diagonal and copied."""
    out = torch.empty(len(x1), len(x2), dtype=torch.float64, device="cpu")
    size = max(1, ELEMENTS // len(x2))
    for start in range(0, len(x1), size):
        rows, begin = slice(start, start + size), start if symmetric else 0
        block = kernel(x1[rows], x2[begin:])
        if symmetric:
            square = block[:, : len(block)]
            square.copy_(square.triu() + square.triu(1).T)
            out[begin:, rows] = block.T
        out[rows, begin:] = block
    return out


def _refuse_options(
    depth: int, activation: str, sigma_w: float, sigma_b: float, kind: str, parameterization: str, width: int | None
) -> None:
    named = (("activation", activation, KnownDual), ("kind", kind, Kind))
    for name, value, allowed in (*named, ("parameterization", parameterization, Parameterization)):
        if value not in get_args(allowed):
            raise ValueError(f'{name}="{value}"; allowed: {", ".join(f"{each!r}" for each in get_args(allowed))}')
    if depth < 1:
        raise ValueError(f"depth = {depth}; allowed: at least 1, the number of linear layers")
    if not (math.isfinite(sigma_w) and sigma_w > 0.0 and math.isfinite(sigma_b) and sigma_b >= 0.0):
        raise ValueError(f"sigma_w = {sigma_w}, sigma_b = {sigma_b}; allowed: sigma_w above 0, sigma_b 0 or above")
    if parameterization == "standard" and kind == "ntk" and (width is None or width < 1):
        raise ValueError(
            f"width = {width} in the standard parameterization, whose kernel grows with the width and has no limit; "
            'give the width of the hidden layers, or take parameterization="ntk"'
        )
    if parameterization == "ntk" and width is not None:
        raise ValueError(f'width = {width}, but the kernel of parameterization="ntk" is a limit; leave the width out')


def _refuse_inputs(x1: Tensor, x2: Tensor | None) -> None:
    for name, x in (("x1", x1), ("x2", x1 if x2 is None else x2)):
        if x.ndim < 2 or x.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; allowed: (N, …), at least one example of any shape")
        if x.is_complex() or not bool(x.isfinite().all()):
            raise ValueError(f"{name} ({x.dtype}) holds values that are not finite real numbers")
    if x2 is not None and x2.shape[1:] != x1.shape[1:]:
        raise ValueError(f"x1 and x2 hold examples of shapes {tuple(x1.shape[1:])} and {tuple(x2.shape[1:])}")

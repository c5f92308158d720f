"""Curvature as matrix-free products: Hessian, generalized Gauss–Newton, exact and empirical Fisher.

The gradient graph of each chunk of data is built once and kept; a product replays only the pass behind it. With F the
FLOPs of one forward pass, a Hessian product then costs 6F (a gradient costs 3F, a product whose graph is built anew 9F)
and a Gauss–Newton product 4F, without a second forward pass. Where all graphs would take more than `max_graph_bytes`,
the chunks beyond are built anew for every product.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from overparam.measure.problem.problem import Batch, Problem
from overparam.measure.products.derivative_check import refuse_wrong_products
from overparam.measure.products.graphs import graph_bytes, refuse_once_differentiable
from overparam.measure.products.second_order import SecondOrder

Curvature = Literal["hessian", "ggn", "fisher", "empirical_fisher"]
CURVATURES = ("hessian", "ggn", "fisher", "empirical_fisher")
T = TypeVar("T")
Product = Callable[[Tensor], Tensor]
MAX_GRAPH_BYTES = 2**31
NOT_FINITE = "the loss or a derivative of it is not finite on some example of the data"
ONCE = "products with this curvature differentiate twice, and an operation of the model can be only once"
BLOCK_UP_TO = 2**16  # parameters; small dense layers are bound by overhead, which a block of vectors shares


class Operator(Protocol):
    """A symmetric matrix of size `size`, known by its products with vectors (P,) or with the rows of (K, P)."""

    size: int
    dtype: torch.dtype
    device: torch.device
    num_products: int

    def __call__(self, vectors: Tensor) -> Tensor: ...


class MatrixOperator:
    """A dense symmetric matrix as an operator.

    >>> MatrixOperator(torch.diag(torch.tensor([2.0, 3.0])))(torch.ones(2)).tolist()
    [2.0, 3.0]
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.num_products = matrix, 0
        self.size, self.dtype, self.device = len(matrix), matrix.dtype, matrix.device

    def __call__(self, vectors: Tensor) -> Tensor:
        self.num_products += 1 if vectors.ndim == 1 else len(vectors)
        return vectors @ self.matrix


@dataclass(frozen=True)
class LinearizedChunk:
    """The products of one chunk, and the tensors whose graph they replay."""

    product: Product
    roots: Sequence[Tensor]


class CurvatureOperator:
    """`v ↦ C v` with C the chosen curvature of a problem's mean loss.

    - `hessian`: `∇²L`
    - `ggn`: `(1/N) Σ J_iᵀ S_i J_i`, with `J_i = ∂f(x_i)/∂θ` and `S_i` the Hessian of ℓ in the outputs
    - `fisher`: `(1/N) Σ E_{y∼p(y|x_i)} ∇ℓ ∇ℓᵀ`; it equals the GGN for cross-entropy and for mse (Gaussian, variance 1)
    - `empirical_fisher`: `(1/N) Σ ∇ℓ_i ∇ℓ_iᵀ` at the given labels

    Where PyTorch has no second derivative of an operation, Hessian products are central differences of gradients, and
    `fallback` is what PyTorch said; else it is `None`. `check` tries products on four examples.

    Raises:
        ValueError: products are wrong or not symmetric, or an operation cannot be differentiated twice.
    """

    def __init__(
        self,
        problem: Problem,
        curvature: Curvature = "hessian",
        *,
        max_graph_bytes: int = MAX_GRAPH_BYTES,
        check: bool = True,
    ) -> None:
        refuse_unknown_curvature(curvature)
        if curvature == "fisher" and not isinstance(problem.loss, str):
            raise ValueError('the exact Fisher needs a loss that is a likelihood: "cross_entropy" or "mse"')
        self.problem, self.curvature = problem, curvature
        self.size, self.dtype, self.device = problem.num_parameters, problem.theta.dtype, problem.theta.device
        self.num_products = 0
        self.fallback: str | None = None
        self.kept: list[LinearizedChunk | Batch] = []
        self._try(lambda: self._keep(max_graph_bytes))
        if check and self.fallback is None:
            hessian = curvature == "hessian"
            refuse_wrong_products(problem, _hessian_of if hessian else _squares_of, hessian)

    def __call__(self, vectors: Tensor) -> Tensor:
        self.num_products += 1 if vectors.ndim == 1 else len(vectors)
        found = None if self.fallback else self._try(lambda: self._sum(vectors))
        found = self._differences(vectors) if found is None else found / self.problem.num_examples
        if not bool(found.isfinite().all()):
            raise ValueError(NOT_FINITE)
        return found

    def _sum(self, vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for kept in self.kept:
            total += (self._linearized(kept) if isinstance(kept, tuple) else kept).product(vectors)
        return total

    def _keep(self, max_graph_bytes: int) -> None:
        """Keep the graphs of the first chunks, as many as fit; the rest of the chunks stay as they are."""
        held = 0
        for chunk in self.problem.chunks:
            linear = self._linearized(chunk) if held <= max_graph_bytes else None
            held += 0 if linear is None else graph_bytes(linear.roots)
            self.kept.append(chunk if linear is None or held > max_graph_bytes else linear)

    def graph_bytes(self, chunk: Batch) -> int:
        """Bytes that the graph of a chunk holds."""
        return graph_bytes(self._linearized(chunk).roots)

    def _linearized(self, chunk: Batch) -> LinearizedChunk:
        if self.curvature == "hessian":
            return hessian_product(self.problem, chunk)
        return gauss_newton_product(self.problem, chunk, of_losses=self.curvature == "empirical_fisher")

    def _try(self, action: Callable[[], T]) -> T | None:
        """The result, or `None` if an operation turns out to have no second derivative."""
        try:
            return action()
        except (RuntimeError, NotImplementedError) as error:
            if not _lacks_derivative(error):
                raise
            if self.curvature != "hessian":
                raise ValueError(f"{ONCE}: {str(error).splitlines()[0]}") from error
            self.fallback, self.kept = str(error).splitlines()[0], []
            return None

    def _differences(self, vectors: Tensor) -> Tensor:
        if vectors.ndim == 2:
            return torch.stack([central_difference(self.problem, vector) for vector in vectors])
        return central_difference(self.problem, vectors)


def refuse_unknown_curvature(curvature: str) -> None:
    if curvature not in CURVATURES:
        raise ValueError(f'unknown curvature "{curvature}"; allowed: {", ".join(CURVATURES)}')


def _hessian_of(problem: Problem) -> Product:
    product, count = hessian_product(problem, problem.chunks[0]).product, problem.num_examples
    return lambda vectors: product(vectors) / count


def _squares_of(problem: Problem) -> Product:
    """`v ↦ JᵀJv/n`: what every curvature but the Hessian is made of."""
    problem = replace(problem, loss="mse")
    product, count = gauss_newton_product(problem, problem.chunks[0], of_losses=False).product, problem.num_examples
    return lambda vectors: product(vectors) / count


def _lacks_derivative(error: Exception) -> bool:
    text = str(error)
    return any(sign in text for sign in ("derivative for", "differentiate twice", "double backward"))


def hessian_product(problem: Problem, chunk: Batch) -> LinearizedChunk:
    """`v ↦ Σ_chunk ∇²ℓ_i v`, from one gradient graph that is kept: reverse over reverse."""
    x, y = chunk
    leaves = problem.leaves()
    with SecondOrder() as forms:
        loss = problem.losses(problem.outputs(leaves, x), y).sum()
    names, curved = _gradients(loss, leaves)
    if not curved:  # a loss that is linear in the parameters, or does not depend on them
        return LinearizedChunk(torch.zeros_like, [])

    def product(vectors: Tensor) -> Tensor:
        parts = problem.layout.split(vectors)
        return _pulled_back(curved, leaves, [parts[name] for name in names], batched=vectors.ndim == 2)

    return LinearizedChunk(_blockwise(product, problem, forms), curved)


def gauss_newton_product(problem: Problem, chunk: Batch, *, of_losses: bool) -> LinearizedChunk:
    """`v ↦ Σ_chunk J_iᵀ S_i J_i v`; with `of_losses` the outputs are the losses themselves and S = 1.

    `J v` is the derivative of `w ↦ Jᵀ w` along v, so that one kept graph gives both `J v` and `Jᵀ u`.
    """
    x, y = chunk
    leaves = problem.leaves()
    with SecondOrder(twice=False) as forms:
        outputs = problem.outputs(leaves, x)
        outputs = problem.losses(outputs, y) if of_losses else outputs
    inner = (lambda u: u) if of_losses else output_curvature(problem, outputs.detach(), y)
    dual = torch.zeros_like(outputs, requires_grad=True)
    names, moving = _gradients(outputs, leaves, dual)
    if not moving:
        return LinearizedChunk(torch.zeros_like, [])

    def product(vectors: Tensor) -> Tensor:
        parts, batched = problem.layout.split(vectors), vectors.ndim == 2
        tangents = [parts[name] for name in names]
        (pushed,) = torch.autograd.grad(moving, dual, tangents, retain_graph=True, is_grads_batched=batched)
        turned = torch.vmap(inner)(pushed) if batched else inner(pushed)
        return _pulled_back([outputs], leaves, [turned], batched)

    return LinearizedChunk(_blockwise(product, problem, forms), [outputs, *moving])


def _blockwise(product: Product, problem: Problem, forms: SecondOrder) -> Product:
    """Several vectors one after the other, where one traversal for all is slower (measured in bench/blocks.py), fails
    or, for the first block, does not give what its first vector alone gives: PyTorch batches some operations wrongly.
    """
    together = not forms.unbatched and problem.num_parameters <= BLOCK_UP_TO
    trusted = False

    def blocks(vectors: Tensor) -> Tensor:
        nonlocal together, trusted
        if vectors.ndim == 1:
            return product(vectors)
        if together:
            found = _at_once(product, vectors)
            together = found is not None and (trusted or _alike(found[0], product(vectors[0])))
            if found is not None and together:
                trusted = True
                return found
        return torch.stack([product(vector) for vector in vectors])

    return blocks


def _at_once(product: Product, vectors: Tensor) -> Tensor | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # slow batching rules, which are still right
        try:
            return product(vectors)
        except RuntimeError:  # torch has no narrower name for what it cannot batch
            return None


def _alike(found: Tensor, alone: Tensor) -> bool:
    return bool(torch.linalg.vector_norm(found - alone) <= torch.finfo(alone.dtype).eps ** 0.6 * alone.norm())


def _gradients(
    outputs: Tensor, leaves: dict[str, Tensor], cotangent: Tensor | None = None
) -> tuple[list[str], list[Tensor]]:
    """Gradients that can be differentiated again, and the names of their parameters."""
    if not outputs.requires_grad:
        return [], []
    refuse_once_differentiable(outputs)
    parts = torch.autograd.grad(outputs, tuple(leaves.values()), cotangent, create_graph=True, allow_unused=True)
    if cotangent is not None:
        _refuse_cut_off(dict(zip(leaves, parts, strict=True)))
    found = {name: part for name, part in zip(leaves, parts, strict=True) if part is not None and part.requires_grad}
    return list(found), list(found.values())


def _refuse_cut_off(parts: dict[str, Tensor | None]) -> None:
    """`Jᵀw` depends on w for every parameter; where autograd does not see it, `Jv` would lack that parameter."""
    cut = [name for name, part in parts.items() if part is not None and not part.requires_grad]
    if cut:
        raise ValueError(
            f"the backward pass of some operation after {', '.join(cut)} hides that it depends on what comes back to "
            "it (an autograd function of your own that runs without gradients?); write the operation in plain PyTorch"
        )


def _pulled_back(outputs: list[Tensor], leaves: dict[str, Tensor], cotangents: list[Tensor], batched: bool) -> Tensor:
    parts = torch.autograd.grad(
        outputs, tuple(leaves.values()), cotangents, retain_graph=True, is_grads_batched=batched, allow_unused=True
    )
    lead = (len(cotangents[0]),) if batched else ()
    pairs = zip(parts, leaves.values(), strict=True)
    filled = [leaf.new_zeros(*lead, leaf.numel()) if part is None else part.reshape(*lead, -1) for part, leaf in pairs]
    return torch.cat(filled, dim=-1)


def output_curvature(problem: Problem, outputs: Tensor, y: Tensor) -> Product:
    """`u ↦ S u` with S the Hessian of the summed losses in the outputs (n, C).

    Softmax: `(S u)_i = p_i (d_i − Σ_j p_j d_j)` with `d = u − u_top`; the shift by the likeliest class changes nothing
    in exact arithmetic and keeps the digits where p is nearly one-hot.
    """
    if problem.loss == "mse":
        return lambda u: u
    if problem.loss == "cross_entropy":
        p, top = F.softmax(outputs, dim=1), outputs.argmax(1, keepdim=True)
        return lambda u: _softmax_product(p, u - u.gather(1, top))
    leaf = outputs.clone().requires_grad_()
    total = problem.losses(leaf, y).sum()
    refuse_once_differentiable(total)
    (slope,) = torch.autograd.grad(total, leaf, create_graph=True)
    if not slope.requires_grad:
        return torch.zeros_like
    return lambda u: _first(torch.autograd.grad(slope, leaf, u, retain_graph=True, materialize_grads=True))


def _first(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0]


def _softmax_product(p: Tensor, d: Tensor) -> Tensor:
    return p * (d - (p * d).sum(1, keepdim=True))


def central_difference(problem: Problem, vector: Tensor) -> Tensor:
    """`(∇L(θ + hv) − ∇L(θ − hv)) / 2h` with h ≈ (machine ε)^(1/3)·(1 + ‖θ‖)/‖v‖: error O(h²) plus rounding O(ε/h)."""
    norm = float(vector.norm())
    if norm == 0.0:
        return torch.zeros_like(vector)
    h = torch.finfo(vector.dtype).eps ** (1 / 3) * (1.0 + float(problem.theta.norm())) / norm
    ahead, behind = (problem.gradient(problem.theta + step * vector) for step in (h, -h))
    return (ahead - behind).div(2 * h)


def dense(operator: Operator, *, rows: int = 64) -> Tensor:
    """The whole matrix (P, P), symmetrized, by products with the unit vectors, `rows` at a time.

    Raises:
        ValueError: P is above 8,192; the matrix would take more than half a gigabyte.

    >>> dense(MatrixOperator(torch.diag(torch.tensor([2.0, 3.0])))).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    if operator.size > 8192:
        raise ValueError(f"a dense matrix of {operator.size:,} parameters is too large; allowed: at most 8,192")
    identity = torch.eye(operator.size, dtype=operator.dtype, device=operator.device)
    matrix = torch.cat([operator(part) for part in torch.split(identity, rows)])
    return (matrix + matrix.T) / 2

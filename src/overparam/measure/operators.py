"""Curvature as matrix-free products: Hessian, generalized Gauss–Newton, exact and empirical Fisher.

The gradient graph of each chunk of data is built once and kept; a product replays only the pass behind it. With F the
FLOPs of one forward pass, a Hessian product then costs 6F (a gradient costs 3F, a product whose graph is built anew 9F)
and a Gauss–Newton product 4F, without a second forward pass. Where all graphs would take more than `max_graph_bytes`,
the chunks beyond are built anew for every product.
"""

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from overparam.measure.convolution import SecondOrder
from overparam.measure.problem import Batch, Problem

Curvature = Literal["hessian", "ggn", "fisher", "empirical_fisher"]
CURVATURES = ("hessian", "ggn", "fisher", "empirical_fisher")
T = TypeVar("T")
Product = Callable[[Tensor], Tensor]
MAX_GRAPH_BYTES = 2**31
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


class CurvatureOperator:
    """`v ↦ C v` with C the chosen curvature of a problem's mean loss.

    - `hessian`: `∇²L`
    - `ggn`: `(1/N) Σ J_iᵀ S_i J_i`, with `J_i = ∂f(x_i)/∂θ` and `S_i` the Hessian of ℓ in the outputs
    - `fisher`: `(1/N) Σ E_{y∼p(y|x_i)} ∇ℓ ∇ℓᵀ`; it equals the GGN for cross-entropy and for mse (Gaussian, variance 1)
    - `empirical_fisher`: `(1/N) Σ ∇ℓ_i ∇ℓ_iᵀ` at the given labels

    Where PyTorch has no second derivative of an operation, Hessian products are central differences of gradients, and
    `fallback` is what PyTorch said; else it is `None`.
    """

    def __init__(
        self, problem: Problem, curvature: Curvature = "hessian", *, max_graph_bytes: int = MAX_GRAPH_BYTES
    ) -> None:
        if curvature not in CURVATURES:
            raise ValueError(f'unknown curvature "{curvature}"; allowed: {", ".join(CURVATURES)}')
        if curvature == "fisher" and not isinstance(problem.loss, str):
            raise ValueError('the exact Fisher needs a loss that is a likelihood: "cross_entropy" or "mse"')
        self.problem, self.curvature = problem, curvature
        self.size, self.dtype, self.device = problem.num_parameters, problem.theta.dtype, problem.theta.device
        self.num_products = 0
        self.fallback: str | None = None
        self.kept: list[Product | Batch] = []
        self._try(lambda: self._keep(max_graph_bytes))

    def __call__(self, vectors: Tensor) -> Tensor:
        self.num_products += 1 if vectors.ndim == 1 else len(vectors)
        found = None if self.fallback else self._try(lambda: self._sum(vectors))
        return self._differences(vectors) if found is None else found / self.problem.num_examples

    def _sum(self, vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for kept in self.kept:
            total += (self._linearized(kept) if isinstance(kept, tuple) else kept)(vectors)
        return total

    def _keep(self, max_graph_bytes: int) -> None:
        chunks = self.problem.chunks
        graphs = len(chunks) if len(chunks) == 1 else max_graph_bytes // max(1, self.graph_bytes(chunks[0]))
        self.kept = [self._linearized(chunk) if i < graphs else chunk for i, chunk in enumerate(chunks)]

    def graph_bytes(self, chunk: Batch) -> int:
        """Bytes that the graph of a chunk holds."""
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()  # an output that holds its own graph would never be freed

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._linearized(chunk)
        return sum(storages.values())

    def _linearized(self, chunk: Batch) -> Product:
        if self.curvature == "hessian":
            return hessian_product(self.problem, chunk)
        return gauss_newton_product(self.problem, chunk, of_losses=self.curvature == "empirical_fisher")

    def _try(self, action: Callable[[], T]) -> T | None:
        """The result, or `None` if an operation turns out to have no second derivative."""
        try:
            return action()
        except (RuntimeError, NotImplementedError) as error:
            if self.curvature != "hessian" or not _lacks_derivative(error):
                raise
            self.fallback, self.kept = str(error).splitlines()[0], []
            return None

    def _differences(self, vectors: Tensor) -> Tensor:
        if vectors.ndim == 2:
            return torch.stack([central_difference(self.problem, vector) for vector in vectors])
        return central_difference(self.problem, vectors)


def _lacks_derivative(error: Exception) -> bool:
    text = str(error)
    return "derivative for" in text or "once_differentiable" in text or "double backward" in text.lower()


def hessian_product(problem: Problem, chunk: Batch) -> Product:
    """`v ↦ Σ_chunk ∇²ℓ_i v`, from one gradient graph that is kept: reverse over reverse."""
    x, y = chunk
    leaves = problem.leaves()
    with SecondOrder() as forms:
        loss = problem.losses(problem.outputs(leaves, x), y).sum()
    grads = torch.autograd.grad(loss, tuple(leaves.values()), create_graph=True, materialize_grads=True)
    names = [name for name, grad in zip(leaves, grads, strict=True) if grad.requires_grad]
    curved = [grad for grad in grads if grad.requires_grad]

    def product(vectors: Tensor) -> Tensor:
        if not curved:  # a loss that is linear in the parameters
            return torch.zeros_like(vectors)
        parts = problem.layout.split(vectors)
        return _pulled_back(curved, leaves, [parts[name] for name in names], batched=vectors.ndim == 2)

    return _rowwise(product) if forms.seen or problem.num_parameters > BLOCK_UP_TO else product


def gauss_newton_product(problem: Problem, chunk: Batch, *, of_losses: bool) -> Product:
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
    back = torch.autograd.grad(outputs, tuple(leaves.values()), dual, create_graph=True, materialize_grads=True)
    names = [name for name, grad in zip(leaves, back, strict=True) if grad.requires_grad]
    moving = [grad for grad in back if grad.requires_grad]

    def product(vectors: Tensor) -> Tensor:
        parts, batched = problem.layout.split(vectors), vectors.ndim == 2
        tangents = [parts[name] for name in names]
        (pushed,) = torch.autograd.grad(moving, dual, tangents, retain_graph=True, is_grads_batched=batched)
        turned = torch.vmap(inner)(pushed) if batched else inner(pushed)
        return _pulled_back([outputs], leaves, [turned], batched)

    return _rowwise(product) if forms.seen or problem.num_parameters > BLOCK_UP_TO else product


def _rowwise(product: Product) -> Product:
    """Several vectors one after the other, where one traversal for all is slower (measured in bench/curvature.py)."""
    return lambda vectors: product(vectors) if vectors.ndim == 1 else torch.stack([product(v) for v in vectors])


def _pulled_back(outputs: list[Tensor], leaves: dict[str, Tensor], cotangents: list[Tensor], batched: bool) -> Tensor:
    parts = torch.autograd.grad(
        outputs,
        tuple(leaves.values()),
        cotangents,
        retain_graph=True,
        is_grads_batched=batched,
        materialize_grads=True,
    )
    lead = (len(cotangents[0]),) if batched else ()
    return torch.cat([part.reshape(*lead, -1) for part in parts], dim=-1)


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
    (slope,) = torch.autograd.grad(problem.losses(leaf, y).sum(), leaf, create_graph=True)
    if not slope.requires_grad:
        return torch.zeros_like
    return lambda u: _first(torch.autograd.grad(slope, leaf, u, retain_graph=True))


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

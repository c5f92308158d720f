"""Right values by plain PyTorch: double backward and loops on a twin of the network, none of overparam's own code.

The twin is in float64 and its own parameters are the leaves: nothing is swapped, so that tied and shared weights are
what PyTorch takes them for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from tests.support.foreign.network import F64, Foreign, in_eval, plain_kernels, tensor_of

DENSE = 250  # parameters up to which the Hessian is formed
STEP = 1e-5  # of differences, where an operation has no second derivative


class Reference:
    """Loss, gradient, Hessian products and Jacobian of one network on its data."""

    def __init__(self, network: Foreign) -> None:
        self.network, self.model = network, network.born().double()
        _with_true_gradients(self.model)
        x, self.y = network.batch()
        self.x = x.double() if x.is_floating_point() else x
        self.named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.leaves = list(self.named.values())
        self.theta = flat([p.detach() for p in self.leaves])

    @property
    def size(self) -> int:
        return len(self.theta)

    def outputs(self) -> Tensor:
        with in_eval(self.model), plain_kernels():
            return tensor_of(self.model(self.x.clone())).to(F64)

    def losses(self) -> Tensor:
        return F.cross_entropy(self.outputs(), self.y, reduction="none")

    @contextmanager
    def moved(self, theta: Tensor) -> Iterator[None]:
        """The twin at other weights."""
        self._put(theta)
        try:
            yield
        finally:
            self._put(self.theta)

    @torch.no_grad()
    def _put(self, theta: Tensor) -> None:
        for leaf, part in zip(self.leaves, torch.split(theta, [p.numel() for p in self.leaves]), strict=True):
            leaf.copy_(part.reshape(leaf.shape))

    @torch.no_grad()
    def loss_at(self, theta: Tensor) -> float:
        with self.moved(theta):
            return float(self.losses().mean())

    def gradient_at(self, theta: Tensor) -> Tensor:
        with self.moved(theta):
            return self._flat_gradient(self.losses().mean())

    def _flat_gradient(self, value: Tensor, create_graph: bool = False) -> Tensor:
        grads = torch.autograd.grad(
            value, self.leaves, retain_graph=True, create_graph=create_graph, materialize_grads=True
        )
        return flat(grads)

    @cached_property
    def gradient(self) -> Tensor:
        return self._slope.detach()

    @cached_property
    def _slope(self) -> Tensor:
        return self._flat_gradient(self.losses().mean(), create_graph=True)

    @cached_property
    def _product(self) -> Callable[[Tensor], Tensor]:
        """By double backward, or by differences of gradients where PyTorch has no second derivative or a false one."""
        v, u = torch.randn(2, self.size, dtype=F64, generator=torch.Generator().manual_seed(7))
        try:
            apart = abs(float(u @ self._twice(v) - v @ self._twice(u)))
            near = torch.linalg.vector_norm(self._twice(v) - self._difference(v))
            if apart < 1e-3 and float(near) < 1e-3 * float(torch.linalg.vector_norm(self._twice(v))):
                return self._twice
        except RuntimeError:
            pass
        return self._difference

    @property
    def by_differences(self) -> bool:
        return self._product == self._difference

    def _twice(self, v: Tensor) -> Tensor:
        if not self._slope.requires_grad:
            return torch.zeros_like(v)
        return flat(
            torch.autograd.grad(self._slope, self.leaves, grad_outputs=v, retain_graph=True, materialize_grads=True)
        )

    def _difference(self, v: Tensor) -> Tensor:
        h = STEP / float(torch.linalg.vector_norm(v))
        return (self.gradient_at(self.theta + h * v) - self.gradient_at(self.theta - h * v)) / (2 * h)

    def products(self, rows: Tensor) -> Tensor:
        """Rows `H v`."""
        return torch.stack([self._product(row) for row in rows])

    @cached_property
    def dense(self) -> Tensor | None:
        """The Hessian, of a network that is small enough."""
        return self.products(torch.eye(self.size, dtype=F64)) if self.size <= DENSE else None

    @cached_property
    def ends(self) -> tuple[float, float]:
        """λmax and λmin of the Hessian: of the matrix itself, or by ARPACK."""
        if self.dense is not None:
            values = torch.linalg.eigvalsh(self.dense)
            return float(values[-1]), float(values[0])
        operator = LinearOperator(
            (self.size, self.size), matvec=lambda v: self._product(torch.from_numpy(v).flatten()).numpy(), dtype=float
        )
        start = torch.randn(self.size, dtype=F64, generator=torch.Generator().manual_seed(11)).numpy()
        values = eigsh(operator, k=2, which="BE", tol=1e-7, v0=start, ncv=40, return_eigenvectors=False)
        return float(max(values)), float(min(values))

    @cached_property
    def jacobian(self) -> Tensor:
        """`∂f(x_i)/∂θ`, (N, C, P), by one backward pass per output."""
        outputs = self.outputs()
        rows = [self._flat_gradient(value) for value in outputs.reshape(-1)]
        return torch.stack(rows).reshape(*outputs.shape, -1)

    @cached_property
    def loss_gradients(self) -> Tensor:
        """Gradients of each example's loss, (N, P)."""
        return torch.stack([self._flat_gradient(value) for value in self.losses()])

    @cached_property
    def ggn_rows(self) -> Tensor:
        """M with `GGN = MᵀM`, (N·C, P)."""
        p = F.softmax(self.outputs().detach(), 1)
        values, vectors = torch.linalg.eigh(torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1))
        root = vectors * values.clamp_min(0.0).sqrt().unsqueeze(1)  # R with R Rᵀ the softmax's Hessian
        rows: Tensor = torch.einsum("nca,ncp->nap", root, self.jacobian).flatten(0, 1)
        return rows.div(len(p) ** 0.5)

    @cached_property
    def kernel(self) -> Tensor:
        found: Tensor = torch.einsum("iap,jbp->ijab", self.jacobian, self.jacobian)
        return found


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def _with_true_gradients(model: nn.Module) -> None:
    """What an embedding does to its gradient for training's sake is no derivative; the outputs are the same without."""
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = module.scale_grad_by_freq = False

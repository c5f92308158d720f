"""Right values by plain PyTorch: double backward and loops on a twin of the network, none of overparam's own code.

The twin is in float64 and its own parameters are the leaves: nothing is swapped, so that tied and shared weights are
what PyTorch takes them for.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from tests.support.foreign.network import F64, Foreign, in_eval, plain_kernels, tensor_of

DENSE = 250  # parameters up to which the Hessian is formed
STEP = 1e-4  # of differences, where an operation has no second derivative
STEPS = (
    1e-2,
    1e-3,
    1e-4,
    1e-5,
    1e-6,
    1e-7,
)  # of checks: kinks lie within the long ones, float32 rounds too much for the short ones
FALSE = 1e-4  # the share by which a false second derivative differs: that of PyTorch's weight_norm does by 1e-2
ROUNDED = 0.05  # the same where the network rounds to float32, whatever it is in
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


class Reference:
    """Loss, gradient, Hessian products and Jacobian of one network on its data."""

    def __init__(self, network: Foreign) -> None:
        self.network = network
        self.model, self.moving = (twin_of(network) for _ in range(2))  # moving one would spoil the graphs of the other
        x, self.y = network.batch()
        self.x = x.double() if x.is_floating_point() else x
        self.named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.leaves = list(self.named.values())
        self.theta = flat([p.detach() for p in self.leaves])

    @property
    def size(self) -> int:
        return len(self.theta)

    def outputs(self, model: nn.Module | None = None) -> Tensor:
        chosen = self.model if model is None else model
        with in_eval(chosen), plain_kernels():
            return tensor_of(chosen(self.x.clone())).to(F64)

    def losses(self, model: nn.Module | None = None) -> Tensor:
        return F.cross_entropy(self.outputs(model), self.y, reduction="none")

    def moved(self, theta: Tensor) -> nn.Module:
        """The other twin, at these weights."""
        leaves = [p for p in self.moving.parameters() if p.requires_grad]
        with torch.no_grad():
            for leaf, part in zip(leaves, torch.split(theta, [p.numel() for p in leaves]), strict=True):
                leaf.copy_(part.reshape(leaf.shape))
        return self.moving

    @torch.no_grad()
    def loss_at(self, theta: Tensor) -> float:
        return float(self.losses(self.moved(theta)).mean())

    def gradient_at(self, theta: Tensor) -> Tensor:
        model = self.moved(theta)
        leaves = [p for p in model.parameters() if p.requires_grad]
        return flat(torch.autograd.grad(self.losses(model).mean(), leaves, materialize_grads=True))

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
        v = torch.randn(self.size, dtype=F64, generator=torch.Generator().manual_seed(7)) * self._moves
        try:
            twice = self._twice(v)
        except RuntimeError:
            return self._difference
        apart = min(float(torch.linalg.vector_norm(twice - self._difference(v, step))) for step in STEPS)
        allowed = ROUNDED if self.network.tolerance > 1e-5 else FALSE
        return self._twice if apart <= allowed * float(torch.linalg.vector_norm(twice)) else self._difference

    @cached_property
    def _moves(self) -> Tensor:
        """1, and 0 in rows of embeddings that PyTorch gives no gradient, though the outputs depend on them."""
        still = {id(m.weight): m.padding_idx for m in self.model.modules() if isinstance(m, EMBEDDINGS)}
        parts = [torch.ones_like(leaf) for leaf in self.leaves]
        for leaf, part in zip(self.leaves, parts, strict=True):
            if (row := still.get(id(leaf))) is not None:
                part[row] = 0.0
        return flat(parts).detach()

    @property
    def by_differences(self) -> bool:
        return self._product == self._difference

    def _twice(self, v: Tensor) -> Tensor:
        if not self._slope.requires_grad:
            return torch.zeros_like(v)
        return flat(
            torch.autograd.grad(self._slope, self.leaves, grad_outputs=v, retain_graph=True, materialize_grads=True)
        )

    def _difference(self, v: Tensor, step: float = STEP) -> Tensor:
        h = step / float(torch.linalg.vector_norm(v))
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


def twin_of(network: Foreign) -> nn.Module:
    """The network in float64, without what an embedding does to its gradient for training's sake."""
    found = network.born(twin=True).double()
    for module in found.modules():
        if isinstance(module, EMBEDDINGS):
            module.sparse = module.scale_grad_by_freq = False
    return found

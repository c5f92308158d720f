"""Networks of every kind of layer, and their tangent kernel by automatic differentiation, example by example."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from overparam.models.build import build
from overparam.specs import CNN, MLP


def jacobian_rows(model: nn.Module, x: Tensor) -> Tensor:
    """`∂f_c(x_i)/∂θ`, (N, C, P), one backward pass for each."""
    chosen = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    rows = []
    for i in range(len(x)):
        leaves = {name: value.clone().requires_grad_() for name, value in chosen.items()}
        outputs = functional_call(model, leaves, (x[i : i + 1],)).reshape(-1)
        for output in outputs:
            parts = torch.autograd.grad(output, tuple(leaves.values()), retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows).view(len(x), -1, rows[0].numel())


def jacobian_kernel(model: nn.Module, x1: Tensor, x2: Tensor) -> Tensor:
    """All blocks (N1, N2, C, C)."""
    return torch.einsum("iap,jbp->ijab", jacobian_rows(model, x1), jacobian_rows(model, x2))


class Residual(nn.Module):
    """Convolutions, some in groups, batch and group norm, an addition and an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.group = nn.GroupNorm(2, 8)
        self.strided = nn.Conv2d(8, 6, 3, stride=2, dilation=2, padding=2, padding_mode="circular")
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu_(self.norm(self.first(x)))
        hidden = hidden + self.group(self.inner(hidden))
        out: Tensor = self.head(self.strided(hidden).tanh().mean((2, 3)))
        return out


class Transformer(nn.Module):
    """Token and position embeddings, one encoder layer, a head; tokens first or folded into the batch if asked for."""

    def __init__(self, time_first: bool = False, folded: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 16, padding_idx=0)
        self.positions = nn.Parameter(torch.linspace(-1, 1, 6 * 16).reshape(6, 16))
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=not time_first, dropout=0.1)
        self.norm = nn.RMSNorm(16)
        self.head = nn.Linear(16, 4)
        self.time_first, self.folded = time_first, folded
        causal = torch.ones(6, 6, dtype=torch.bool).triu(1)
        self.register_buffer("causal", causal)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.tokens(ids) + self.positions
        hidden = hidden.transpose(0, 1) if self.time_first else hidden
        hidden = self.encoder(hidden, src_mask=self.causal)
        hidden = self.norm(hidden.transpose(0, 1) if self.time_first else hidden)
        hidden = hidden.reshape(-1, 16) if self.folded else hidden
        out: Tensor = self.head(hidden).reshape(len(ids), 6, 4).mean(1)
        return out


class Tied(nn.Module):
    """One layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.twice(torch.relu(self.twice(x)))))
        return out


class Recurrent(nn.Module):
    """An LSTM, which no structure is known of."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cell(x)[0][:, -1])
        return out


def _settled(model: nn.Module, *shape: int) -> nn.Module:
    """Eval mode, after a pass that gives batch norms running statistics of their own."""
    model.train()(torch.randn(16, *shape, generator=torch.Generator().manual_seed(3)))
    return model.eval()


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def _ids() -> Tensor:
    return torch.randint(0, 11, (5, 6), generator=torch.Generator().manual_seed(5))


def _built(spec: MLP | CNN, *shape: int) -> nn.Module:
    return build(spec, shape, 3, generator=torch.Generator().manual_seed(1))


def _biased(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, generator=torch.Generator().manual_seed(2))
    return model


# Name → model, inputs, and the prefixes of its parameters that have no structure.
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor, tuple[str, ...]]]] = {
    "mlp": lambda: (_built(MLP(width=16), 7), _normal(5, 7), ()),
    "ntk parameterization": lambda: (_biased(_built(MLP(width=16, parameterization="ntk"), 7)), _normal(5, 7), ()),
    "erf without biases": lambda: (_built(MLP(width=8, activation="erf", bias=False), 7), _normal(5, 7), ()),
    "batch norm cnn": lambda: (_settled(_built(CNN(channels=2), 3, 8, 8), 3, 8, 8), _normal(4, 3, 8, 8), ()),
    "cnn of signals": lambda: (_settled(_built(CNN(channels=2), 16), 16), _normal(4, 16), ()),
    "residual": lambda: (_settled(Residual(), 3, 8, 8), _normal(4, 3, 8, 8), ()),
    "transformer": lambda: (Transformer().eval(), _ids(), ("positions",)),
    "transformer, tokens first": lambda: (Transformer(time_first=True).eval(), _ids(), ("positions",)),
    "transformer, tokens folded": lambda: (Transformer(folded=True).eval(), _ids(), ("positions",)),
    "tied": lambda: (Tied(), _normal(5, 6), ("twice",)),
    "recurrent": lambda: (Recurrent(), _normal(4, 3, 4), ("cell",)),
    "weight norm": lambda: (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 3)),
        _normal(5, 6),
        ("0.parametrizations",),
    ),
    "batch norm of vectors": lambda: (
        _settled(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 2)), 6),
        _normal(5, 6),
        (),
    ),
    "prelu and layer norm": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.LayerNorm(8), nn.Linear(8, 2)),
        _normal(5, 6),
        ("1",),
    ),
    "frozen layer": lambda: (
        nn.Sequential(nn.Linear(6, 8).requires_grad_(False), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0)),
        _normal(5, 6),
        (),
    ),
}

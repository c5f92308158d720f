"""Networks that train beside a frozen copy of what they were at initialization."""

from copy import deepcopy
from typing import Literal

from torch import Tensor, nn
from torch.func import functional_call

from overparam.models.taylor.derivative import derivative_along

INITIAL = "initial"  # the frozen copy; its tensors are buffers named initial.…


class Anchored(nn.Module):
    """Trainable parameters with the network's own names, and beside them its frozen initial copy.

    Parameters of the copy are buffers, so that a state holds them: a run goes on from any of its states with the same
    θ0, bit for bit, whatever the weights of the module were that the state is put into.

    Raises:
        ValueError: the network shares a parameter between layers, or has a part named "initial".
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        _refuse(network)
        own = {name: value.detach().clone() for name, value in network.named_parameters()}
        self.names = tuple(own)
        self.initial = frozen(network)
        for name, value in own.items():
            attach(self, name, nn.Parameter(value))

    def parts(self) -> dict[str, Tensor]:
        """θ by name, as it is now."""
        return dict(self.named_parameters())

    def start(self) -> dict[str, Tensor]:
        """θ0 by name."""
        everything = dict(self.initial.named_buffers())
        return {name: everything[name] for name in self.names}


class Linearized(Anchored):
    """First-order Taylor model of a network around its initialization θ0: `f_θ0(x) + J_θ0(x)(θ − θ0)`.

    The network is in eval mode whatever the mode of the module: a batch norm is the affine map that its initial running
    statistics make it, and they never move. Gradients in θ are exact, `Jᵀ ∂ℓ/∂f`.

    Source: Lee, Xiao, Schoenholz, Bahri, Novak, Sohl-Dickstein & Pennington (2019), section 2.2.

    >>> import torch
    >>> model = Linearized(nn.Linear(1, 1, bias=False))
    >>> with torch.no_grad():
    ...     _ = model.weight.fill_(2.0)
    >>> round(model(torch.tensor([[3.0]])).item(), 4), [name for name, _ in model.named_parameters()]
    (6.0, ['weight'])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.initial.eval()

    def train(self, mode: bool = True) -> "Linearized":
        super().train(mode)
        self.initial.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        value, slope = self.expanded(x)
        return value + slope

    def expanded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`f_θ0(x)` and `J_θ0(x)(θ − θ0)`."""
        parts, start = self.parts(), self.start()

        def function(theta: object) -> Tensor:
            out: Tensor = functional_call(self.initial, theta, (x,))  # type: ignore[arg-type]
            return out

        return derivative_along(function, start, {name: parts[name] - start[name] for name in self.names})


def frozen(network: nn.Module) -> nn.Module:
    """A copy whose parameters are buffers."""
    copy = deepcopy(network)
    for module in copy.modules():
        for name in [name for name, value in module.named_parameters(recurse=False) if value is not None]:
            value = module._parameters.pop(name)
            assert value is not None
            module.register_buffer(name, value.detach())
    return copy


def attach(root: nn.Module, name: str, value: Tensor, kind: Literal["buffer", "parameter"] = "parameter") -> None:
    """Register a tensor under a dotted name; modules that hold nothing else are put in between.

    >>> root = nn.Module()
    >>> attach(root, "body.0.weight", nn.Linear(1, 1).weight)
    >>> [name for name, _ in root.named_parameters()]
    ['body.0.weight']
    """
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if kind == "buffer":
        root.register_buffer(leaf, value)
    else:
        root.register_parameter(leaf, value if isinstance(value, nn.Parameter) else nn.Parameter(value))


def _refuse(network: nn.Module) -> None:
    distinct = {name for name, _ in network.named_parameters()}
    if shared := [name for name, _ in network.named_parameters(remove_duplicate=False) if name not in distinct]:
        raise ValueError(f'"{shared[0]}" is a parameter of two layers; only networks without shared ones are held')
    if any(name.partition(".")[0] == INITIAL for name in network.state_dict()):
        raise ValueError(f'the network has a part named "{INITIAL}", which is kept for its frozen copy; rename it')

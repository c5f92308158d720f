"""The whole state of a run at a step: weights, buffers, optimizer slots, and the mask if weights are pruned.

Schedule and data order need no storage: both are functions of the step and of the run's seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
GROUPS = ("weights", "buffers", "optimizer", "mask")


@dataclass(frozen=True)
class State:
    """Copies of everything a run needs to go on from `step`."""

    step: int
    weights: Tensors
    buffers: Tensors
    optimizer: Tensors
    mask: Tensors = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """Flat names → numpy arrays, as they are stored."""
        groups = {name: getattr(self, name) for name in GROUPS}
        named = {f"{group}/{name}": value for group, tensors in groups.items() for name, value in tensors.items()}
        return {name: value.detach().cpu().contiguous().numpy() for name, value in named.items()}


def state_from_arrays(step: int, arrays: Mapping[str, np.ndarray]) -> State:
    """Inverse of `State.arrays`."""
    groups: dict[str, Tensors] = {name: {} for name in GROUPS}
    for name, value in arrays.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = torch.from_numpy(np.array(value))
    return State(step, **groups)


def capture(step: int, model: nn.Module, optimizer: torch.optim.Optimizer, mask: Tensors) -> State:
    """Copy the state out of a model and its optimizer."""
    names = [name for name, _ in model.named_parameters()]
    slots = {
        f"{names[index]}/{slot}": torch.as_tensor(value, device=getattr(value, "device", "cpu")).detach().clone()
        for index, entries in optimizer.state_dict()["state"].items()
        for slot, value in entries.items()
        if value is not None
    }
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    return State(step, weights, buffers, slots, mask)


@torch.no_grad()
def restore(state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a state into a model of the same architecture and its optimizer.

    Raises:
        ValueError: a tensor of the state has another shape than that of the model.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(fitting(name, state.weights[name], parameter))
    for name, buffer in model.named_buffers():
        buffer.copy_(fitting(name, state.buffers[name], buffer))
    parameters = dict(model.named_parameters())
    names = list(parameters)
    slots: dict[int, Tensors] = {}
    for key, value in state.optimizer.items():
        name, _, slot = key.rpartition("/")
        # Fused optimizers walk memory, not indices: a slot must have its parameter's layout (channels-last or not).
        like = parameters[name] if value.shape == parameters[name].shape else value
        slots.setdefault(names.index(name), {})[slot] = torch.empty_like(like, dtype=value.dtype).copy_(value)
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def fitting(name: str, value: Tensor, like: Tensor) -> Tensor:
    """The value itself, if it has the shape of what it is for: torch would broadcast it without a word.

    Raises:
        ValueError: it has another shape.
    """
    if value.shape != like.shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} in the stored state, but {tuple(like.shape)} in this network; "
            "allowed: a state of the same architecture on data of the same shape; start from such a run"
        )
    return value

"""Which weights are kept: pure functions of weights and masks, without state.

A mask holds one tensor of booleans for each weight tensor of at least two axes, in their order; true is kept. Biases
and batch norm are never pruned. Choices are made on the CPU, so that they are the same on every device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from overparam.foundations.words import nearest
from overparam.models.functional import Layout
from overparam.specs.pruning_rates import erdos_renyi_counts, pruned_count, rates_by_name

Mask = dict[str, Tensor]
Fractions = float | Mapping[str, float]
Order = Callable[[Sequence[str]], Tensor]  # in which order the weights of some tensors, laid end to end, are pruned


def prunable(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that can be pruned: tensors of at least two axes, but for the masks of `torch.nn.utils.prune`.

    Raises:
        ValueError: there are none, or such a mask is missing.

    >>> list(prunable(dict(torch.nn.Linear(2, 3).named_parameters())))
    ['weight']
    """
    masks = _masks_of_torch(weights).values()
    found = {name: value for name, value in weights.items() if value.dim() >= 2 and not any(value is m for m in masks)}
    if not found:
        raise ValueError(f"no tensor of at least two axes, so nothing to prune; there are: {', '.join(weights) or '—'}")
    return found


def _masks_of_torch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks that `torch.nn.utils.prune` keeps, by the names of the tensors that they prune.

    Raises:
        ValueError: a tensor is named as it names them and its mask is not there, as among a module's parameters alone.
    """
    found: dict[str, Tensor] = {}
    for name, stem in ((name, name.removesuffix("_orig")) for name in weights if name.endswith("_orig")):
        if f"{stem}_mask" in weights:
            found[name] = weights[f"{stem}_mask"]
        elif f"{stem}_u" not in weights:  # spectral norm names what it divides like that too
            raise ValueError(
                f"{name} is what torch.nn.utils.prune or spectral_norm computes {stem} from, and {stem}_mask or "
                f"{stem}_u is not there; add it from model.state_dict(), or call prune.remove first"
            )
    return found


def magnitude_mask(
    weights: Mapping[str, Tensor],
    fraction: Fractions,
    *,
    mask: Mapping[str, Tensor] | None = None,
    scope: Literal["global", "layer"] = "global",
) -> Mask:
    """The mask after the smallest `round(fraction · remaining)` magnitudes |w| of those in `mask` are pruned.

    They are the smallest of all tensors together, or of each with `scope="layer"`. Of equal magnitudes the earlier is
    pruned first, in the order of the tensors and row by row within each. What `mask` has pruned stays pruned, and what
    `torch.nn.utils.prune` has, in a state dict that holds its masks.

    Args:
        weights: all named parameters; those of fewer than two axes are left out.
        fraction: in [0, 1], or with `scope="layer"` one per tensor (see `overparam.specs.pruning_rates.rates_by_name`).
        mask: what is still kept; all if it is missing.
        scope: whether tensors are compared with each other.

    Raises:
        ValueError: a fraction is not in [0, 1] or does not fit the scope, a weight is NaN, or the mask is of others.

    >>> w = {"weight": torch.tensor([[3.0, -1.0], [1.0, 0.5]])}
    >>> magnitude_mask(w, 0.5)["weight"].tolist()
    [[True, False], [True, False]]
    """
    _refuse_unknown_scope(scope, ("global", "layer"))
    kept = _on_cpu(weights, mask)
    magnitudes = {name: _magnitude(name, value) for name, value in prunable(weights).items()}

    def order(names: Sequence[str]) -> Tensor:
        return torch.argsort(Layout.join(magnitudes[name] for name in names), stable=True)

    return _beside(_pruned(kept, fraction, scope, order), weights)


def random_mask(
    weights: Mapping[str, Tensor],
    fraction: Fractions,
    *,
    mask: Mapping[str, Tensor] | None = None,
    scope: Literal["layer", "global", "erdos_renyi"] = "layer",
    generator: torch.Generator,
) -> Mask:
    """The mask after as many weights as `magnitude_mask` takes are pruned, uniformly at random.

    With `scope="erdos_renyi"` as many are pruned in all as with `"global"`, but how many of each tensor is fixed by
    `overparam.specs.pruning_rates.erdos_renyi_counts`; it needs one fraction, and starts from all weights.

    Args:
        weights: all named parameters; only their names, shapes and devices matter.
        fraction: as of `magnitude_mask`.
        mask: what is still kept; all if it is missing.
        scope: how the number to prune is divided among tensors.
        generator: on the CPU.

    Raises:
        ValueError: a fraction is not in [0, 1] or does not fit the scope; the mask does not fit weights or scope.

    >>> w = {"weight": torch.ones(4, 5)}
    >>> int(random_mask(w, 0.3, generator=torch.Generator())["weight"].sum())
    14
    """
    _refuse_unknown_scope(scope, ("layer", "global", "erdos_renyi"))
    if scope == "erdos_renyi" and mask is not None:
        raise ValueError('scope="erdos_renyi" starts from all weights; leave out the mask, or prune by "layer"')
    kept = _on_cpu(weights, mask)

    def order(names: Sequence[str]) -> Tensor:
        return torch.randperm(sum(kept[name].numel() for name in names), generator=generator, device="cpu")

    return _beside(_pruned(kept, fraction, scope, order), weights)


def shuffled_mask(mask: Mapping[str, Tensor], *, generator: torch.Generator) -> Mask:
    """The mask permuted within each tensor: same counts, other positions. The generator is on the CPU.

    >>> mask = {"weight": torch.tensor([[True, False, False]])}
    >>> int(shuffled_mask(mask, generator=torch.Generator())["weight"].sum())
    1
    """
    orders = {name: torch.randperm(kept.numel(), generator=generator, device="cpu") for name, kept in mask.items()}
    return {name: kept.reshape(-1)[orders[name].to(kept.device)].reshape(kept.shape) for name, kept in mask.items()}


def density(mask: Mapping[str, Tensor]) -> float:
    """Share of the prunable weights that are kept.

    Raises:
        ValueError: the mask is of no weight.

    >>> density({"weight": torch.tensor([[True, False, False, False]])})
    0.25
    """
    total = sum(kept.numel() for kept in mask.values())
    if total == 0:
        raise ValueError("the mask is of no weight, so that it has no density")
    return _remaining(mask) / total


def masked(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All parameters, pruned weights +0.0; whatever is kept has the same bits as before.

    Raises:
        ValueError: the mask is of other weights.

    >>> masked({"weight": torch.tensor([[-2.0, -3.0]])}, {"weight": torch.tensor([[False, True]])})
    {'weight': tensor([[ 0., -3.]])}
    """
    _refuse_other(prunable(weights), mask)
    # Filled, not multiplied: −w · 0 is −0.0, and NaN · 0 is NaN.
    return {
        name: value.masked_fill(~mask[name].to(value.device), 0.0) if name in mask else value
        for name, value in weights.items()
    }


def regrown(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that is not 0 (or is NaN) where it is pruned; `None` if there is none.

    Raises:
        ValueError: the mask is of other weights.

    >>> mask = {"weight": torch.tensor([[False, True]])}
    >>> regrown({"weight": torch.tensor([[0.1, 3.0]])}, mask), regrown({"weight": torch.tensor([[0.0, 3.0]])}, mask)
    ('weight', None)
    """
    tensors = prunable(weights)
    _refuse_other(tensors, mask)
    for name, value in tensors.items():
        if bool((value.detach().ne(0) & ~mask[name].to(value.device)).any()):
            return name
    return None


def _pruned(kept: Mask, fraction: Fractions, scope: str, order: Order) -> Mask:
    """`kept` without the first of each order, as many as fraction and scope say."""
    if scope == "global":
        count = pruned_count(_one_fraction(fraction, scope), _remaining(kept))
        return _without_first(kept, count, order(tuple(kept)))
    counts = _erdos_renyi_losses(kept, fraction) if scope == "erdos_renyi" else _losses_by_layer(kept, fraction)
    return {name: _without_first({name: kept[name]}, counts[name], order([name]))[name] for name in kept}


def _losses_by_layer(kept: Mask, fraction: Fractions) -> dict[str, int]:
    rates = rates_by_name(tuple(kept), fraction)
    return {name: pruned_count(rates[name], int(part.sum())) for name, part in kept.items()}


def _erdos_renyi_losses(kept: Mask, fraction: Fractions) -> dict[str, int]:
    total = _remaining(kept)
    keep = total - pruned_count(_one_fraction(fraction, "erdos_renyi"), total)
    counts = erdos_renyi_counts({name: tuple(part.shape) for name, part in kept.items()}, keep)
    return {name: part.numel() - counts[name] for name, part in kept.items()}


def _without_first(kept: Mask, count: int, order: Tensor) -> Mask:
    """Without the first `count` positions of the order that are still kept."""
    flat = Layout.join(kept.values())
    flat[order[flat[order]][:count]] = False
    # Memory of their own: slices of one vector cannot be written to a file.
    return {name: part.clone() for name, part in Layout.of(kept).split(flat).items()}


def _remaining(mask: Mapping[str, Tensor]) -> int:
    return sum(int(kept.sum()) for kept in mask.values())


def _magnitude(name: str, value: Tensor) -> Tensor:
    magnitude = value.detach().abs().cpu()
    if bool(magnitude.isnan().any()):
        raise ValueError(f"{name} holds NaN, which has no magnitude to prune by; did training diverge?")
    return magnitude


def _on_cpu(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None) -> Mask:
    """What is kept so far, in the order of the weights."""
    tensors = prunable(weights)
    theirs = {name: kept.bool().cpu() for name, kept in _masks_of_torch(weights).items()}
    if mask is None:
        mask = {name: torch.ones(value.shape, dtype=torch.bool, device="cpu") for name, value in tensors.items()}
    _refuse_other(tensors, mask)
    return {name: mask[name].cpu() & theirs[name] if name in theirs else mask[name].cpu() for name in tensors}


def _beside(mask: Mask, weights: Mapping[str, Tensor]) -> Mask:
    """Each part on the device of its weights."""
    return {name: kept.to(weights[name].device) for name, kept in mask.items()}


def _one_fraction(fraction: Fractions, scope: str) -> float:
    if isinstance(fraction, Mapping):
        raise ValueError(f'scope="{scope}" needs one fraction, not one per tensor; allowed: a number, or scope="layer"')
    return fraction


def _refuse_unknown_scope(scope: str, allowed: Sequence[str]) -> None:
    if scope not in allowed:
        raise ValueError(f'scope="{scope}" does not exist; allowed: {", ".join(allowed)}{nearest(scope, allowed)}')


def _refuse_other(tensors: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> None:
    """A mask must have exactly the names and shapes of the weights, and hold booleans."""
    for name in tensors:
        if name not in mask:
            raise ValueError(f"the mask lacks {name}; it has: {', '.join(mask) or '—'}")
    for name, kept in mask.items():
        if name not in tensors:
            raise ValueError(f"the mask has {name}, which is no prunable weight; allowed: {', '.join(tensors)}")
        if kept.shape != tensors[name].shape:
            raise ValueError(f"the mask of {name} has shape {tuple(kept.shape)}, not {tuple(tensors[name].shape)}")
        if kept.dtype != torch.bool:
            raise ValueError(f"the mask of {name} holds {kept.dtype}; allowed: torch.bool")

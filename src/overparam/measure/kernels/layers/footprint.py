"""What the examples of a tangent kernel take in memory, and how many fit."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from overparam.measure.kernels.layers.contraction import TILE, Outputs, factors
from overparam.measure.kernels.layers.features import Outer
from overparam.measure.kernels.layers.sensitivities import Network, feature_of

LARGEST_PIECE = 512  # examples: more at once make no product of matrices faster
FORMING = 2**29  # bytes of sensitivities in work: more make nothing faster


@dataclass(frozen=True)
class Footprint:
    """Bytes per example: of its factors, while they are formed, and as a column of the tile in work."""

    factors: int
    forming: int
    column: int


def footprint(network: Network, outputs: Outputs) -> Footprint:
    """Counted on two examples: what autograd saves but weights, all sensitivities twice, or once and those of one
    output, what is normalized, twice the largest feature.

    Where there are parameters by their Jacobian, also what autograd saves for every output, and their rows: once in the
    factors, and five times while they are formed.
    """
    saved = 0
    weights = (*network.trainable.values(), *network.problem.fixed.values())
    owned = {value.untyped_storage().data_ptr() for value in weights}

    def count(value: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if value.untyped_storage().data_ptr() in owned else _bytes(value)
        return value

    with saved_tensors_hooks(count, lambda value: value), torch.enable_grad():
        found, counted = network.counted(network.sample)
    taken, largest, back = 0, 0, 0
    for use, axis in counted:
        zero = use.tap.new_zeros(()).expand(found.shape[1], *use.tap.shape)
        feature = feature_of(use, zero, axis, 2)
        taken += sum(each.num_bytes for each in factors(feature, outputs))
        back += _bytes(zero)
        parts = (feature.left, feature.right) if isinstance(feature, Outer) else feature.rows()
        laid_out = 2 * sum(_bytes(part) for part in parts)
        if isinstance(feature, Outer) and not network.batched:  # what comes back lies as it is multiplied
            laid_out -= _bytes(feature.right)
        largest = max(largest, laid_out)
    normalized = sum(_bytes(use.x) for use, _ in counted if use.summed)
    forming = saved + normalized + back + (back if network.batched else back // found.shape[1]) + largest
    if network.by_jacobian:
        rows = _bytes(found) * sum(network.trainable[name].numel() for name in network.by_jacobian)
        taken += rows
        forming += 5 * rows + found.shape[1] * saved
    each = found.shape[1] if outputs == "full" else 1
    return Footprint(-(-taken // 2), -(-forming // 2), 2 * TILE * each * found.element_size())


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def pieces(each: Footprint, num_examples: int, max_memory: int) -> tuple[int, int]:
    """Examples in a piece, and pieces of rows that are held at once.

    Raises:
        ValueError: not even one example by one fits.
    """
    working = each.factors + each.forming + each.column
    if each.factors + working > max_memory:
        raise ValueError(
            f"max_memory={max_memory:,} bytes is too small: one pair of examples takes {each.factors + working:,} "
            'besides the kernel; allow more, or ask for outputs="trace"'
        )
    beside_all = (max_memory - num_examples * each.factors) // working  # with the factors of all examples held
    most = min(LARGEST_PIECE, FORMING // max(1, each.forming), max(beside_all, max_memory // (3 * working)))
    size = max(1, min(num_examples, most))
    size = -(-num_examples // -(-num_examples // size))  # as many pieces, of one size
    held = (max_memory - size * working) // (size * max(1, each.factors))
    return size, max(1, held)

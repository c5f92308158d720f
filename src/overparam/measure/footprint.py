"""What the examples of a tangent kernel take in memory, and how many fit."""

from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from overparam.measure.contraction import TILE, Outputs
from overparam.measure.features import Outer
from overparam.measure.sensitivities import Network, sensitivities

LARGEST_PIECE = 512  # examples: more at once make no product of matrices faster


@dataclass(frozen=True)
class Footprint:
    """Bytes per example: of its factors, while they are formed, and as a column of the tile in work."""

    factors: int
    forming: int
    column: int


def footprint(network: Network, x: Tensor, outputs: Outputs) -> Footprint:
    """Counted on two examples: what autograd saves, all sensitivities at once, and the largest feature twice."""
    pair, saved = x[[0, -1]], 0

    def count(value: Tensor) -> Tensor:
        nonlocal saved
        saved += _bytes(value)
        return value

    with saved_tensors_hooks(count, lambda value: value):
        found, uses = network.recorded(pair)
    counted = [(use, axis) for use, axis in zip(uses, network.axes, strict=True) if axis is not None]
    back = sensitivities(found, [use.tap for use, _ in counted], network.batched)
    features = [use.feature(s, axis, 2) for (use, axis), s in zip(counted, back, strict=True)]
    largest = max((_bytes(f.left) + _bytes(f.right) for f in features if isinstance(f, Outer)), default=0)
    copies = 2 if network.batched else 1
    forming = saved + copies * sum(_bytes(s) for s in back) + 2 * largest
    factors = sum(each.num_bytes for each in network.factors(pair, outputs))
    each = found.shape[1] if outputs == "full" else 1
    return Footprint(-(-factors // 2), -(-forming // 2), 2 * TILE * each * found.element_size())


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
    size = max(1, min(num_examples, LARGEST_PIECE, max_memory // (3 * working)))
    held = (max_memory - size * working) // (size * max(1, each.factors))
    return size, max(1, held)

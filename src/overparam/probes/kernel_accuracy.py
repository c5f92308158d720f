"""How a kernel's accuracy is compared with that of the network."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def accuracy(outputs: "Tensor", labels: "Tensor") -> float:
    """Share of the examples whose largest output is that of their label."""
    return float((outputs.argmax(1) == labels).double().mean())


def share(kernel: float, network: float, num_classes: int) -> float:
    """What the kernel reaches of the network's accuracy above chance; NaN where the network is not above it.

    >>> round(share(0.55, 1.0, 10), 6)
    0.5
    """
    chance = 1.0 / num_classes
    return (kernel - chance) / (network - chance) if network > chance else math.nan

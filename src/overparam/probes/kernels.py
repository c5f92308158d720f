"""What the probes of tangent kernels share: their costs, and how a kernel's accuracy is compared with a network's.

Costs are those of the laptop preset of `ntk_regime`: forward passes from widths 1024 and 2048, seconds of dense
algebra, which do not depend on the network, from width 32.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

OUTPUTS = 10  # of all data sets that come with the package
BACKWARD = 2.0  # of a forward pass: sensitivities of one output
EIGENVALUES, EIGENVECTORS, CHOLESKY = 1.4e-10, 3e-10, 1e-11  # seconds over the cube of a kernel's side


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

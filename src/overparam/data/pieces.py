"""Large arrays a few rows at a time: a copy of another type is eight times as large as an array of bytes."""

import math
from collections.abc import Iterator

from overparam.data.types import Array

PIECE = 2**22  # values that are looked at together


def pieces(x: Array) -> Iterator[Array]:
    """All rows of an array in order, as views.

    >>> import numpy as np
    >>> [len(piece) for piece in pieces(np.zeros((3000, 2048), dtype=np.uint8))]
    [2048, 952]
    """
    rows = max(1, PIECE // max(1, math.prod(x.shape[1:])))
    return (x[start : start + rows] for start in range(0, len(x), rows))

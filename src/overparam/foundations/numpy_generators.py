"""numpy generators for named streams."""

import numpy as np

from overparam.foundations.keys import key


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Philox generator of the stream (seed, purpose): the same numbers on every platform."""
    return np.random.Generator(np.random.Philox(key(seed, *purpose)))

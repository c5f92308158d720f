"""The global generators of torch, numpy and Python, which no measurement may move."""

import random  # noqa: TID251  only to put its state back
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def generators_kept() -> Iterator[None]:
    """Whatever the block draws from global generators, they go on afterwards as if it had drawn nothing.

    >>> with generators_kept():
    ...     inside = torch.rand(1)
    >>> bool(torch.rand(1) == inside)
    True
    """
    cpu, python, numpy = torch.random.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.random.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for index, state in enumerate(cuda):
            torch.cuda.set_rng_state(state, index)

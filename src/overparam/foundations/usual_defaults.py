"""The defaults of torch for new tensors: float32 on the CPU, whatever a caller has set for tensors of his own."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def usual_defaults() -> Iterator[None]:
    """Tensors made inside the block without a dtype or a device are float32 on the CPU; then as before.

    A default device looks at every call of torch, so one is only set over another one.

    >>> with torch.device("meta"), usual_defaults():
    ...     torch.zeros(1).device
    device(type='cpu')
    """
    dtype, elsewhere = torch.get_default_dtype(), torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if elsewhere else nullcontext():
            yield
    finally:
        torch.set_default_dtype(dtype)

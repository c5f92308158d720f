"""Float32 that is float32: no autocast, no TF32 and no bfloat16 inside products of matrices or convolutions."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in the precision of their factors inside the block, whatever the caller has set; then as before."""
    with ExitStack() as stack:
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_exact_products())
        yield


@contextmanager
def _exact_products() -> Iterator[None]:
    """PyTorch has two sets of switches, and checks that they agree when an older one is read."""
    older = [(write, read()) for read, write in OLDER if _readable(read)]
    newer = [(setting, setting.fp32_precision) for setting in _operators()]
    try:
        for write, _ in older:
            write(None)
        for setting, _ in newer:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for write, value in older:
            write(value)
        for setting, value in newer:
            setting.fp32_precision = value


def _set_matmul(value: str | None) -> None:
    torch.set_float32_matmul_precision(value or "highest")


def _set_convolutions(value: bool | None) -> None:
    torch.backends.cudnn.allow_tf32 = bool(value)


OLDER: tuple[tuple[Callable[[], Any], Callable[[Any], None]], ...] = (
    (torch.get_float32_matmul_precision, _set_matmul),
    (lambda: torch.backends.cudnn.allow_tf32, _set_convolutions),
)


def _readable(read: Callable[[], object]) -> bool:
    """Not where a caller has used a newer switch of the same products."""
    try:
        read()
    except RuntimeError:
        return False
    return True


def _operators() -> list[Any]:
    """The newer switches, one per kind of product; PyTorch has them since 2.9."""
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    onednn, cudnn = backends.mkldnn, backends.cudnn
    return [backends.cuda.matmul, cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv, onednn.rnn]

"""Data as a caller gives it → fixed chunks of examples that nothing else can change."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
Data = Batch | Iterable[Batch]
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64)


def chunks_of(
    data: Data, device: torch.device, fit: Callable[[Tensor], Tensor], size: int, labels: bool = False
) -> Iterator[Batch]:
    """Copies of the data in chunks of at most `size`, in the precision that `fit` brings them to, labels as int64.

    Where targets can only be `labels`, booleans are the classes 0 and 1.
    """
    count = 0
    for x, y in list(_batches(data)):
        if x.ndim == 0 or y.ndim == 0:
            shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
            raise ValueError(f"data: x and y have the shapes {shapes}; allowed: examples along the first axis")
        if len(x) != len(y):
            raise ValueError(f"data: {len(x)} inputs but {len(y)} targets")
        x, y = (fit(each.detach()).to(device, copy=True) for each in (x, y))
        y = y.long() if y.dtype in INTEGERS or (labels and y.dtype is torch.bool) else y
        for start in range(0, len(y), size):
            yield x[start : start + size], y[start : start + size]
        count += len(y)
    if count == 0:
        raise ValueError("data holds no example; give at least one")


def _batches(data: Data) -> Iterable[Batch]:
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(each, Tensor) for each in data):
        return (data,)  # type: ignore[return-value]
    if isinstance(data, Iterator) or not isinstance(data, Iterable):
        raise ValueError(
            f"data is a {type(data).__name__}; give a pair of tensors (x, y), or a list or loader of such pairs "
            "that can be read again"
        )
    return _checked(data)


def _checked(batches: Iterable[object]) -> Iterator[Batch]:
    for batch in batches:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(b, Tensor) for b in batch)):
            raise ValueError(f"data: a batch must be a pair of tensors (x, y), not {_described(batch)}")
        yield batch[0], batch[1]


def _described(batch: object) -> str:
    return f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")


def cast(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Real numbers in another precision; whole numbers stay what they are."""
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value


def fitting(own: Iterable[Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Brings real inputs to `dtype` where they are in a precision that no tensor of the model has."""
    known = {value.dtype for value in own if value.is_floating_point()}
    return lambda x: x if x.dtype in known else cast(x, dtype)

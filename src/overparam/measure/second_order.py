"""Cheaper forms of some operations, put in place of PyTorch's while a graph is built that will be differentiated again.

Convolutions, ReLU and max-pooling get derivatives of their own. A batch norm in eval mode right after a
convolution is an affine map per channel. It is folded into the weights inside the graph, `w·γ/√(v + ε)`, so that its
derivatives cost nothing per pixel; the function and all its derivatives with respect to w, γ and β stay the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from overparam.measure.convolution import Convolution, Geometry
from overparam.measure.piecewise import MaxPool, ReLU, Window


class SecondOrder(TorchFunctionMode):
    """While it is active, plain 2-d convolutions, batch norms after them, 2-d max-pooling and ReLU take those forms.

    `convolutions` counts those of them, folded or not; `unbatched` counts what `is_grads_batched` cannot batch: all but
    ReLU. PyTorch's derivative of `_weight_norm` is wrong in second order on the CPU, so that it is written out. Inside
    `torch.func` transforms all stay PyTorch's.
    """

    def __init__(self, twice: bool = True) -> None:
        super().__init__()
        self.twice, self.active = twice, False
        self.convolutions, self.unbatched = 0, 0
        self.seen: dict[int, tuple[Tensor, int, tuple[Tensor, Tensor, Tensor | None, Geometry]]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch._weight_norm:
            return _weight_norm(*args, **kwargs)
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return func(*args, **kwargs)
        if func in (F.conv2d, torch.conv2d) and (call := _plain(*args, **kwargs)) is not None:
            return self.convolution(*call)
        if func is F.batch_norm:
            return self.batch_norm(*args, **kwargs)
        if func in (F.max_pool2d, torch.max_pool2d) and (pool := _pooling(*args, **kwargs)) is not None:
            self.unbatched += 1
            return MaxPool.apply(*pool)  # type: ignore[no-untyped-call]
        if func in (F.relu, torch.relu, Tensor.relu) and not _in_place(*args, **kwargs):
            return ReLU.apply(args[0] if args else kwargs["input"])  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)

    def __enter__(self) -> "SecondOrder":
        self.active = True
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self.active = False
        self.seen.clear()  # the graph holds this mode: outputs held here would never be freed
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    @property
    def curved(self) -> bool:
        """Whether a backward pass taken now needs all second derivatives: a model may differentiate in its forward."""
        return self.twice or self.active

    def convolution(self, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
        self.convolutions += 1
        self.unbatched += 1
        out: Tensor = Convolution.apply(x, w, b, geometry, self)  # type: ignore[no-untyped-call]
        self.seen[id(out)] = out, out._version, (x, w, b, geometry)  # holding `out` keeps its id its own
        return out

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        mean, var = running_mean, running_var
        source, version, call = self.seen.get(id(input), (None, 0, None))
        changed = source is None or source._version != version  # an in-place activation may stand in between
        if training or mean is None or var is None or call is None or changed:
            return F.batch_norm(input, mean, var, weight, bias, training, momentum, eps)
        inside, w, b, geometry = call
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        shift = scale * ((0.0 if b is None else b) - mean) + (0.0 if bias is None else bias)
        return self.convolution(inside, w * scale[:, None, None, None], shift, geometry)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """`g v/‖v‖`, the norm over all axes but `dim`."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _plain(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None, Geometry] | None:
    """The call as tensors and geometry, or `None` for the forms that stay PyTorch's: named padding, no batch axis."""
    if isinstance(padding, str) or input.ndim != 4:
        return None
    return input, weight, bias, (_pair(stride), _pair(padding), _pair(dilation), groups)


def _pooling(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Window] | None:
    """The call as tensor and window, or `None` for the forms that stay PyTorch's: indices wanted, no batch axis."""
    if return_indices or input.ndim != 4:
        return None
    kernel, step, pad, apart = (_pair(each) for each in (kernel_size, stride or kernel_size, padding, dilation))
    return input, (kernel, step, pad, apart, ceil_mode)


def _in_place(input: Tensor, inplace: bool = False) -> bool:
    return inplace


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else [*value] * (2 // len(value))

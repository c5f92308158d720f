"""Cheaper forms of some operations, put in place of PyTorch's while a graph is built that will be differentiated again.

Convolutions, ReLU and max-pooling get derivatives of their own. A batch norm in eval mode right after a
convolution is an affine map per channel. It is folded into the weights inside the graph, `w·γ/√(v + ε)`, so that its
derivatives cost nothing per pixel; the function and all its derivatives with respect to w, γ and β stay the same.

Max-pooling right after a ReLU comes before it: max and ReLU commute, with the same derivatives, and the ReLU then has
fewer numbers to do. That holds for ties too: where the maximum is not positive, no gradient passes. A model that in its
own forward pass differentiates the pooled values by that ReLU's output cannot be measured: they no longer depend on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from overparam.measure.products.convolution import Convolution, Geometry, Known
from overparam.measure.products.piecewise import MaxPool, PoolWindow, ReLU

T = TypeVar("T")


@dataclass(frozen=True)
class Last(Generic[T]):
    """The latest output of a kind, what it was made of, and the versions that these tensors had."""

    out: Tensor
    source: T
    versions: tuple[tuple[Tensor, int], ...]

    @classmethod
    def of(cls, out: Tensor, source: T, *inputs: Tensor | None) -> "Last[T] | None":
        tensors = [out, *(each for each in inputs if each is not None)]
        if any(each.is_inference() for each in tensors):  # they have no versions
            return None
        return cls(out, source, tuple((each, each._version) for each in tensors))

    def source_of(self, x: Tensor) -> T | None:
        """`None` if x is another tensor, or one that is no longer that function of its source.

        An in-place operation may stand in between, or the model may have cut the output off from its source.
        """
        unchanged = all(each._version == version for each, version in self.versions)
        attached = self.out.requires_grad == any(each.requires_grad for each, _ in self.versions[1:])
        return self.source if x is self.out and unchanged and attached else None


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
        self.convolved: Last[tuple[Tensor, Tensor, Tensor | None, Geometry]] | None = None
        self.rectified: Last[Tensor] | None = None

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
            return self.max_pool(*pool)
        if func in (F.relu, torch.relu, Tensor.relu) and not _in_place(*args, **kwargs):
            return self.relu(args[0] if args else kwargs["input"])
        return func(*args, **kwargs)

    def __enter__(self) -> "SecondOrder":
        self.active = True
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self.active = False
        self.convolved = self.rectified = None  # the graph holds this mode: outputs held here would never be freed
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    @property
    def curved(self) -> bool:
        """Whether a backward pass taken now needs all second derivatives: a model may differentiate in its forward."""
        return self.twice or self.active

    def convolution(
        self, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, known: Known | None = None
    ) -> Tensor:
        self.convolutions += 1
        self.unbatched += 1
        out: Tensor = Convolution.apply(x, w, b, geometry, self, known)  # type: ignore[no-untyped-call]
        self.convolved = Last.of(out, (x, w, b, geometry), x, w, b)
        return out

    def relu(self, x: Tensor) -> Tensor:
        out: Tensor = ReLU.apply(x, False)  # type: ignore[no-untyped-call]
        self.rectified = Last.of(out, x, x)
        return out

    def max_pool(self, x: Tensor, window: PoolWindow) -> Tensor:
        self.unbatched += 1
        watched = x.retains_grad or bool(x._backward_hooks)
        before = None if self.rectified is None or watched else self.rectified.source_of(x)
        if before is None:
            return MaxPool.apply(x, window)  # type: ignore[no-untyped-call, no-any-return]
        out: Tensor = ReLU.apply(MaxPool.apply(before, window), True)  # type: ignore[no-untyped-call]
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
        call = None if self.convolved is None else self.convolved.source_of(input)
        if training or mean is None or var is None or call is None:
            return F.batch_norm(input, mean, var, weight, bias, training, momentum, eps)
        inside, w, b, geometry = call
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        offset = (0.0 if bias is None else bias) - scale * mean
        shift = offset if b is None else offset + scale * b

        def known() -> Tensor:  # its derivatives are those of the convolution with the new weights
            return torch.addcmul(offset[:, None, None], scale[:, None, None], input)

        return self.convolution(inside, w * scale[:, None, None, None], shift, geometry, known)


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
) -> tuple[Tensor, PoolWindow] | None:
    """The call as tensor and window, or `None` for the forms that stay PyTorch's: indices wanted, no batch axis.

    On Apple's GPUs PyTorch finds the maxima anew when it goes back, for which it needs the input.
    """
    if return_indices or input.ndim != 4 or input.device.type == "mps":
        return None
    kernel, step, pad, apart = (_pair(each) for each in (kernel_size, stride or kernel_size, padding, dilation))
    return input, (kernel, step, pad, apart, ceil_mode)


def _in_place(input: Tensor, inplace: bool = False) -> bool:
    return inplace


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else [*value] * (2 // len(value))

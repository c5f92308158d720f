"""Where a model uses its parameters: every layer that takes one is recorded with its input and a tap on its output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from overparam.measure.kernels.layers.attention import self_attention
from overparam.measure.kernels.layers.features import (
    Build,
    Feature,
    Window,
    affine,
    channel_affine,
    convolution,
    feature_affine,
    lookup,
    same_padding,
)

_SCALING = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
_COPYING = (torch.clone, Tensor.clone, Tensor.contiguous)
PerAxis = int | Sequence[int]
Inside = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Use:
    """One use of the parameters `names` at one place of a forward pass.

    A tap is a zero that was added to the output y of the layer: its gradient is `∂f/∂y`, whatever is done to y in place
    afterwards. Of a `summed` one only sums over positions are wanted, so that it need not be kept for all outputs.
    """

    names: tuple[str, ...]
    x: Tensor
    tap: Tensor
    build: Build
    summed: bool = False

    def feature(self, sensitivity: Tensor, axis: int, num_examples: int) -> Feature:
        """From `∂f/∂y` (C, *y); the examples lie along `axis` of x and y, each with k rows one after the other."""
        x = torch.unflatten(self.x.movedim(axis, 0), 0, (num_examples, -1))
        s = torch.unflatten(sensitivity.movedim(axis + 1, 1), 1, (num_examples, -1)).transpose(0, 1)
        return self.build(x, s)


@dataclass(frozen=True)
class Known:
    """A parameter, or a copy or multiple of it that nobody has changed since; holding it keeps its id its own."""

    value: Tensor
    version: int
    name: str
    scale: float

    @property
    def unchanged(self) -> bool:
        return self.value._version == self.version


class Recorder(TorchFunctionMode):
    """While it is active, `uses` grows by every layer that takes one of the given parameters.

    A copy of a parameter, or a parameter times a number as in the NTK parameterization, is still that parameter. What
    else is done with parameters is not seen.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.parameters = {id(value): Known(value, value._version, name, 1.0) for name, value in parameters.items()}
        self.uses: list[Use] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SCALING and len(args) == 2 and not kwargs:
            return self.scaled(func(*args), *args)
        if func in _COPYING:
            return self.scaled(func(*args, **kwargs), args[0] if args else kwargs["input"], 1.0)
        if func is F.multi_head_attention_forward:
            found = self_attention(self.linear, *args, **kwargs)
            return func(*args, **kwargs) if found is None else found
        layer = _LAYERS.get(func)
        return func(*args, **kwargs) if layer is None else layer(self, *args, **kwargs)

    def scaled(self, product: Tensor, a: object, b: object) -> Tensor:
        """Remember a parameter times a number."""
        weight, factor = (b, a) if isinstance(a, (int, float)) else (a, b)
        if isinstance(factor, (int, float)):
            self.remember(product, weight, factor)
        return product

    def remember(self, value: Tensor, source: object, factor: float = 1.0) -> None:
        known = self.known(source)
        if known is not None:
            self.parameters[id(value)] = Known(value, value._version, known.name, known.scale * factor)

    def known(self, weight: object) -> Known | None:
        found = self.parameters.get(id(weight))
        return found if found is not None and found.unchanged else None

    def scale(self, weight: Tensor | None) -> float | None:
        """What a recorded parameter is multiplied by; None if it is none."""
        known = self.known(weight)
        return None if known is None else known.scale

    def tapped(
        self, y: Tensor, x: Tensor, parameters: Sequence[Tensor | None], build: Build, summed: bool = False
    ) -> Tensor:
        names = tuple(known.name for known in map(self.known, parameters) if known is not None)
        if not names:
            return y
        tap = y.new_zeros(()).expand(y.shape).requires_grad_()
        self.uses.append(Use(names, x.detach(), tap, build, summed))
        return y + tap

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = F.linear(input, weight, bias)
        if self.scale(bias) not in (None, 1.0) or input.ndim < 2:
            return y
        return self.tapped(y, input, (weight, bias), affine(self.scale(weight), self.scale(bias) is not None))

    def conv2d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: PerAxis = 1,
        padding: PerAxis | str = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
    ) -> Tensor:
        y = F.conv2d(input, weight, bias, stride, padding, dilation, groups)
        if self.scale(bias) not in (None, 1.0) or input.ndim != 4:
            return y
        kernel = (weight.shape[2], weight.shape[3])
        if isinstance(padding, str):
            input = same_padding(input, kernel, _pair(dilation)) if padding == "same" else input
            padding = 0
        window = Window(kernel, _pair(stride), _pair(padding), _pair(dilation), groups)
        return self.tapped(
            y, input, (weight, bias), convolution(window, self.scale(weight), self.scale(bias) is not None)
        )

    def conv1d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: PerAxis = 1,
        padding: PerAxis | str = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
    ) -> Tensor:
        """As a convolution of images one pixel high; the weight's scale is that of the view."""
        if input.ndim != 3 or self.scale(weight) is None:
            return F.conv1d(input, weight, bias, stride, padding, dilation, groups)
        tall = weight.unsqueeze(2)
        self.remember(tall, weight)
        across = padding if isinstance(padding, str) else (0, _last(padding))
        y = self.conv2d(input.unsqueeze(2), tall, bias, (1, _last(stride)), across, (1, _last(dilation)), groups)
        return y.squeeze(2)

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
        y = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        if training or input.ndim < 2:
            return y
        inside: Inside = lambda x: F.batch_norm(x, running_mean, running_var, eps=eps)  # noqa: E731
        return self.normalized(y, input, weight, bias, inside, channel_affine)

    def group_norm(
        self,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        y = F.group_norm(input, num_groups, weight, bias, eps)
        inside: Inside = lambda x: F.group_norm(x, num_groups, eps=eps)  # noqa: E731
        return self.normalized(y, input, weight, bias, inside, channel_affine)

    def layer_norm(
        self,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        y, shape = F.layer_norm(input, normalized_shape, weight, bias, eps), list(normalized_shape)
        inside: Inside = lambda x: F.layer_norm(x, shape, eps=eps)  # noqa: E731
        return self.normalized(y, input, weight, bias, inside, partial(feature_affine, len(shape)))

    def rms_norm(
        self, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        y, shape = F.rms_norm(input, normalized_shape, weight, eps), list(normalized_shape)
        inside: Inside = lambda x: F.rms_norm(x, shape, eps=eps)  # noqa: E731
        return self.normalized(y, input, weight, None, inside, partial(feature_affine, len(shape)))

    def normalized(
        self,
        y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        inside: Inside,
        build: Callable[[bool, bool], Build],
    ) -> Tensor:
        """A normalization whose result before weight and bias is `inside(x)`."""
        scales = [self.scale(each) for each in (weight, bias)]
        if any(scale not in (None, 1.0) for scale in scales) or scales == [None, None]:
            return y
        with torch.no_grad():
            normal = inside(x.detach())
        return self.tapped(y, normal, (weight, bias), build(scales[0] is not None, scales[1] is not None), summed=True)

    def embedding(
        self,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        y = F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        if max_norm is not None or scale_grad_by_freq or self.scale(weight) != 1.0:
            return y
        size = weight.shape[0]
        row = padding_idx + size if padding_idx is not None and padding_idx < 0 else padding_idx
        return self.tapped(y, input, (weight,), lookup(size, row))


_LAYERS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.linear: Recorder.linear,
    F.conv2d: Recorder.conv2d,
    F.conv1d: Recorder.conv1d,
    F.batch_norm: Recorder.batch_norm,
    F.group_norm: Recorder.group_norm,
    F.layer_norm: Recorder.layer_norm,
    F.rms_norm: Recorder.rms_norm,
    F.embedding: Recorder.embedding,
}


def _pair(value: PerAxis) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _last(value: PerAxis) -> int:
    return value if isinstance(value, int) else value[-1]

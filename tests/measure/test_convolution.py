"""The second derivative of convolutions, with batch norm folded in, against PyTorch's own."""

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.function import Function

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import Curvature, CurvatureOperator, dense
from overparam.measure.products.second_order import SecondOrder
from overparam.models.build import build
from overparam.models.losses import per_example
from overparam.specs.models.mlp import MLP
from tests.support.networks import Net, conv_then, images, rows, shaken, small_cnn
from tests.support.oracles import (
    assert_close,
    assert_same_derivatives,
    evaluating,
    flat_function,
    matrix,
    naive_ggn,
    plain_hessian,
    plain_products,
    random_vectors,
    tensors,
)

F64 = torch.float64


GEOMETRIES: dict[str, tuple[dict[str, Any], int, int]] = {  # options, channels in, channels out
    "plain": ({}, 2, 3),
    "stride": ({"stride": 2}, 2, 3),
    "uneven stride": ({"stride": (2, 1)}, 2, 3),
    "stride that leaves a rest": ({"stride": 3}, 2, 2),
    "padding": ({"padding": 1}, 2, 3),
    "uneven padding": ({"padding": (0, 2)}, 2, 3),
    "dilation": ({"dilation": 2}, 2, 3),
    "groups": ({"groups": 2}, 4, 2),
    "depthwise": ({"groups": 3, "padding": 1}, 3, 3),
    "depthwise, two per channel": ({"groups": 2, "stride": 2}, 2, 4),
    "everything": ({"stride": 2, "padding": 2, "dilation": 2, "groups": 2}, 2, 4),
    "one-element lists": ({"stride": [2], "padding": [1]}, 2, 2),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_convolutions_have_pytorchs_derivatives(name: str, bias: bool) -> None:
    """In the input as well as in weight and bias."""
    options, channels_in, channels_out = GEOMETRIES[name]
    groups = options.get("groups", 1)
    inputs = tensors((2, channels_in, 5, 6), (channels_out, channels_in // groups, 3, 3), (channels_out,))
    if bias:
        forms = assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, b, **options), inputs)
    else:
        forms = assert_same_derivatives(lambda x, w: F.conv2d(x, w, **options), inputs[:2])
    assert forms.convolutions


@given(
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(5, 6), st.just(5)),
    bias=st.booleans(),
)
@settings(max_examples=20)
def test_convolutions_of_any_geometry_have_pytorchs_derivatives(
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    size: tuple[int, int],
    bias: bool,
) -> None:
    inputs = tensors((2, 2, *size), (2, 2 // groups, *kernel), (2,))
    rest = (stride, padding, dilation, groups)
    if bias:
        assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, b, *rest), inputs)
    else:
        assert_same_derivatives(lambda x, w: F.conv2d(x, w, None, *rest), inputs[:2])


def test_named_padding_stays_pytorchs() -> None:
    inputs = tensors((2, 2, 5, 5), (3, 2, 3, 3), (3,))
    assert not assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, b, padding="same"), inputs).convolutions
    assert not assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, b, padding="valid"), inputs).convolutions


def test_an_image_without_batch_axis_stays_pytorchs() -> None:
    assert not assert_same_derivatives(lambda x, w: F.conv2d(x, w), tensors((2, 5, 5), (3, 2, 3, 3))).convolutions


def test_a_convolution_may_be_called_by_keywords() -> None:
    inputs = tensors((2, 2, 5, 5), (3, 2, 3, 3), (3,))
    assert_same_derivatives(lambda x, w, b: F.conv2d(x, w, bias=b, stride=2), inputs)
    assert_same_derivatives(lambda x, w, b: F.conv2d(x, weight=w, bias=b), inputs)
    assert_same_derivatives(lambda x, w, b: F.conv2d(input=x, weight=w, bias=b, padding=1), inputs)


def test_a_frozen_input_or_weight_gets_no_derivative() -> None:
    x, w, b = tensors((2, 2, 5, 5), (3, 2, 3, 3), (3,))
    for function, inputs in (
        (lambda w, b: F.conv2d(x, w, b), [w, b]),
        (lambda x: F.conv2d(x, w, b), [x]),
        (lambda w: F.conv2d(x, w, b), [w]),
        (lambda b: F.conv2d(x, w, b), [b]),
        (lambda x, b: F.conv2d(x, w, b), [x, b]),
    ):
        assert_same_derivatives(function, inputs)


def test_once_is_linear_in_the_cotangent() -> None:
    """`twice=False`: the backward map may be differentiated in its cotangent, which gives Jv."""
    inputs = tensors((2, 2, 5, 5), (3, 2, 3, 3), (3,))
    found = []
    for mode in (SecondOrder(twice=False), nullcontext()):
        leaves = [each.clone().requires_grad_() for each in inputs]
        with mode:
            out = F.conv2d(leaves[0], leaves[1], leaves[2], stride=2)
        dual = torch.zeros_like(out, requires_grad=True)
        back = torch.autograd.grad(out, leaves, dual, create_graph=True)
        found.append(torch.autograd.grad(back, dual, tensors(*[each.shape for each in inputs], seed=1))[0])
    assert_close(found[0], found[1])


class UsedTwice(nn.Module):
    """The convolution's output goes into the batch norm and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        normed: Tensor = self.norm(out)
        both: Tensor = normed * out + normed
        return both


class Stopped(nn.Module):
    """No gradient passes the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            out = self.conv(x)
        normed: Tensor = self.norm(out)
        return normed


class BatchStatistics(nn.Module):
    """Batch norm by the statistics of the batch even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        out = self.conv(x)
        return F.batch_norm(out, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=True)


class Residual(nn.Module):
    """Conv – BN – ReLU – conv – BN, added to the input, twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = F.relu(x[:, :2] + block(x[:, :2]))
        return x


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: Net(conv_then(), 3),
    "conv, same padding": lambda: Net(conv_then(padding="same"), 3),
    "conv, circular padding": lambda: Net(conv_then(padding=1, padding_mode="circular"), 3),
    "conv, batch norm": lambda: Net(conv_then(nn.BatchNorm2d(3)), 3),
    "conv without bias, batch norm": lambda: Net(conv_then(nn.BatchNorm2d(3), bias=False), 3),
    "conv, batch norm without affine": lambda: Net(conv_then(nn.BatchNorm2d(3, affine=False)), 3),
    "conv, batch norm twice": lambda: Net(conv_then(nn.BatchNorm2d(3), nn.BatchNorm2d(3)), 3),
    "conv, relu in place, batch norm": lambda: Net(conv_then(nn.ReLU(inplace=True), nn.BatchNorm2d(3)), 3),
    "conv, relu, batch norm": lambda: Net(conv_then(nn.ReLU(), nn.BatchNorm2d(3)), 3),
    "conv, batch norm, relu in place": lambda: Net(conv_then(nn.BatchNorm2d(3), nn.ReLU(inplace=True)), 3),
    "strided grouped conv, batch norm": lambda: Net(
        nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, groups=2), nn.BatchNorm2d(4)), 4
    ),
    "output used twice": lambda: Net(UsedTwice(), 3),
    "residual": lambda: Net(Residual(2), 2),
    "deep": small_cnn,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_convolutional_networks_have_pytorchs_curvature(name: str) -> None:
    """Products with random vectors, which see every entry."""
    model, (x, y) = shaken(NETWORKS[name]()), images(size=7)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with opened(model, "cross_entropy", (x, y)) as problem:
        vectors = random_vectors(6, problem.num_parameters)
        gradient = problem.gradient()
        hessian, ggn = CurvatureOperator(problem)(vectors), CurvatureOperator(problem, "ggn")(vectors)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    function, theta = flat_function(model)
    with evaluating(model):
        expected = torch.func.grad(lambda theta: per_example("cross_entropy", function(theta, x), y).mean())(theta)
    assert_close(gradient, expected)
    assert_close(hessian, plain_products(model, "cross_entropy", x, y, vectors))
    assert_close(ggn, vectors @ naive_ggn(model, "cross_entropy", x))


def test_batch_norm_is_folded_only_right_after_a_convolution() -> None:
    """The form is for speed; that it is taken is seen in the convolutions noted: one each, and one more if folded."""

    def noted(body: nn.Module) -> int:
        with evaluating(body), SecondOrder() as forms:
            body(images(size=7)[0])
        return forms.convolutions

    assert noted(conv_then(nn.BatchNorm2d(3)).double()) == 2
    assert noted(conv_then(nn.BatchNorm2d(3, affine=False), bias=False).double()) == 2
    assert noted(conv_then(nn.ReLU(inplace=True), nn.BatchNorm2d(3)).double()) == 1
    assert noted(conv_then(nn.ReLU(), nn.BatchNorm2d(3)).double()) == 1
    assert noted(BatchStatistics().double()) == 1
    assert noted(nn.BatchNorm2d(2).double()) == 0


def test_a_norm_by_the_statistics_of_the_batch_stays_pytorchs() -> None:
    body = shaken(conv_then(nn.BatchNorm2d(3, track_running_stats=False))).requires_grad_(False)
    assert_same_derivatives(body, [images(size=7)[0]])


def test_a_gradient_that_is_stopped_stays_stopped() -> None:
    """Folding would let it pass, and the parameters before it would seem to be reached."""
    model, (x, y) = shaken(Net(Stopped(), 3)), images(size=7)
    with pytest.raises(ValueError, match=r"no output depends on body\.conv\.weight, body\.conv\.bias"):
        matrix(model, "cross_entropy", (x, y), "ggn")
    found, whole = matrix(model, "cross_entropy", (x, y), "ggn", unused="hold"), naive_ggn(model, "cross_entropy", x)
    assert_close(found, whole[-len(found) :, -len(found) :])


def test_only_batch_norm_may_be_measured() -> None:
    """Folding puts trainable scales into a frozen weight."""
    model, (x, y) = small_cnn(), images(size=7)
    whole = matrix(model, "cross_entropy", (x, y))
    names = [name for name, value in model.named_parameters() for _ in range(value.numel())]
    for params in ("body.1", "body.0", ["body.1", "body.4.weight"]):
        wanted = [params] if isinstance(params, str) else params
        index = torch.tensor([i for i, name in enumerate(names) if any(name.startswith(word) for word in wanted)])
        assert_close(matrix(model, "cross_entropy", (x, y), params=params), whole[index][:, index])


def test_signals_have_pytorchs_curvature() -> None:
    """One-dimensional convolutions are PyTorch's own."""
    body = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    model, (x, y) = shaken(body), rows(inputs=8)
    x = x.unsqueeze(1)
    assert_close(matrix(model, "cross_entropy", (x, y)), plain_hessian(model, "cross_entropy", x, y))
    assert_close(matrix(model, "cross_entropy", (x, y), "ggn"), naive_ggn(model, "cross_entropy", x))


@pytest.mark.parametrize(
    "spec", [MLP(width=4, depth=3), MLP(width=4, depth=3, parameterization="ntk"), MLP(width=(5, 3))]
)
def test_networks_of_a_spec_have_pytorchs_curvature(spec: MLP) -> None:
    model, (x, y) = build(spec, (4,), 3, generator=torch_generator(0, "init")).double(), rows()
    assert_close(matrix(model, "cross_entropy", (x, y)), plain_hessian(model, "cross_entropy", x, y))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=5, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x).mean(1))
        return out


class ScaledDotProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).chunk(3, dim=-1)
        out: Tensor = self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean(1))
        return out


@pytest.mark.parametrize("kind", [Attention, ScaledDotProduct])
def test_attention_has_pytorchs_curvature(kind: type[nn.Module]) -> None:
    model = shaken(kind())
    x = torch.randn(5, 6, 4, generator=torch_generator(0, "tokens"), dtype=F64)
    y = torch.tensor([0, 1, 2, 1, 0])
    with opened(model, "cross_entropy", (x, y)) as problem:
        operator = CurvatureOperator(problem)
        assert operator.fallback is None
        assert_close(dense(operator), plain_hessian(model, "cross_entropy", x, y))
    assert_close(matrix(model, "cross_entropy", (x, y), "ggn"), naive_ggn(model, "cross_entropy", x))


class Trace:
    """Something that a graph keeps alive."""


class Marked(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, trace: Trace) -> Tensor:
        ctx.trace = trace
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None


class Tracing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.traces: list[weakref.ref[Trace]] = []

    def forward(self, x: Tensor) -> Tensor:
        trace = Trace()
        self.traces.append(weakref.ref(trace))
        found: Tensor = Marked.apply(x, trace)  # type: ignore[no-untyped-call]
        return found


@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_graphs_are_freed_with_the_operator(curvature: Curvature) -> None:
    """A graph that the memory of seen convolutions is part of would hold that memory, and so itself, for ever."""
    tracing = Tracing()
    body = conv_then(tracing, nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    model = shaken(Net(body, 3))
    with opened(model, "cross_entropy", images()) as problem:
        operator = CurvatureOperator(problem, curvature)
        operator(torch.ones(operator.size, dtype=torch.float64))
        gc.collect()
        assert any(trace() is not None for trace in tracing.traces), "products need the graph"
        del operator
    gc.collect()
    assert all(trace() is None for trace in tracing.traces)

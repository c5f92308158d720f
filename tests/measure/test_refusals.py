"""What is refused: losses, data, labels, models; and that the model stays as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from tests.support.opened import examples, left_alone, network, refused


def test_an_unknown_loss_is_an_error() -> None:
    refused(network(), 'unknown loss "hinge"; allowed: "cross_entropy", "mse"', loss="hinge")


@pytest.mark.parametrize("count", [1, 30])
def test_a_loss_that_returns_a_scalar_is_an_error(count: int) -> None:
    """Also for one example, whose mean has the right number of values but not the right shape."""
    refused(network(), 'reduction="none"', loss=F.cross_entropy, data=examples(count))


def test_a_loss_with_a_value_per_output_is_an_error() -> None:
    refused(network(), r"shape \(30,\), not \(30, 3\)", loss=lambda outputs, y: outputs.square())


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_mse_targets_of_another_shape_than_the_outputs_are_an_error(count: int, shape: tuple[int, ...]) -> None:
    """Broadcasting (n, 1) against (n,) would sum over all pairs of examples and still give n values."""
    x = torch.randn(count, 5, generator=torch_generator(0, "test"))
    model = nn.Linear(5, 1) if shape == () else nn.Linear(5, 3)
    refused(model, "shape", loss="mse", data=(x, torch.zeros(count, *shape)))


def test_mismatched_lengths_are_an_error() -> None:
    x, y = examples()
    refused(network(), "30 inputs but 29 targets", data=(x, y[:-1]))
    refused(network(), "1 inputs but 2 targets", data=[(x, y), (x[:1], y[:2])])


@pytest.mark.parametrize("data", [[], (torch.empty(0, 5), torch.empty(0, dtype=torch.long))], ids=["none", "empty"])
def test_no_example_is_an_error(data: Any) -> None:
    refused(network(), "no example", data=data)


def test_an_empty_batch_among_others_weighs_nothing() -> None:
    x, y = examples()
    with opened(network(), "cross_entropy", [(x[:0], y[:0]), (x, y), (x[:0], y[:0])]) as problem:
        found = problem.gradient()
        assert problem.num_examples == 30
    with opened(network(), "cross_entropy", (x, y)) as problem:
        assert torch.equal(found, problem.gradient())


@pytest.mark.parametrize(
    "data",
    [lambda: (batch for batch in [examples()]), lambda: iter([examples()]), lambda: zip(*examples(), strict=True)],
    ids=["generator", "iterator", "zip"],
)
def test_data_that_can_be_read_only_once_is_an_error(data: Callable[[], Any]) -> None:
    refused(network(), "can be read again", data=data())


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([examples()[0]], "a batch must be a pair of tensors"),
        (examples()[0], "a batch must be a pair of tensors"),
        ([(*examples(), examples()[0])], "not a tuple of 3"),
        ([{"x": 1}], "not a dict"),
        (7, "data is a int"),
    ],
    ids=["tensors", "tensor", "triple", "dict", "number"],
)
def test_data_that_is_no_pairs_of_tensors_is_an_error(data: Any, match: str) -> None:
    refused(network(), match, data=data)


def test_a_model_that_draws_random_numbers_in_eval_mode_is_an_error() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), 0.5, training=True)

    refused(nn.Sequential(Noisy(5, 3)), "draws random numbers")


class Viewing(nn.Module):
    """A textbook network: `view` after a convolution works in one order of memory only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.conv(x)).view(x.shape[0], -1))
        return out


def test_a_model_bound_to_the_usual_order_of_memory_is_measured_in_it() -> None:
    x = torch.randn(20, 3, 6, 6, generator=torch_generator(0, "images"))
    y, model = torch.arange(20) % 3, Viewing()
    flattening = nn.Sequential(model.conv, nn.ReLU(), nn.Flatten(), model.head)
    found = [top_eigenvalues(each, "cross_entropy", (x, y), tol=1e-5).values for each in (model, flattening)]
    assert torch.allclose(found[0], found[1], rtol=1e-4)
    with opened(model, "cross_entropy", (x, y)) as bound, opened(flattening, "cross_entropy", (x, y)) as free:
        assert bound.order is torch.contiguous_format
        assert free.order is torch.channels_last


class AcrossTheBatch(nn.Module):
    """Each example attends to the others of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(torch.softmax(x @ x.T, dim=1) @ x)
        return out


@pytest.mark.parametrize(
    "model",
    [nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, track_running_stats=False)), AcrossTheBatch()],
    ids=["batch norm without running statistics", "attention across the batch"],
)
@pytest.mark.parametrize("count", [3, 30, 600])
def test_a_model_that_mixes_examples_is_an_error(model: nn.Module, count: int) -> None:
    refused(model, "models that treat each example on its own", data=examples(count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_rounding_is_not_taken_for_a_mixing_of_examples(scale: float, dtype: torch.dtype) -> None:
    """Wide layers, whose sums depend on the number of rows; losses from near 0 to large."""
    generator = torch_generator(0, "wide")
    model = nn.Sequential(nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(scale * 0.1 * torch.randn(value.shape, generator=generator))
    x = torch.randn(250, 400, generator=generator)
    with opened(model, "cross_entropy", (x, model(x).argmax(1)), dtype=dtype) as problem:
        assert problem.num_examples == 250


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model = network()
    with torch.no_grad():
        dict(model.named_parameters())["4.weight"][1, 2] = value
    refused(model, "4.weight holds 1 values that are not finite")
    refused(model, "4.weight", params="0")  # a fixed parameter is part of the function, too


def test_buffers_that_are_not_finite_are_named() -> None:
    model = network()
    assert isinstance(model[1], nn.BatchNorm1d)
    assert model[1].running_var is not None
    model[1].running_var[:2] = torch.nan
    refused(model, "not finite on 30 of the first 30 examples; 1.running_var holds NaN")


def test_examples_whose_loss_is_not_finite_are_counted() -> None:
    x, y = examples()
    x[3] = torch.nan
    refused(network(), "not finite on 1 of .*30 examples", data=(x, y))


def test_a_model_that_returns_no_tensor_is_an_error() -> None:
    model = nn.LSTM(5, 3)
    with left_alone(model), pytest.raises(ValueError, match="wrap the model in a module that returns the tensor"):  # noqa: SIM117
        with opened(model, "mse", examples()):
            pass


class Squeezed(nn.Module):
    """Runs on two examples and more; of one it squeezes the axis of the examples away."""

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.last = nn.Linear(5, 3), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x).squeeze())


@pytest.mark.parametrize(
    "last",
    [lambda z: torch.log_softmax(z, dim=1), lambda z: torch.einsum("nc,kc->nk", z, torch.eye(3))],
    ids=["index error", "runtime error"],
)
@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_a_model_that_cannot_take_one_example_is_measured(last: Callable[[Tensor], Tensor], curvature: Any) -> None:
    model, plain = Squeezed(last), nn.Sequential(nn.Linear(5, 3))
    plain[0].load_state_dict(model.body.state_dict())
    found, expected = (
        float(top_eigenvalues(each, "cross_entropy", examples(), curvature=curvature, tol=1e-4).values[0])
        for each in (model, plain)
    )
    assert found == pytest.approx(expected, rel=1e-3)

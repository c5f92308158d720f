"""What is measured: data, parameters and losses, which of them are refused, and that the model stays as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from overparam.measure.eigenvalues import top_eigenvalues
from overparam.measure.problem import Batch, evaluating, opened
from overparam.models.functional import chosen_parameters
from overparam.rng.torch_generators import torch_generator


def examples(count: int = 30, inputs: int = 5, classes: int = 3, seed: int = 0) -> Batch:
    generator = torch_generator(seed, "test")
    x = torch.randn(count, inputs, generator=generator)
    return x, torch.randint(0, classes, (count,), generator=generator)


def network() -> nn.Sequential:
    """Batch norm and dropout in it: what its mode matters to."""
    generator = torch_generator(0, "test", "weights")
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=generator))
    model(torch.randn(50, 5, generator=generator))  # running statistics that are not 0 and 1
    return model


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "trainable": [value.requires_grad for value in model.parameters()],
        "grads": [None if value.grad is None else value.grad.clone() for value in model.parameters()],
        "objects": [id(value) for value in (*model.parameters(), *model.buffers())],
    }


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """The model is bit for bit what it was, whatever happens inside."""
    before = snapshot(model)
    yield
    after = snapshot(model)
    assert before.keys() == after.keys()
    for name, value in before["state"].items():
        assert torch.equal(value.nan_to_num(7.5), after["state"][name].nan_to_num(7.5)), name
    for part in ("modes", "trainable", "grads", "objects"):
        assert before[part] == after[part], part


def refused(model: nn.Module, match: str, loss: Any = "cross_entropy", data: Any = None, **options: Any) -> None:
    """`opened` raises a ValueError that says `match`, and leaves the model alone."""
    with (
        left_alone(model),
        pytest.raises(ValueError, match=match),
        opened(model, loss, examples() if data is None else data, **options),
    ):
        pass


# What is measured


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), chunk=st.integers(1, 60), mse=st.booleans())
@settings(max_examples=25)
def test_batches_of_any_sizes_are_one_mean_over_examples(sizes: list[int], chunk: int, mse: bool) -> None:
    """A mean of batch means would weigh a short batch as much as a long one."""
    model, (x, y) = network().double(), examples(sum(sizes))
    loss: Any = "mse" if mse else "cross_entropy"
    batches = list(zip(torch.split(x.double(), sizes), torch.split(y, sizes), strict=True))
    with opened(model, loss, batches, chunk=chunk) as problem:
        found, risk = problem.gradient(), problem.risk()
        assert max(len(each) for _, each in problem.chunks) <= chunk
        assert problem.num_examples == len(y)
    leaves = dict(model.named_parameters())
    with evaluating(model):
        outputs = model(x.double())
        one_hot = F.one_hot(y, 3).double()
        mean = 0.5 * (outputs - one_hot).square().sum() / len(y) if mse else F.cross_entropy(outputs, y)
        expected = torch.autograd.grad(mean, list(leaves.values()))
    assert torch.allclose(found, torch.cat([part.reshape(-1) for part in expected]), rtol=1e-10, atol=1e-12)
    assert risk[0] == pytest.approx(mean.item(), rel=1e-12)
    assert risk[1] == float((outputs.argmax(1) == y).double().mean())


def test_the_share_of_correct_predictions_is_nan_for_regression() -> None:
    with opened(network(), "mse", (examples()[0], torch.zeros(30, 3))) as problem:
        loss, correct = problem.risk()
        assert loss > 0.0
        assert correct != correct


def test_data_is_read_once() -> None:
    class Counted:
        reads = 0

        def __iter__(self) -> Iterator[Batch]:
            self.reads += 1
            yield examples()

    data = Counted()
    with opened(network(), "cross_entropy", data) as problem:
        problem.gradient()
        problem.risk()
    assert data.reads == 1


def test_a_shuffling_loader_is_one_set_of_examples() -> None:
    x, y = examples()
    shuffled = DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True, generator=torch_generator(0, "order"))
    with opened(network(), "cross_entropy", (x, y)) as problem:
        expected = problem.gradient()
    with opened(network(), "cross_entropy", shuffled) as problem:
        once, again = problem.gradient(), problem.gradient()
    assert torch.equal(once, again)
    assert torch.allclose(once, expected, rtol=1e-4, atol=1e-6)


def test_dropout_is_off_while_the_model_is_measured() -> None:
    model = network()
    model.train()
    with left_alone(model), opened(model, "cross_entropy", examples()) as problem:
        assert torch.equal(problem.gradient(), problem.gradient())
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())


def test_every_module_gets_its_own_mode_back() -> None:
    """A blanket train() or eval() afterwards would undo frozen batch norms."""
    model = network()
    model.train()
    model[1].eval()
    with left_alone(model), opened(model, "cross_entropy", examples()):
        pass
    with left_alone(model), pytest.raises(RuntimeError, match="inside"), opened(model, "cross_entropy", examples()):
        raise RuntimeError("inside")
    assert [module.training for module in model] == [True, False, True, True, True]


def test_what_a_forward_pass_does_to_buffers_does_not_reach_the_model() -> None:
    class Counting(nn.Linear):
        count: Tensor

        def __init__(self) -> None:
            super().__init__(5, 3)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.count = self.count + 1
            out: Tensor = super().forward(x)
            return out

    model = Counting()
    with left_alone(model), opened(model, "cross_entropy", examples()) as problem:
        problem.gradient()
        problem.risk()


def test_the_model_is_left_alone_by_all_that_a_problem_does() -> None:
    model = network()
    weight = next(iter(model.parameters()))
    weight.grad = torch.ones_like(weight)
    with opened(model, "mse", examples()) as problem:
        grads = [value.grad is None for value in model.parameters()]
        problem.gradient()
        problem.gradient(problem.theta + 1.0)
        problem.risk(problem.theta + 1.0)
        assert [value.grad is None for value in model.parameters()] == grads
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_theta_is_the_point_of_gradient_and_risk() -> None:
    generator = torch_generator(0, "test")
    model = nn.Linear(5, 3).double()
    x, y = examples()[0].double(), torch.randn(30, 3, generator=generator, dtype=torch.float64)
    theta = torch.randn(18, generator=generator, dtype=torch.float64)
    weight, bias = theta[:15].reshape(3, 5), theta[15:]
    residual = x @ weight.T + bias - y
    with opened(model, "mse", (x, y)) as problem:
        assert problem.risk(theta)[0] == pytest.approx(float(residual.square().sum() / 60), rel=1e-12)
        expected = torch.cat([(residual.T @ x / 30).reshape(-1), residual.mean(0)])
        assert torch.allclose(problem.gradient(theta), expected, rtol=1e-12, atol=1e-14)


def test_another_precision_is_that_of_the_problem_alone() -> None:
    model, (x, y) = network(), examples()
    with left_alone(model), opened(model, "cross_entropy", (x, y), dtype=torch.float64) as problem:
        assert problem.theta.dtype is torch.float64
        assert problem.gradient().dtype is torch.float64
        assert problem.chunks[0][1].dtype is torch.int64
        assert torch.equal(problem.theta.float(), torch.cat([p.detach().reshape(-1) for p in model.parameters()]))


def test_a_loss_of_the_callers_own_is_the_named_loss() -> None:
    def own(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y, reduction="none")

    with opened(network(), own, examples(), dtype=torch.float64) as problem:
        found, risk = problem.gradient(), problem.risk()
    with opened(network(), "cross_entropy", examples(), dtype=torch.float64) as problem:
        assert torch.allclose(found, problem.gradient(), rtol=1e-9, atol=1e-12)
        assert risk == pytest.approx(problem.risk(), rel=1e-9)


# Which parameters


def test_frozen_parameters_are_not_measured() -> None:
    model = network()
    model[0].requires_grad_(False)
    with left_alone(model), opened(model, "cross_entropy", examples()) as problem:
        assert problem.layout.names == ("1.weight", "1.bias", "4.weight", "4.bias")
        assert problem.num_parameters == 6 + 6 + 18 + 3
        assert problem.gradient().shape == (33,)


def test_a_prefix_names_a_layer() -> None:
    model = network()
    with left_alone(model), opened(model, "cross_entropy", examples(), params="4") as problem:
        assert problem.layout.names == ("4.weight", "4.bias")
    with opened(model, "cross_entropy", examples(), params=["4.bias", "0"]) as problem:
        assert problem.layout.names == ("0.weight", "0.bias", "4.bias")  # in the order of the model
        part = problem.gradient()
    with opened(model, "cross_entropy", examples()) as problem:
        whole = problem.layout.split(problem.gradient())
    expected = torch.cat([whole[name].reshape(-1) for name in ("0.weight", "0.bias", "4.bias")])
    assert torch.allclose(part, expected, rtol=1e-5, atol=1e-7)


def test_naming_a_frozen_parameter_measures_it() -> None:
    model = network()
    model.requires_grad_(False)
    with left_alone(model), opened(model, "cross_entropy", examples(), params="0") as problem:
        assert problem.num_parameters == 36
        assert float(problem.gradient().norm()) > 0.0


def test_a_prefix_ends_at_a_dot() -> None:
    parameters = {"net.weight": torch.zeros(1), "network.weight": torch.zeros(1)}
    assert chosen_parameters(parameters, "net") == ("net.weight",)


def test_an_unused_parameter_has_gradient_zero() -> None:
    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    with opened(Ignoring(), "cross_entropy", examples()) as problem:
        parts = problem.layout.split(problem.gradient())
    assert float(parts["used.weight"].norm()) > 0.0
    assert torch.equal(parts["unused.weight"], torch.zeros(2, 2))
    assert torch.equal(parts["unused.bias"], torch.zeros(2))
    with opened(Ignoring(), "cross_entropy", examples(), params="unused") as problem:
        assert torch.equal(problem.gradient(), torch.zeros(6))


def test_all_parameters_frozen_is_an_error() -> None:
    model = network()
    model.requires_grad_(False)
    refused(model, "no parameter of the model requires a gradient")


@pytest.mark.parametrize(
    ("params", "match"), [("5", 'under "5"'), (["0", "weight"], 'under "weight"'), ([], "selects no parameter")]
)
def test_a_wrong_name_is_an_error(params: Any, match: str) -> None:
    refused(network(), match, params=params)


def test_a_wrong_name_is_told_what_there_is() -> None:
    refused(network(), "0.weight, 0.bias, 1.weight, 1.bias, 4.weight, 4.bias", params="body")


# What is refused


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
    model[1].running_var[:2] = torch.inf
    refused(model, "1.running_var holds 2 values that are not finite")


def test_examples_whose_loss_is_not_finite_are_counted() -> None:
    x, y = examples()
    x[3] = torch.nan
    refused(network(), "not finite on 1 of .*30 examples", data=(x, y))


def test_a_model_that_returns_no_tensor_is_an_error() -> None:
    model = nn.LSTM(5, 3)
    with left_alone(model), pytest.raises(TypeError, match="wrap it so that it returns one tensor"):  # noqa: SIM117
        with opened(model, "mse", examples()):
            pass

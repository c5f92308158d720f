"""What is measured: data, parameters and losses; and that the model stays as it was."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from overparam.foundations import allocator
from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Batch
from overparam.models.functional import chosen_parameters
from tests.support.opened import examples, left_alone, network, refused
from tests.support.oracles import evaluating

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


def test_freed_memory_is_kept_while_a_model_is_measured() -> None:
    before = allocator._keepers
    with opened(network(), "cross_entropy", examples()):
        assert allocator._keepers == before + 1
    with pytest.raises(RuntimeError, match="inside"), opened(network(), "cross_entropy", examples()):
        raise RuntimeError("inside")
    assert allocator._keepers == before


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


def test_an_unused_parameter_is_refused_by_name_or_held() -> None:
    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    with (
        pytest.raises(ValueError, match=r"no output depends on unused\.weight, unused\.bias.*unused=\"hold\""),
        opened(Ignoring(), "cross_entropy", examples()),
    ):
        pass
    with opened(Ignoring(), "cross_entropy", examples(), unused="hold") as problem:
        assert problem.layout.names == ("used.weight", "used.bias")
        assert "unused.weight" in problem.fixed


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

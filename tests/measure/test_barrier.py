"""Barriers against closed forms, symmetries of networks, and statistics computed by hand."""

import copy
import math
import re
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.comparison.barrier import loss_barrier
from overparam.models.risk import risk

Model = TypeVar("Model", bound=nn.Module)


def labelled(count: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch_generator(0, "test")
    return torch.randn(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def filled(model: Model, seed: int) -> Model:
    """Weights, and statistics of batch norm, from a stream of their own; in training mode, after 30 batches."""
    generator = torch_generator(seed, "weights")
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            value.data.copy_(0.2 + torch.rand(value.shape, generator=generator) * 1.5)
        else:
            value.data.fill_(30)
    for parameter in model.parameters():
        parameter.data.sub_(0.9)
    model.train()
    return model


def relu_net(seed: int) -> nn.Sequential:
    return filled(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), seed)


def norm_net(seed: int) -> nn.Sequential:
    return filled(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), seed)


def halfway(a: nn.Sequential, b: nn.Sequential) -> nn.Sequential:
    """The model in the middle, by plain averages of weights and statistics."""
    middle = copy.deepcopy(a)
    with torch.no_grad():
        for tensors in zip(
            (*middle.parameters(), *middle.buffers()),
            (*a.parameters(), *a.buffers()),
            (*b.parameters(), *b.buffers()),
            strict=True,
        ):
            if tensors[0].is_floating_point():
                tensors[0].copy_((tensors[1] + tensors[2]) / 2)
    return middle


def test_loss_is_a_quartic_between_opposite_linear_networks() -> None:
    """f(α) = (1 − 2.2α)² for target 1: catches a path in outputs, α walked backwards, and the ends' mean for the chord.

    At α = 5/11 f is 0, L is ½, and the chord from L(0) = 0 to L(1) = ½(1.44 − 1)² = 0.0968 is 0.044.
    """
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    a = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    b = {name: torch.full_like(value, -1.2) for name, value in a.items()}
    found = loss_barrier(model, a, b, (torch.ones(1, 1).double(), torch.tensor([0])), "mse", points=12)
    assert found.alphas.tolist() == pytest.approx([i / 11 for i in range(12)])
    assert torch.allclose(found.losses, 0.5 * ((1.0 - 2.2 * found.alphas) ** 2 - 1.0) ** 2, atol=1e-14)
    assert found.loss_barrier == pytest.approx(0.456, abs=1e-14)
    assert found.error_barrier == 0.0


def test_a_convex_loss_has_no_barrier() -> None:
    """Also where the ends differ: L(α) is below the chord, but above the lower end."""
    a, b = (filled(nn.Linear(4, 3), seed) for seed in (1, 2))
    for loss in ("mse", "cross_entropy"):
        found = loss_barrier(a, a, b, labelled(), loss)
        assert found.loss_barrier == 0.0
        assert abs(float(found.losses[0] - found.losses[-1])) > 0.01


def test_permuted_units_are_the_same_network_behind_a_barrier() -> None:
    a = relu_net(1)
    b = copy.deepcopy(a)
    order = torch.arange(7, -1, -1)
    first, last = b[0], b[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(first.weight[order].clone())
        first.bias.copy_(first.bias[order].clone())
        last.weight.copy_(last.weight[:, order].clone())
    x, _ = labelled()
    with torch.no_grad():
        y = a(x).argmax(1)
    found = loss_barrier(a, a, b, (x, y))
    assert float(found.losses[0]) == pytest.approx(float(found.losses[-1]), rel=1e-5)
    assert found.errors[0] == found.errors[-1] == 0.0
    assert found.loss_barrier > 0.1 and found.error_barrier > 0.1
    assert found.error_barrier == float(found.errors.max())
    assert torch.allclose(found.losses, found.losses.flip(0), rtol=1e-4)


def test_a_network_has_no_barrier_to_itself() -> None:
    """To the last digit: rounding of the weights or of the chord would leave one of 1e-8."""
    a = relu_net(1)
    found = loss_barrier(a, a, a, labelled(), points=17)
    assert found.loss_barrier == found.error_barrier == 0.0
    assert len(set(found.losses.tolist())) == 1


@pytest.mark.parametrize("build", [relu_net, norm_net])
def test_ends_have_exactly_the_risks_of_the_models(build: Any) -> None:
    a, b = build(1), build(2)
    x, y = labelled()
    found = loss_barrier(build(3), a, b.state_dict(), (x, y), statistics="interpolate")
    for i, model in ((0, a), (-1, b)):
        expected = risk(model, x, y)
        assert (float(found.losses[i]), float(found.errors[i])) == (expected.loss, 1.0 - expected.accuracy)
    middle = risk(halfway(a, b), x, y)
    assert float(found.losses[5]) == pytest.approx(middle.loss, rel=1e-5)


def test_without_batch_norm_there_are_no_statistics() -> None:
    a, b, data = relu_net(1), relu_net(2), labelled()
    one, other = (loss_barrier(a, a, b, data, statistics=each) for each in ("reestimate", "interpolate"))
    assert torch.equal(one.losses, other.losses)


def normalized_by_hand(model: nn.Sequential, parts: list[Tensor]) -> nn.Sequential:
    """A copy whose statistics are the means over the parts of their means and unbiased variances."""
    copied = copy.deepcopy(model)
    norm = copied[2]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        hidden = [copied[0](part) for part in parts]
        norm.running_mean.copy_(torch.stack([each.mean(0) for each in hidden]).mean(0))
        norm.running_var.copy_(torch.stack([each.var(0) for each in hidden]).mean(0))
    return copied


@pytest.mark.parametrize("count", [60, 1001])
def test_statistics_are_those_of_the_data_at_every_point(count: int) -> None:
    """1001 examples are two chunks of 501 and 500: a last one of a single example would be an error in training mode.

    Catches statistics that keep something of a or b, a momentum, dropout during the pass, and a pass before the weights
    are set.
    """
    a, b = norm_net(1), norm_net(2)
    x, y = labelled(count)
    parts = [x] if count == 60 else [x[::2], x[1::2]]
    found = loss_barrier(a, a, b, (x, y), points=3)
    for i, model in enumerate((a, halfway(a, b), b)):
        assert float(found.losses[i]) == pytest.approx(risk(normalized_by_hand(model, parts), x, y).loss, rel=1e-5)
    assert abs(float(found.losses[0]) - risk(a, x, y).loss) > 0.01  # the ends are re-estimated too


def test_sorted_data_has_the_statistics_of_all_classes() -> None:
    """Chunks of one class each would miss the variance between classes."""
    a = norm_net(1)
    x, y = torch.cat([labelled(1000)[0] - 3.0, labelled(1000)[0] + 3.0]), torch.arange(2).repeat_interleave(1000)
    found = loss_barrier(a, a, a, (x, y), points=3)
    assert float(found.losses[0]) == pytest.approx(risk(normalized_by_hand(a, [x]), x, y).loss, rel=1e-3)


def snapshot(model: nn.Module) -> list[Any]:
    """Everything of a model that could change, in values that compare."""
    modules = [(each.training, getattr(each, "momentum", None)) for each in model.modules()]
    gradients = [parameter.grad for parameter in model.parameters()]
    return [*modules, *gradients, *((name, value.tolist()) for name, value in model.state_dict().items())]


@pytest.mark.parametrize("labels", [0, 7], ids=["measured", "refused"])
def test_models_are_left_as_they_were(labels: int) -> None:
    model, a, b = norm_net(0), norm_net(1), norm_net(2)
    a[1].eval()  # every module has its own mode
    before = [snapshot(given) for given in (model, a, b)]
    data = labelled()[0], torch.full((60,), labels)
    if labels:
        with pytest.raises(ValueError, match=re.escape("labels lie in 7 … 7 for outputs of shape (N, 3)")):
            loss_barrier(model, a, b, data)
    else:
        loss_barrier(model, a, b, data)
    assert [snapshot(given) for given in (model, a, b)] == before


class Masked(nn.Module):
    """A buffer of infinities, as causal attention has them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.mask: Tensor
        self.register_buffer("mask", torch.tensor([0.0, -math.inf, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear(x) + torch.exp(self.mask)
        return outputs


def test_infinite_buffers_that_both_ends_share_stay() -> None:
    found = loss_barrier(Masked(), Masked(), Masked(), labelled())
    assert bool(found.losses.isfinite().all())


def changed(**values: Tensor) -> dict[str, Tensor]:
    return {"weight": torch.zeros(3, 4), "bias": torch.zeros(3), **values}


@pytest.mark.parametrize(
    ("a", "arguments", "match"),
    [
        ({"weight": torch.ones(3, 4)}, {}, "only one of model and a has bias"),
        (changed(extra=torch.ones(1)), {}, "only one of model and a has extra"),
        (changed(bias=torch.ones(2)), {}, "bias of a is torch.float32 of shape (2,); allowed: torch.float32 of shape"),
        (changed(bias=torch.ones(3).double()), {}, "bias of a is torch.float64"),
        (
            changed(bias=torch.full((3,), math.nan)),
            {},
            "bias of a holds 3 values that are not finite; measures need finite numbers",
        ),
        (changed(), {"points": 2}, "points = 2; allowed: an integer ≥ 3"),
        (changed(), {"loss": "hinge"}, 'loss = "hinge"; allowed: "cross_entropy", "mse"'),
        (changed(), {"statistics": "none"}, 'statistics = "none"; allowed: "reestimate", "interpolate"'),
        (changed(), {"data": (torch.ones(2, 4), torch.tensor([0]))}, "data has 2 inputs and 1 labels"),
        (changed(), {"data": (torch.ones(0, 4), torch.zeros(0).long())}, "data has 0 inputs and 0 labels"),
        (changed(), {"data": (torch.ones(2, 4), torch.ones(2, 3))}, "y is torch.float32 of shape (2, 3); allowed"),
        (changed(), {"data": (torch.ones(1, 4), torch.tensor([-1]))}, "labels lie in -1 … -1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_measured_is_an_error(a: dict[str, Tensor], arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        loss_barrier(nn.Linear(4, 3), a, nn.Linear(4, 3), **{"data": labelled(), **arguments})


def test_statistics_of_one_example_are_refused() -> None:
    with pytest.raises(ValueError, match="data has 1 inputs and 1 labels; allowed: equally many, at least 2"):
        loss_barrier(norm_net(0), norm_net(1), norm_net(2), labelled(1))

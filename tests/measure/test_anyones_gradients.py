"""Parameters that do not act and gradients that are none are refused with the reason, or measured rightly."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.gradient_noise import gradient_noise_scale
from overparam.measure.kernels.linearization import linearize
from overparam.measure.sharpness.weight_noise import perturbation_curve
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from tests.support.every_measure import CLASSES, IDS, MEASURES, SECOND_ORDER, assert_same_objects, measured, objects
from tests.support.networks import rows, shaken

# Parameters that do not act, gradients that are none


class Adapter(nn.Module):
    """Low-rank weights that `eval` merges into the layer, after which nothing depends on them."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.merged = nn.Linear(4, 3), False
        self.a, self.b = nn.Parameter(torch.ones(2, 4) / 3.0), nn.Parameter(torch.ones(3, 2) / 7.0)

    def train(self, mode: bool = True) -> "Adapter":
        if mode == self.merged:
            self.base.weight.data += (-1.0 if mode else 1.0) * (self.b @ self.a).detach()
            self.merged = not mode
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        return out if self.merged else out + x @ (self.b @ self.a).mT


@measured
def test_adapters_that_are_merged_for_evaluation_are_named(measure: Any) -> None:
    model = shaken(Adapter()).train()
    before = objects(model)
    if measure is MEASURES["barrier"]:
        measure(model, *rows(12))  # nothing is differentiated: it is right for any weights
    else:
        with pytest.raises(ValueError, match=r"no output depends on a, b"):
            measure(model, *rows(12))
    assert_same_objects(model, before)
    assert model.training and not model.merged


class Body(nn.Module):
    """A body that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = torch.tanh(self.body(x))
        out: Tensor = self.head(h)
        return out


@measured
def test_a_body_without_gradients_is_named_by_every_measure(measure: Any) -> None:
    if measure is not MEASURES["barrier"]:
        with pytest.raises(ValueError, match=r"no output depends on body\.weight, body\.bias"):
            measure(shaken(Body()), *rows(12))


def test_held_it_is_no_part_of_any_measure() -> None:
    model: Any = shaken(Body())
    data = rows(12)
    features = torch.tanh(model.body(data[0])).detach(), data[1]
    head = model.head
    options: dict[str, Any] = {"unused": "hold", "generator": torch_generator(0, "same")}
    alone = {"generator": torch_generator(0, "same")}
    curves = [
        perturbation_curve(m, "cross_entropy", d, [0.1], **o)
        for m, d, o in ((model, data, options), (head, features, alone))
    ]
    assert torch.allclose(curves[0].losses, curves[1].losses, rtol=1e-12)
    values = [
        top_eigenvalues(m, "cross_entropy", d, tol=1e-7, **o).values
        for m, d, o in ((model, data, options), (head, features, alone))
    ]
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-7)


@pytest.mark.parametrize("measure", [MEASURES[name] for name in SECOND_ORDER], ids=SECOND_ORDER)
def test_names_that_do_not_act_are_no_zero(measure: Any) -> None:
    model = shaken(Body())
    with pytest.raises(ValueError, match=r"no output depends on body\.weight, body\.bias"):
        top_eigenvalues(model, "cross_entropy", rows(12), params="body")


def test_gradients_that_are_scaled_by_frequency_are_measured_unscaled() -> None:
    scaled, plain = (nn.Embedding(5, 3, scale_grad_by_freq=each) for each in (True, False))
    models = [shaken(nn.Sequential(each, nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))) for each in (scaled, plain)]
    for name in (*SECOND_ORDER, "noise scale", "worst case"):
        one, other = (MEASURES[name](model, IDS, CLASSES) for model in models)
        assert repr(one) == repr(other), name
    assert scaled.scale_grad_by_freq and not plain.scale_grad_by_freq


class Rounded(Function):
    """A rounding whose gradient is passed straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (8.0 * x).round() / 8.0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Quantized(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, Rounded.apply(self.weight), self.bias)  # type: ignore[no-untyped-call]


class HeldNorm(nn.Linear):
    """A weight divided by a norm that counts as constant, as in DoRA."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / self.weight.norm(dim=1, keepdim=True).detach(), self.bias)


@pytest.mark.parametrize("name", [*SECOND_ORDER, "noise scale", "worst case", "ntk", "linearize", "report"])
@pytest.mark.parametrize("kind", [Quantized, HeldNorm])
def test_a_gradient_that_is_none_is_refused_with_the_reason(kind: Any, name: str) -> None:
    with pytest.raises(ValueError, match="is not the derivative of the outputs"):
        MEASURES[name](shaken(kind(4, 3)), *rows(12))


class Tripled(nn.Linear):
    """An operation in place that no gradient sees."""

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        with torch.no_grad():
            h.mul_(3.0)
        return torch.tanh(h)


class Fake(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.fake_quantize_per_tensor_affine(self.weight, 0.1, 0, -128, 127), self.bias)


@pytest.mark.parametrize("name", ["ggn", "noise scale", "ntk", "trace", "worst case"])
@pytest.mark.parametrize("kind", [Tripled, Fake])
def test_gradients_that_nothing_was_cut_off_from_are_looked_at_too(kind: Any, name: str) -> None:
    model, (x, y) = kind(4, 3), rows(12)
    with pytest.raises(ValueError, match="is not the derivative of the outputs"):
        MEASURES[name](model, x.float(), y)


@pytest.mark.parametrize("measure", [top_eigenvalues, gradient_noise_scale])
def test_a_loss_of_ones_own_is_looked_at(measure: Any) -> None:
    def focal(outputs: Tensor, y: Tensor) -> Tensor:
        p = F.softmax(outputs, 1).gather(1, y[:, None]).squeeze(1)
        return -((1.0 - p).detach() ** 2) * p.log()

    def honest(outputs: Tensor, y: Tensor) -> Tensor:
        p = F.softmax(outputs, 1).gather(1, y[:, None]).squeeze(1)
        return -((1.0 - p) ** 2) * p.log()

    def random(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y, reduction="none") * torch.rand(len(y))

    model, data = shaken(nn.Linear(4, 3)), rows(12)
    measure(model, honest, data)
    with pytest.raises(ValueError, match="gradient of the loss in the outputs is not its derivative"):
        measure(model, focal, data)
    with pytest.raises(ValueError, match="the loss gives other values for the same outputs"):
        measure(model, random, data)


class Held(nn.Module):
    """A head that is tied by a list, in which no other weights can be put."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.tied = [self.embedding.weight]

    def forward(self, ids: Tensor) -> Tensor:
        return (torch.tanh(self.embedding(ids)).mean(1) @ self.tied[0].T)[:, :3]


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "barrier"])
def test_a_parameter_in_a_list_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=r"uses embedding\.weight by another reference"):
        MEASURES[name](shaken(Held()), IDS, CLASSES)


@pytest.mark.parametrize("name", [*SECOND_ORDER, "noise", "worst case", "ntk"])
def test_a_forward_pass_that_writes_into_its_weights_is_refused(name: str) -> None:
    model = shaken(nn.Sequential(nn.Embedding(5, 3, max_norm=0.5), nn.Flatten(), nn.Linear(12, 3)))
    with pytest.raises(ValueError, match=r"writes into 0\.weight"):
        MEASURES[name](model, IDS, CLASSES)


def test_a_tied_padding_row_moves_by_the_head_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 3, padding_idx=0)

        def forward(self, ids: Tensor) -> Tensor:
            return (torch.tanh(self.embedding(ids)).mean(1) @ self.embedding.weight.T)[:, :3]

    model = shaken(Tied())
    (weight,) = model.parameters()
    change = torch.ones_like(weight)
    outputs = model(IDS)
    slopes = [torch.autograd.grad(each, weight, retain_graph=True)[0] for each in outputs.reshape(-1)]
    expected = outputs + torch.stack([(slope * change).sum() for slope in slopes]).reshape(outputs.shape)
    found = linearize(model, IDS)({"embedding.weight": weight + change})
    assert torch.allclose(found, expected, rtol=1e-10)


def test_words_are_given_for_any_chunk_of_the_data() -> None:
    x = torch.randint(0, 5, (300, 4), generator=torch_generator(0, "ids"))
    x[290, 0] = 7
    model = shaken(nn.Sequential(nn.Embedding(5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)))
    for name in ("trace", "noise", "noise scale", "ntk"):
        with pytest.raises(ValueError, match="the model fails on inputs"):
            MEASURES[name](model, x, torch.zeros(300, dtype=torch.long))


@pytest.mark.parametrize("kind", [Quantized, HeldNorm])
def test_noise_on_its_weights_is_measured(kind: Any) -> None:
    assert MEASURES["noise"](shaken(kind(4, 3)), *rows(12)).base_loss > 0.0

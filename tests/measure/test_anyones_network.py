"""Networks as people bring them: numbers that are right, or true words; and always the same objects afterwards."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.nn.parallel import DataParallel
from torch.nn.utils import prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.comparison.barrier import loss_barrier
from overparam.measure.gradient_noise import gradient_noise_scale
from overparam.measure.kernels.empirical import empirical_ntk
from overparam.measure.kernels.linearization import linearize
from overparam.measure.sharpness.card import sharpness_report
from overparam.measure.sharpness.weight_noise import perturbation_curve
from overparam.measure.sharpness.worst_case import worst_case_sharpness
from overparam.measure.spectrum.density import spectral_density
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.measure.spectrum.trace import hessian_frobenius, hessian_trace
from overparam.models.masks import magnitude_mask
from tests.support.networks import rows, shaken

F64 = torch.float64
IDS = torch.tensor([[1, 2, 2, 0], [3, 3, 1, 4], [0, 0, 2, 1], [4, 1, 1, 1], [2, 3, 4, 0], [1, 0, 3, 3]])
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])

MEASURES: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "eigenvalues": lambda m, x, y: top_eigenvalues(m, "cross_entropy", (x, y), which="both"),
    "ggn": lambda m, x, y: top_eigenvalues(m, "cross_entropy", (x, y), curvature="ggn"),
    "trace": lambda m, x, y: hessian_trace(m, "cross_entropy", (x, y), max_products=9),
    "frobenius": lambda m, x, y: hessian_frobenius(m, "cross_entropy", (x, y), max_products=4),
    "density": lambda m, x, y: spectral_density(m, "cross_entropy", (x, y), steps=4, probes=2),
    "noise": lambda m, x, y: perturbation_curve(m, "cross_entropy", (x, y), [0.1], draws=2),
    "worst case": lambda m, x, y: worst_case_sharpness(m, "cross_entropy", (x, y), radius=0.05, steps=3, restarts=1),
    "noise scale": lambda m, x, y: gradient_noise_scale(m, "cross_entropy", (x, y)),
    "report": lambda m, x, y: sharpness_report(m, "cross_entropy", (x, y)),
    "ntk": lambda m, x, y: empirical_ntk(m, x),
    "linearize": lambda m, x, y: linearize(m, x)(m),
    "barrier": lambda m, x, y: loss_barrier(m, m.state_dict(), m.state_dict(), (x, y), points=3),
}
SECOND_ORDER = ("eigenvalues", "ggn", "trace", "frobenius", "density")
# A report is all the others twice: what it does with a network they do too, and it takes as long as all of them.
CASES = [pytest.param(each, id=name, marks=[pytest.mark.slow] * (name == "report")) for name, each in MEASURES.items()]
measured = pytest.mark.parametrize("measure", CASES)


def reference(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The Hessian by double backward over the model's own parameters, in eval mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    values = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(F.cross_entropy(model(x), y), values, create_graph=True)
    flat = torch.cat([slope.reshape(-1) for slope in slopes])
    found = [torch.autograd.grad(each, values, retain_graph=True, materialize_grads=True) for each in flat]
    for module, mode in modes:
        module.training = mode
    return torch.stack([torch.cat([part.reshape(-1) for part in parts]) for parts in found])


def assert_spectrum(model: nn.Module, x: Tensor, y: Tensor, tol: float = 1e-6) -> None:
    spectrum = torch.linalg.eigvalsh(reference(model, x, y).double())
    found = top_eigenvalues(model, "cross_entropy", (x, y), which="both", tol=1e-7 if tol < 1e-5 else 1e-3)
    assert float(found.values[0]) == pytest.approx(float(spectrum[-1]), abs=tol * float(spectrum.abs().max()))
    assert float(found.values[1]) == pytest.approx(float(spectrum[0]), abs=tol * float(spectrum.abs().max()))


# The very objects


class TwoNames(nn.Module):
    """A layer under two names, as `self.fc1` and in `self.body`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 5)
        self.body = nn.Sequential(self.fc1, nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList([nn.Linear(4, 4)] * 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        out: Tensor = self.head(x)
        return out


def objects(model: nn.Module) -> list[tuple[int, Tensor]]:
    registries = [held for module in model.modules() for held in (module._parameters, module._buffers)]
    return [(id(value), value.detach().clone()) for held in registries for value in held.values() if value is not None]


def assert_same_objects(model: nn.Module, before: list[tuple[int, Tensor]]) -> None:
    after = objects(model)
    assert [one for one, _ in after] == [one for one, _ in before]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(after, before, strict=True))
    assert all(isinstance(value, nn.Parameter) for value in model.parameters())


@measured
@pytest.mark.parametrize("kind", [TwoNames, Repeated])
def test_a_module_under_two_names_keeps_its_parameters(kind: type[nn.Module], measure: Any) -> None:
    model = shaken(kind())
    before = objects(model)
    measure(model, *rows(12))
    assert_same_objects(model, before)


@measured
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_they_are_kept_when_a_pass_ends_in_an_error(error: type[BaseException], measure: Any) -> None:
    model: Any = shaken(TwoNames()).train()
    passes = 0

    def breaking(*_: Any) -> None:
        nonlocal passes
        passes += 1
        if passes >= 3:
            raise error

    handle = model.body[1].register_forward_hook(breaking)
    before = objects(model)
    with pytest.raises((error, ValueError)):
        measure(model, *rows(12))
    handle.remove()
    assert_same_objects(model, before)
    assert all(module.training for module in model.modules())


def test_layers_that_are_shared_have_the_right_spectrum() -> None:
    for model in (shaken(TwoNames()), shaken(Repeated())):
        assert_spectrum(model, *rows(12))


# Fast routes


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(3, 4, generator=torch_generator(0, "centres"), dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(x, self.centres)


def gauss_newton(model: nn.Module, x: Tensor) -> Tensor:
    values = list(model.parameters())
    outputs = model(x)
    rows_of = [torch.autograd.grad(each, values, retain_graph=True) for each in outputs.reshape(-1)]
    jacobian = torch.stack([torch.cat([part.reshape(-1) for part in parts]) for parts in rows_of])
    jacobian = jacobian.reshape(len(x), 3, -1)
    p = F.softmax(outputs.detach(), 1)
    inner = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    return torch.einsum("ncp,ncd,ndq->pq", jacobian, inner, jacobian) / len(x)


@pytest.mark.parametrize("curvature", ["ggn", "fisher"])
@pytest.mark.parametrize(
    "model", [Distances(), nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.Linear(6, 3))], ids=["cdist", "PReLU"]
)
def test_the_gram_route_is_right_where_vmap_is_not(model: nn.Module, curvature: Any) -> None:
    model, (x, y) = model.double(), rows(3)
    largest = float(torch.linalg.eigvalsh(gauss_newton(model, x))[-1])
    found = top_eigenvalues(model, "cross_entropy", (x, y), curvature=curvature, tol=1e-7)
    assert float(found.values[0]) == pytest.approx(largest, rel=1e-8)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.GroupNorm(1, 2), nn.Flatten(), nn.Tanh(), nn.Linear(4, 3)),
        nn.Sequential(
            nn.Linear(4, 18),
            nn.Tanh(),
            nn.Unflatten(1, (2, 3, 3)),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(2, 3),
        ),
    ],
    ids=["GroupNorm", "AdaptiveMaxPool2d"],
)
def test_blocks_of_vectors_go_one_by_one_where_pytorch_cannot_batch_them(model: nn.Module) -> None:
    model, data = shaken(model), rows(8)
    matrix = reference(model, *data)
    size = len(matrix)
    found = hessian_trace(model, "cross_entropy", data, max_products=3 * size)
    assert found.value == pytest.approx(float(matrix.trace()), abs=1e-9 * float(matrix.abs().max()))


# Masks, casts, kernels


class Causal(nn.Module):
    """Attention with a mask of −∞ in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embedding(ids)
        h = torch.softmax(h @ h.mT / 2.0 + self.get_buffer("mask").to(h), -1) @ h
        out: Tensor = self.head(h.mean(1))
        return out


def causal() -> nn.Module:
    model = shaken(Causal())
    model.get_buffer("mask").copy_(Causal().get_buffer("mask"))
    return model


@measured
def test_a_mask_in_a_buffer_is_no_weight(measure: Any) -> None:
    measure(causal(), IDS, CLASSES)


def test_attention_behind_a_mask_has_the_right_spectrum() -> None:
    assert_spectrum(causal(), IDS, CLASSES)


class Upcasting(nn.Module):
    """Normalization and softmax in float32 whatever the weights are in, as in Llama."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).float()
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)
        h = torch.softmax(h, -1, dtype=torch.float32).to(x.dtype)
        out: Tensor = self.last(h).float()
        return out


@measured
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_model_is_not_blamed_for_the_precision_that_it_passes_through(dtype: torch.dtype, measure: Any) -> None:
    x, y = rows(12)
    measure(shaken(Upcasting()).to(dtype), x.to(dtype), y)


def test_its_spectrum_is_right_to_that_precision() -> None:
    x, y = rows(12)
    assert_spectrum(shaken(Upcasting()).float(), x.float(), y, tol=1e-3)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 1, 5, 0, 2, 4]])
def test_padding_among_the_first_examples_changes_nothing(order: list[int]) -> None:
    """PyTorch gives the row no gradient: it counts as fixed, wherever the padding is."""
    model = shaken(nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)))
    assert_spectrum(model, IDS[order], CLASSES[order])


class Padded(nn.Module):
    """A padding mask, for which attention takes other kernels where no gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)
        self.body = nn.TransformerEncoder(layer, 1)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.embedding(ids), src_key_padding_mask=ids == 0).mean(1))
        return out


def test_loss_and_gradient_are_of_one_function() -> None:
    model = shaken(Padded()).eval()
    data = IDS, CLASSES
    curve = perturbation_curve(model, "cross_entropy", data, [0.0, 1e-3])
    with_gradient = F.cross_entropy(model(IDS), CLASSES)
    assert curve.base_loss == pytest.approx(with_gradient.item(), rel=1e-12)
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(with_gradient, list(model.parameters()))])
    found = worst_case_sharpness(model, "cross_entropy", data, radius=1e-4)
    assert found.value == pytest.approx(1e-4 * float(slope.norm()), rel=1e-2)


def test_a_model_that_asks_for_gradients_what_to_compute_is_refused() -> None:
    class Asking(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2.0 if self.weight.requires_grad else 1.0)

    with pytest.raises(ValueError, match="gradient is of another function than its loss"):
        perturbation_curve(shaken(Asking(4, 3)), "cross_entropy", rows(), [0.1])


class Caching(nn.Module):
    """Biases that the first pass in eval mode computes for all others, as some attention layers have."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.bias, self.cache = nn.Linear(4, 3), nn.Parameter(torch.zeros(3)), dict[str, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.cache = {}
        bias = torch.exp(self.bias) if self.training else self.cache.setdefault("bias", torch.exp(self.bias))
        out: Tensor = self.body(x) + bias
        return out


@measured
def test_what_a_pass_keeps_for_the_next_is_taken_away(measure: Any) -> None:
    model: Any = shaken(Caching())
    measure(model, *rows(12))
    assert model.cache == {}


def test_a_path_through_it_has_the_losses_of_its_points() -> None:
    (x, y), model = rows(12), shaken(Caching())
    end = {name: value + 0.5 for name, value in model.state_dict().items()}
    found = loss_barrier(model, model, end, (x, y), points=3)
    assert found.losses[2] > 0.0
    bias, weight, shift = end["bias"], end["body.weight"], end["body.bias"]
    expected = F.cross_entropy(F.linear(x, weight, shift) + torch.exp(bias), y)
    assert float(found.losses[2]) == pytest.approx(expected.item(), rel=1e-12)


# The caller's inputs


class Subtracting(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        x -= 1.0
        return super().forward(x)


@measured
@pytest.mark.parametrize(
    "model", [Subtracting(4, 3), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))], ids=["minus one", "ReLU"]
)
def test_a_model_that_writes_into_its_inputs_writes_into_copies(model: nn.Module, measure: Any) -> None:
    x, y = rows(12)
    kept = x.clone()
    measure(shaken(model), x, y)
    assert torch.equal(x, kept)


def test_a_network_that_writes_has_no_barrier_with_itself_and_the_kernel_of_what_it_computes() -> None:
    (x, y), model = rows(12), shaken(Subtracting(4, 3))
    assert loss_barrier(model, model, model, (x, y)).loss_barrier == 0.0
    plain = nn.Linear(4, 3).double()
    assert torch.allclose(empirical_ntk(model, x), empirical_ntk(plain, x - 1.0), rtol=1e-12)


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


# Weights that hooks compute


def hooked() -> dict[str, Callable[[], nn.Module]]:
    def pruned(layer: nn.Linear) -> nn.Module:
        prune.l1_unstructured(layer, "weight", amount=0.3)  # type: ignore[no-untyped-call]
        return layer

    kinds: dict[str, Callable[[nn.Linear], nn.Module]] = {
        "prune": pruned,
        "weight_norm": old_weight_norm,
        "spectral_norm": old_spectral_norm,
    }

    def made(of: Callable[[nn.Linear], nn.Module]) -> nn.Module:
        return nn.Sequential(of(nn.Linear(4, 5).double()), nn.Tanh(), nn.Linear(5, 3).double())

    return {name: partial(made, of) for name, of in kinds.items()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@measured
@pytest.mark.parametrize("made", hooked().values(), ids=hooked())
def test_weights_that_hooks_compute_are_left_as_they_were(made: Any, measure: Any) -> None:
    model, data = made(), rows(12)
    model(data[0])
    before, weight, values = objects(model), model[0].weight, model[0].weight.detach().clone()
    measure(model, *data)
    assert_same_objects(model, before)
    assert model[0].weight is weight and torch.equal(weight, values)


def test_what_torch_has_pruned_stays_pruned() -> None:
    layer = nn.Linear(4, 5)
    prune.l1_unstructured(layer, "weight", amount=10)  # type: ignore[no-untyped-call]
    found = magnitude_mask(layer.state_dict(), 0.5)
    assert list(found) == ["weight_orig"] and int(found["weight_orig"].sum()) == 5
    assert not bool((found["weight_orig"] & ~layer.get_buffer("weight_mask").bool()).any())
    with pytest.raises(ValueError, match=r"weight_orig is what torch.nn.utils.prune.*state_dict"):
        magnitude_mask(dict(layer.named_parameters()), 0.5)


# Words instead of PyTorch's errors, and what needs none


class Returning(nn.Linear):
    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__(4, 3)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(super().forward(x))


@measured
def test_logits_of_a_mapping_are_the_outputs(measure: Any) -> None:
    measure(shaken(Returning(lambda z: {"logits": z, "hidden": z.square()})), *rows(12))


@measured
@pytest.mark.parametrize(
    ("form", "match"),
    [
        (lambda z: (z, z), "returns a tuple; allowed: one tensor"),
        (lambda z: {"scores": z}, "returns a dict; allowed: one tensor"),
        (lambda z: {"logits": z, "aux_loss": z.mean()}, "returns aux_loss beside its outputs"),
    ],
)
def test_other_outputs_are_refused_by_every_measure(form: Any, match: str, measure: Any) -> None:
    with pytest.raises(ValueError, match=match):
        measure(shaken(Returning(form)), *rows(12))


def test_sparse_embeddings_are_measured() -> None:
    models = [
        shaken(nn.Sequential(nn.Embedding(5, 3, sparse=sparse), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)))
        for sparse in (True, False)
    ]
    for name, measure in MEASURES.items():
        one, other = (measure(model, IDS, CLASSES) for model in models)
        assert repr(one) == repr(other), name
    assert models[0].get_submodule("0").sparse


@measured
@pytest.mark.parametrize(
    "wrap", [DataParallel, lambda m: torch.compile(m, backend="eager")], ids=["parallel", "compiled"]
)
def test_wrapped_models_are_measured_as_what_is_inside(wrap: Any, measure: Any) -> None:
    model, data = shaken(TwoNames()), rows(12)
    one, other = measure(wrap(model), *data), measure(model, *data)
    assert repr(one) == repr(other)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(nn.Linear(4, 3).double(), torch.ones(2, 4, dtype=F64))  # type: ignore[no-any-return,no-untyped-call]


@measured
@pytest.mark.parametrize(
    ("made", "match"),
    [
        (scripted, "ScriptModule.*pass the torch.nn.Module"),
        (lambda: nn.LazyLinear(3), "has no shape yet"),
        (lambda: nn.Linear(4, 3, device="meta"), "on the device meta"),
    ],
    ids=["script", "lazy", "meta"],
)
def test_modules_that_cannot_be_measured_are_refused(made: Callable[[], nn.Module], match: str, measure: Any) -> None:
    model = made()
    with pytest.raises(ValueError, match=match):
        (measure if measure is not MEASURES["barrier"] else barrier_of_plain)(model, *rows(12))


def barrier_of_plain(model: nn.Module, x: Tensor, y: Tensor) -> object:
    state = nn.Linear(4, 3).double().state_dict()
    return loss_barrier(model, state, state, (x, y))


@measured
def test_inputs_in_another_precision_are_brought_to_that_of_the_model(measure: Any) -> None:
    x, y = rows(12)
    model = shaken(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))).float()
    assert repr(measure(model, x, y)) == repr(measure(model, x.float(), y))


@measured
def test_images_as_bytes_are_refused_with_the_conversion(measure: Any) -> None:
    with pytest.raises(ValueError, match=r"x.float\(\) / 255"):
        measure(nn.Linear(4, 3), torch.ones(12, 4, dtype=torch.uint8), rows(12)[1])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint16, torch.int32])
def test_labels_of_other_kinds_are_classes(dtype: torch.dtype) -> None:
    x, y = rows(12)
    y = y % 2
    model = shaken(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    for name, measure in MEASURES.items():
        assert repr(measure(model, x, y.to(dtype))) == repr(measure(model, x, y)), name


class Energy(nn.Module):
    """Outputs that are slopes of an energy, taken in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        (slope,) = torch.autograd.grad(self.body(x).sum(), x, create_graph=True)
        return -slope


def test_networks_that_differentiate_themselves_are_measured() -> None:
    model: Any = shaken(Energy())
    x, y = rows(12)[0][:, :3].contiguous(), rows(12)[1]
    model.body[2].bias.requires_grad_(False)  # no slope depends on it
    for measure in MEASURES.values():
        measure(model, x, y)
    assert not x.requires_grad
    assert_spectrum(model, x, y)


def test_outputs_in_another_precision_have_a_kernel() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), rows(12)[0].float()
    assert empirical_ntk(nn.Sequential(model, Cast()), x).dtype is torch.float32
    assert torch.allclose(empirical_ntk(nn.Sequential(model, Cast()), x), empirical_ntk(model, x), rtol=1e-5)


class Cast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def test_nodes_of_one_graph_are_refused_with_the_reason() -> None:
    class Graph(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + x.roll(1, 0))

    for measure in MEASURES.values():
        with pytest.raises(ValueError, match="nodes of one graph"):
            measure(shaken(Graph(4, 3)), *rows(12))

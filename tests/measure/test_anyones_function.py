"""Fast routes, casts, masks, kernels and caches: every measure is of the function that the network is."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.comparison.barrier import loss_barrier
from overparam.measure.sharpness.weight_noise import perturbation_curve
from overparam.measure.sharpness.worst_case import worst_case_sharpness
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.measure.spectrum.trace import hessian_trace
from tests.support.every_measure import CLASSES, F64, IDS, assert_spectrum, measured, reference
from tests.support.networks import rows, shaken

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

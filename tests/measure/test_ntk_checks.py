"""Models that look like layers and are not: the kernel is the Jacobians', or the model is refused."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from overparam.measure.kernels.empirical import empirical_kernel, empirical_ntk
from tests.support.kernels import jacobian_kernel

X = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([5, 2, 4, 1, 3, 2, 3])
IDS = torch.arange(1, 36).reshape(7, 5) % 11 + 1
IDS = IDS * (torch.arange(5) < LENGTHS[:, None])


class Layers(nn.Module):
    """Two linear layers and an embedding for the models below, each with a forward pass of its own."""

    count: Tensor

    def __init__(self, forward: Callable[["Layers", Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.embedding = nn.Linear(6, 6), nn.Linear(6, 3), nn.Embedding(12, 6)
        self.register_buffer("count", torch.zeros(()))
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def sorted_by_length(m: Layers, ids: Tensor) -> Tensor:
    order = (ids != 0).sum(1).argsort(descending=True)
    hidden = torch.tanh(m.a(m.embedding(ids[order]))) * (ids[order] != 0)[:, :, None]
    out: Tensor = m.b(hidden.sum(1)[order.argsort()])
    return out


def second_use_for_large(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.b(m.a(x) + 0.1 * (x @ m.a.weight.roll(1, 0).T) * (x[:, :1].abs() > 1.0))
    return out


def tiny_second_use(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.b(m.a(x) + 2e-4 * (x @ m.a.weight.T))
    return out


def tied_at_the_head(m: Layers, ids: Tensor) -> Tensor:
    return F.linear(torch.tanh(m.a(m.embedding(ids))).mean(1), m.embedding.weight[:4])


def masked_in_place(m: Layers, x: Tensor) -> Tensor:
    weight = m.a.weight.clone()
    weight[:, :2] = 0.0
    out: Tensor = m.b(torch.tanh(F.linear(x, weight)))
    return out


def diagonal_in_place(m: Layers, x: Tensor) -> Tensor:
    weight = m.a.weight.clone()
    torch.diagonal(weight).zero_()
    out: Tensor = m.b(F.linear(x, weight))
    return out


def routed(m: Layers, ids: Tensor) -> Tensor:
    """Each token goes to one of two layers, so that a layer sees another number of them from each example."""
    tokens = m.embedding(ids)
    flat, first = tokens.reshape(-1, 6), (ids % 2 == 0).flatten()
    out = torch.zeros_like(flat)
    routes: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [(m.a, first), (lambda x: m.a(x).tanh(), ~first)]
    for layer, rows in routes:
        chosen = rows.nonzero()[:, 0]
        out = out.index_add(0, chosen, layer(flat[chosen]))
    result: Tensor = m.b(torch.tanh(out).reshape(tokens.shape).mean(1))
    return result


def one_by_one(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.b(torch.stack([torch.tanh(m.a(each[None])).mean(0) for each in x]))
    return out


def vmapped(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.b(torch.vmap(lambda each: torch.tanh(m.a(each[None])).mean(0))(x))
    return out


def other_layers_for_three(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.b(m.a(x) if len(x) < 3 else F.linear(x, m.a.weight) + m.a.bias)
    return out


def counting(m: Layers, x: Tensor) -> Tensor:
    m.count += 1
    return m.b(m.a(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("forward", "x", "jacobian"),
    [
        (sorted_by_length, IDS, "a embedding"),
        (second_use_for_large, X, "a"),
        (tiny_second_use, X, "a"),
        (tied_at_the_head, IDS, "embedding"),
        (masked_in_place, X, "a.weight"),
        (diagonal_in_place, X, "a.weight"),
        (routed, IDS, "a"),
        (one_by_one, X, "a b"),
        (vmapped, X, "a b"),
        (other_layers_for_three, X, "a b"),
        (counting, X, ""),
    ],
)
def test_what_is_not_a_layer_goes_by_its_jacobian(
    forward: Callable[[Layers, Tensor], Tensor], x: Tensor, jacobian: str
) -> None:
    model = Layers(forward).double()
    x = x.double() if x.is_floating_point() else x
    before = copy.deepcopy(model.state_dict())
    found = empirical_kernel(model, x, unused="hold")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    true = jacobian_kernel(model, x, x)
    assert float((found.values - true).abs().max()) < 1e-12 * float(true.abs().max())
    through = {name for name, route in found.routes.items() if route == "jacobian"}
    assert through == {name for name in found.routes if name.startswith(tuple(jacobian.split()) or "none")}


def branching(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.b(m.a(x)) if bool((x > 5).any()) else m.b(x)
    return out


def centred(m: Layers, x: Tensor) -> Tensor:
    hidden = m.a(x)
    out: Tensor = m.b(torch.tanh(hidden - hidden.mean(0)))
    return out


ONE = torch.cat([X, X[:1] + 10, X[:1]])


@pytest.mark.parametrize(
    ("forward", "x"),
    [(branching, ONE), (branching, ONE[[0, 7, 0, 0]]), (centred, ONE), (centred, torch.cat([X + 10, X]))],
    ids=["one", "first and last the same", "means", "means of two kinds"],
)
def test_examples_that_change_with_the_others_are_refused(
    forward: Callable[[Layers, Tensor], Tensor], x: Tensor
) -> None:
    with pytest.raises(ValueError, match="others in its batch"):
        empirical_ntk(Layers(forward), x, unused="hold")


def test_one_example_against_others_is_checked_on_the_others() -> None:
    with pytest.raises(ValueError, match="others in its batch"):
        empirical_ntk(Layers(centred), X[:1], X, unused="hold")


def checkpointed(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.b(checkpoint(lambda each: torch.tanh(m.a(each)), x, use_reentrant=False))
    return out


def test_saving_by_hooks_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="turn gradient checkpointing and offloading off"):
        empirical_ntk(Layers(checkpointed), X)


def test_a_maximal_norm_that_no_embedding_reaches_changes_nothing() -> None:
    model = nn.Sequential(nn.Embedding(12, 6, max_norm=100.0), nn.Flatten(), nn.Linear(30, 2))
    before = copy.deepcopy(model.state_dict())
    found = empirical_ntk(model, IDS)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    true = jacobian_kernel(model, IDS, IDS)
    assert float((found - true).abs().max()) < 1e-5 * float(true.abs().max())


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.1)),
        nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)),
        nn.Sequential(nn.Linear(6, 6), nn.RReLU()),
    ],
)
def test_a_model_in_training_mode_is_measured_in_eval_mode(model: nn.Module) -> None:
    model.add_module("head", nn.Linear(6, 2))
    found = empirical_ntk(model, X)
    assert all(module.training for module in model.modules())
    assert torch.equal(found, empirical_ntk(model.eval(), X))


def test_inputs_are_cast_to_the_precision_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    assert torch.equal(empirical_ntk(model, X.double()), empirical_ntk(model, X))


def test_half_precision_is_computed_in_float32() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).bfloat16()
    found = empirical_ntk(model, X.bfloat16())
    true = jacobian_kernel(model.float(), X.bfloat16().float(), X.bfloat16().float())
    assert found.dtype == torch.float32
    assert float((found - true).abs().max()) < 1e-5 * float(true.abs().max())


def test_several_precisions_and_arrays_are_refused() -> None:
    mixed = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2).double())
    with pytest.raises(ValueError, match="float32 and float64; bring them to one"):
        empirical_ntk(mixed, X)
    with pytest.raises(ValueError, match="x1 is a ndarray; give a tensor"):
        empirical_ntk(nn.Linear(6, 2), np.zeros((2, 6)))  # type: ignore[arg-type]


def test_one_output_may_come_without_an_axis() -> None:
    flat, column = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), nn.Sequential(nn.Linear(6, 1))
    column.load_state_dict(flat.state_dict())
    assert torch.equal(empirical_ntk(flat, X), empirical_ntk(column, X))


def tied_layers(m: Layers, x: Tensor) -> Tensor:
    out: Tensor = m.b(torch.tanh(m.a(torch.tanh(m.a(x)))))
    return out


def peak_memory(model: nn.Module, x: Tensor, max_memory: int) -> int:
    """Bytes that PyTorch holds at most during a call, besides the kernel."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kernel = empirical_ntk(model, x, max_memory=max_memory, unused="hold")
    now = highest = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            highest = max(highest, now)
    return highest - kernel.numel() * kernel.element_size()


@pytest.mark.parametrize("route", ["jacobian", "structured"])
@pytest.mark.parametrize("max_memory", [15_000_000, 30_000_000])
def test_memory_stays_below_the_bound(route: str, max_memory: int) -> None:
    model = Layers(tied_layers if route == "jacobian" else counting)
    model.a, model.b = nn.Linear(128, 128), nn.Linear(128, 10)
    if route == "structured":
        model.a = nn.Sequential(*[nn.Linear(128, 128) for _ in range(4)])  # type: ignore[assignment]
    x = torch.randn(40 if route == "jacobian" else 400, 128, generator=torch.Generator().manual_seed(0))
    empirical_ntk(model, x[:2], unused="hold")
    copies = 4 * 2 * sum(p.numel() for p in model.parameters())  # of the parameters, and their gradient in the check
    assert 0.2 * max_memory < peak_memory(model, x, max_memory) < max_memory + copies

"""Outputs, wrappers, inputs and labels of other kinds are measured, or refused in words."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from overparam.measure.comparison.barrier import loss_barrier
from overparam.measure.kernels.empirical import empirical_ntk
from tests.support.every_measure import (
    CLASSES,
    F64,
    IDS,
    MEASURES,
    assert_spectrum,
    measured,
)
from tests.support.networks import TwoNames, rows, shaken

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

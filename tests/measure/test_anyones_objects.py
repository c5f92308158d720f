"""The caller's objects, inputs and hooked weights are the same afterwards, whatever network they belong to."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from overparam.measure.comparison.barrier import loss_barrier
from overparam.measure.kernels.empirical import empirical_ntk
from overparam.models.masks import magnitude_mask
from tests.support.every_measure import assert_same_objects, assert_spectrum, measured, objects
from tests.support.networks import Repeated, TwoNames, rows, shaken


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

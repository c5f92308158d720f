"""A thin network has the curvature and the kernel of its kept weights, and of no others."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.comparison.movement import parameter_movement
from overparam.measure.kernels.empirical import empirical_ntk
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.models.build import build
from overparam.models.masks import Mask, magnitude_mask, masked
from overparam.models.thin import thin
from overparam.specs import CNN, MLP


def pruned(spec: MLP | CNN, shape: tuple[int, ...]) -> tuple[nn.Module, Mask]:
    model = build(spec, shape, 3, generator=torch_generator(0, "init")).double().eval()
    mask = magnitude_mask(dict(model.named_parameters()), 0.6)
    model.load_state_dict({**model.state_dict(), **masked(dict(model.named_parameters()), mask)})
    return model, mask


def kept_weights(model: nn.Module, mask: Mask) -> tuple[Tensor, "list[tuple[str, Tensor]]"]:
    """All kept weights in one vector, and where each tensor's lie."""
    places = [(n, mask.get(n, torch.ones_like(p, dtype=torch.bool))) for n, p in model.named_parameters()]
    parameters = dict(model.named_parameters())
    return torch.cat([parameters[n].detach()[where] for n, where in places]), places


def outputs(model: nn.Module, places: "list[tuple[str, Tensor]]", vector: Tensor, x: Tensor) -> Tensor:
    """The thin network written out: a function of the kept weights."""
    sizes = [int(where.sum()) for _, where in places]
    parts = torch.split(vector, sizes)
    full = {
        n: torch.zeros(where.shape, dtype=vector.dtype).masked_scatter(where, v)
        for (n, where), v in zip(places, parts, strict=True)
    }
    return torch.as_tensor(functional_call(model, full, (x,)))


@pytest.mark.parametrize(("spec", "shape"), [(MLP(width=6, depth=3), (5,)), (CNN(channels=1), (1, 8, 8))])
def test_eigenvalues_and_kernel_are_those_of_the_kept_weights(spec: MLP | CNN, shape: tuple[int, ...]) -> None:
    model, mask = pruned(spec, shape)
    x, y = torch.randn(6, *shape, generator=torch_generator(1, "x")).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    vector, places = kept_weights(model, mask)
    jacobian = torch.autograd.functional.jacobian(lambda v: outputs(model, places, v, x), vector)  # type: ignore[no-untyped-call]
    kernel = torch.einsum("acp,bdp->abcd", jacobian, jacobian)
    loss = nn.functional.cross_entropy
    hessian = torch.autograd.functional.hessian(  # type: ignore[no-untyped-call]
        lambda v: loss(outputs(model, places, v, x), y), vector
    )
    full = top_eigenvalues(model, "cross_entropy", (x, y), which="both", tol=1e-6, max_products=400)
    found = top_eigenvalues(thin(model, mask), "cross_entropy", (x, y), which="both", tol=1e-6, max_products=400)
    ends = torch.linalg.eigvalsh(hessian)[[-1, 0]]
    torch.testing.assert_close(found.values[:, 0].double(), ends, rtol=1e-4, atol=1e-7)
    assert abs(float(full.values[0, 0]) / float(ends[0]) - 1) > 0.01, "pruned directions would have counted"
    torch.testing.assert_close(empirical_ntk(model, x, outputs="full").double(), kernel, rtol=1e-4, atol=1e-6)


def test_outputs_and_movement_stay() -> None:
    spec = MLP(width=6, depth=3)
    (model, mask), (other, _) = pruned(spec, (5,)), pruned(spec, (5,))
    x = torch.randn(4, 5, generator=torch_generator(1, "x")).double()
    before = model(x)
    assert torch.equal(thin(model, mask)(x), before)
    assert parameter_movement(model, thin(other, mask)).absolute == 0.0
    assert thin(model, {}) is model

"""Every measure on one network, what it must leave as it was, and a spectrum by plain PyTorch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def objects(model: nn.Module) -> list[tuple[int, Tensor]]:
    registries = [held for module in model.modules() for held in (module._parameters, module._buffers)]
    return [(id(value), value.detach().clone()) for held in registries for value in held.values() if value is not None]


def assert_same_objects(model: nn.Module, before: list[tuple[int, Tensor]]) -> None:
    after = objects(model)
    assert [one for one, _ in after] == [one for one, _ in before]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(after, before, strict=True))
    assert all(isinstance(value, nn.Parameter) for value in model.parameters())

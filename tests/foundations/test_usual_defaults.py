"""A caller's default dtype and default device reach no number: what is measured and what is trained is the same."""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import overparam as op
from overparam.foundations.torch_generators import torch_generator
from overparam.foundations.usual_defaults import usual_defaults
from tests.support.networks import images, rows, small_cnn, smooth_mlp
from tests.support.small_runs import spec

CE: Final = "cross_entropy"
Batch = tuple[Tensor, Tensor]
Context = Callable[[], AbstractContextManager[Any]]


@contextmanager
def in_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def on_meta() -> AbstractContextManager[Any]:
    """A device that keeps no numbers, so that no tensor made without a device goes unseen."""
    return torch.device("meta")


CONTEXTS = pytest.mark.parametrize("context", [in_float64, on_meta])


def mlp() -> tuple[nn.Module, Batch]:
    x, y = rows()
    return smooth_mlp().float(), (x.float(), y)


def cnn() -> tuple[nn.Module, Batch]:
    x, y = images()
    return small_cnn().float(), (x.float(), y)


def plain(value: Any) -> Any:
    """All numbers of a result, with the dtypes and devices of tensors, as values that can be compared as text."""
    if isinstance(value, Tensor):
        return str(value.dtype), str(value.device), value.tolist()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(value[name]) for name in sorted(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    return value


def same(measure: Callable[[], Any], context: Context) -> None:
    before = repr(plain(measure()))
    with context():
        found = measure()
    assert repr(plain(found)) == before


def parameters(model: nn.Module, factor: float = 1.0) -> dict[str, Tensor]:
    return {k: factor * v if v.is_floating_point() else v for k, v in model.state_dict().items()}


def drawn() -> torch.Generator:
    return torch_generator(0, "test")


def linearized(model: nn.Module, data: Batch) -> Tensor:
    found: Tensor = op.linearize(model, data[0])({k: 1.1 * v.detach() for k, v in model.named_parameters()})
    return found


def kernel(model: nn.Module, data: Batch) -> Tensor:
    """Positive definite, of as many examples as the data."""
    x = data[0].flatten(1)
    return x @ x.T + torch.eye(len(x), device=x.device, dtype=x.dtype)


def solved(model: nn.Module, data: Batch) -> list[dict[str, Tensor]]:
    head = nn.Linear(4, 3, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for value in head.parameters():
            value.fill_(0.5)
    x = data[0].flatten(1)[:, :4]
    return [moment.state().weights for moment in op.solve(head, x, data[1])]


MEASURES: dict[str, Callable[[nn.Module, Batch], Any]] = {
    "top_eigenvalues": lambda m, d: op.top_eigenvalues(m, CE, d, 2, which="both"),
    "top_eigenvalues, warm": lambda m, d: op.top_eigenvalues(m, CE, d, warm_start=3),
    "top_eigenvalues, certified": lambda m, d: op.top_eigenvalues(m, CE, d, certify=1e-3, curvature="ggn"),
    "top_eigenvalues, mse": lambda m, d: op.top_eigenvalues(m, "mse", d),
    "hessian_trace": lambda m, d: op.hessian_trace(m, CE, d, max_products=20),
    "hessian_trace, hutchinson": lambda m, d: op.hessian_trace(m, CE, d, max_products=5, method="hutchinson"),
    "hessian_frobenius": lambda m, d: op.hessian_frobenius(m, CE, d, max_products=10),
    "spectral_density": lambda m, d: op.spectral_density(m, CE, d, steps=5, probes=2),
    "perturbation_curve": lambda m, d: op.perturbation_curve(m, CE, d, [0.1, 0.2], draws=2, antithetic=True),
    "perturbation_curve, filter": lambda m, d: op.perturbation_curve(m, CE, d, [0.1], draws=1, scale="filter").loss_sem,
    "worst_case_sharpness": lambda m, d: op.worst_case_sharpness(m, CE, d, radius=0.1, steps=3),
    "worst_case_sharpness, box": lambda m, d: op.worst_case_sharpness(
        m, CE, d, radius=0.01, norm="linf", adaptive=True, steps=3
    ),
    "pac_bayes_sigma": lambda m, d: op.pac_bayes_sigma(m, CE, d, draws=2),
    "relative_flatness": lambda m, d: op.relative_flatness(m, CE, d, probes=4),
    "loss_surface": lambda m, d: op.loss_surface(m, CE, d, points=3),
    "loss_surface, eigen": lambda m, d: op.loss_surface(m, CE, d, points=3, directions="eigen"),
    "gradient_noise_scale": lambda m, d: op.gradient_noise_scale(m, CE, d, groups=4),
    "empirical_ntk": lambda m, d: op.empirical_ntk(m, d[0]),
    "empirical_ntk, sum": lambda m, d: op.empirical_ntk(m, d[0], d[0][:2], outputs="trace"),
    "empirical_kernel": lambda m, d: op.empirical_kernel(m, d[0]),
    "analytic_ntk": lambda m, d: op.analytic_ntk(d[0].flatten(1), depth=3, sigma_b=0.1),
    "kernel_regression": lambda m, d: op.kernel_regression(kernel(m, d), d[1], kernel(m, d)[:2], f0_test=0.1),
    "kernel_regression, time": lambda m, d: op.kernel_regression(
        kernel(m, d), d[1], kernel(m, d)[:2], time=2.0, lr=1e-3, f0_train=0.1
    ),
    "kernel_alignment": lambda m, d: op.kernel_alignment(kernel(m, d), op.label_kernel(d[1]), centred=True),
    "kernel_distance": lambda m, d: op.kernel_distance(kernel(m, d), op.label_kernel(d[1])),
    "kernel_drift": lambda m, d: op.kernel_drift(kernel(m, d), 2.0 * kernel(m, d)),
    "effective_rank": lambda m, d: op.effective_rank(kernel(m, d)),
    "linearize": linearized,
    "loss_barrier": lambda m, d: op.loss_barrier(m, parameters(m), parameters(m, -1.0), d, points=3),
    "magnitude_mask": lambda m, d: op.magnitude_mask(parameters(m), 0.5),
    "random_mask": lambda m, d: op.random_mask(parameters(m), 0.5, generator=drawn()),
    "random_mask, graph": lambda m, d: op.random_mask(parameters(m), 0.5, scope="erdos_renyi", generator=drawn()),
    "shuffled_mask": lambda m, d: op.shuffled_mask(op.magnitude_mask(parameters(m), 0.5), generator=drawn()),
    "masked": lambda m, d: op.masked(parameters(m), op.magnitude_mask(parameters(m), 0.5)),
    "density_profile": lambda m, d: op.density_profile(op.magnitude_mask(parameters(m), 0.5)),
    "dead_units": lambda m, d: op.dead_units(op.magnitude_mask(parameters(m), 0.5)),
    "mask_overlap": lambda m, d: op.mask_overlap(
        op.magnitude_mask(parameters(m), 0.5), op.magnitude_mask(parameters(m), 0.2)
    ),
    "parameter_movement": lambda m, d: op.parameter_movement(m, {k: 2.0 * v for k, v in m.named_parameters()}),
    "least_squares": lambda m, d: op.least_squares(kernel(m, d), d[0].flatten(1)[:, 0], ridge=0.1),
    "descended": lambda m, d: op.descended(kernel(m, d), d[0].flatten(1)[:, 0], lr=1e-3, steps=3),
    "solve": solved,
}


@CONTEXTS
@pytest.mark.parametrize("subject", [mlp, cnn])
@pytest.mark.parametrize("name", MEASURES)
def test_measures_do_not_see_a_callers_defaults(
    name: str, subject: Callable[[], tuple[nn.Module, Batch]], context: Context
) -> None:
    model, data = subject()
    same(lambda: MEASURES[name](model, data), context)


@CONTEXTS
def test_reports_do_not_see_a_callers_defaults(context: Context) -> None:
    model, data = mlp()
    same(lambda: op.sharpness_report(model, CE, data, generator=drawn()), context)


RUNS = {
    "cnn": spec(train=op.TrainSpec(optimizer=op.SGD(lr=0.05), batch_size=32, epochs=1)),
    "adam": spec(model=op.CNN(channels=2), train=op.TrainSpec(optimizer=op.Adam(lr=0.01), batch_size=32, epochs=1)),
    "mlp": spec(model=op.MLP(width=8), train=op.TrainSpec(optimizer=op.SGD(lr=0.05), batch_size=32, epochs=1)),
    "mse": spec(
        model=op.MLP(width=8),
        train=op.TrainSpec(optimizer=op.SGD(lr=0.05), batch_size=32, epochs=1, loss="mse", linearize=True),
    ),
    "ticket": spec(
        model=op.MLP(width=8),
        train=op.TrainSpec(optimizer=op.SGD(lr=0.05), batch_size=32, epochs=1),
        mask=op.RandomMask(fraction=0.5),
    ),
}


@CONTEXTS
@pytest.mark.parametrize("name", RUNS)
def test_training_does_not_see_a_callers_defaults(name: str, context: Context, tmp_path: Path) -> None:
    def numbers(store: str) -> Any:
        run = op.train(RUNS[name], store=tmp_path / store)
        model, (x, y) = run.model(), run.data("test")
        replayed = run.state(2)
        return run.result["states"], run.result["curves"], replayed.arrays(), model.state_dict(), model(x), y

    before = numbers("plain")
    with context():
        found = numbers("changed")
        assert (torch.get_default_dtype(), torch.get_default_device().type) != (torch.float32, "cpu")
    assert repr(plain(found)) == repr(plain(before))
    assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float32, "cpu")


MAKERS = {
    *("arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint"),
    *("randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros"),
}
ROOT = Path(op.__file__).parent
SOURCES = sorted(path for room in ("measure", "models", "runs") for path in (ROOT / room).rglob("*.py"))


def test_every_tensor_that_is_made_says_where() -> None:
    """Also where no measurement above comes by."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr in MAKERS) == ("torch", True)
        and "device" not in {keyword.arg for keyword in node.keywords}
    ]
    assert not silent, f"a device= is missing in {', '.join(silent)}"


def test_defaults_hold_inside_and_are_taken_back() -> None:
    for context in (in_float64, on_meta):
        with context():
            before = torch.zeros(1)
            with pytest.raises(KeyError), usual_defaults():
                inside = torch.zeros(1)
                raise KeyError
            after = torch.zeros(1)
        assert (inside.dtype, inside.device.type) == (torch.float32, "cpu")
        assert (after.dtype, after.device) == (before.dtype, before.device) != (inside.dtype, inside.device)

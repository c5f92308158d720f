"""Ways to the largest eigenvalue of a Hessian, each called as its documentation says."""

import importlib
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from overparam import top_eigenvalues
from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.problem import CHUNK

OURS, WARM = "overparam", "overparam, warm start"
Setting = dict[str, float]


@dataclass(frozen=True)
class Form:
    """How a side is given the model and the images."""

    channels_last: bool = False
    chunk: int | None = None

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        return layout + (f", chunks of {self.chunk}" if self.chunk else "")


@dataclass(frozen=True)
class Task:
    """A model in eval mode and its images, in one form."""

    model: nn.Module
    x: Tensor
    y: Tensor
    form: Form

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        size = self.form.chunk or len(self.y)
        return list(zip(torch.split(self.x, size), torch.split(self.y, size), strict=True))

    def first(self, count: int) -> "Task":
        return Task(self.model, self.x[:count], self.y[:count], self.form)


@dataclass(frozen=True)
class Outcome:
    """An eigenvalue, what it took, and what the side itself says about it.

    A product on a part of the images counts as that part of one.
    """

    value: float
    products: float
    says: str = ""
    converged: bool = True  # by the side's own judgement

    def error(self, truth: float) -> float:
        """Relative; infinite where there is no value."""
        return abs(self.value - truth) / truth if math.isfinite(self.value) else math.inf


def by_overparam(task: Task, setting: Setting, seed: int) -> Outcome:
    start = torch_generator(seed, "lanczos")  # seed 0 is the start that a call without `generator` takes
    found = top_eigenvalues(task.model, "cross_entropy", (task.x, task.y), generator=start, **setting)  # type: ignore[arg-type]
    interval = f"[{float(found.lower[0]):.6g}, {float(found.upper[0]):.6g}]"
    says = f"{found.status}, residual {float(found.residuals[0]):.2g}, certified {interval} at {found.confidence:.0%}"
    warm = found.subsample_products * setting.get("warm_start", 0) / len(task.y)
    return Outcome(float(found.values[0]), found.num_products + warm, says)


def by_pyhessian(task: Task, setting: Setting, seed: int) -> Outcome:
    """All images at once: PyHessian keeps the gradient graph. In chunks it builds the graphs for every product."""
    package, inside = (importlib.import_module(name) for name in ("pyhessian", "pyhessian.utils"))
    module = sys.modules["pyhessian.hessian"]  # the attribute of that name is the class
    given = {"dataloader": task.batches} if task.form.chunk else {"data": (task.x, task.y)}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reference cycle that `backward(create_graph=True)` makes
        torch.default_generator.manual_seed(seed)
        # `orthnormal` is called once per iteration, and an iteration takes one product.
        with mock.patch.object(module, "orthnormal", wraps=inside.orthnormal) as iteration:
            hessian = package.hessian(task.model, nn.CrossEntropyLoss(), cuda=False, **given)
            values, _ = hessian.eigenvalues(maxIter=int(setting["maxIter"]), tol=setting["tol"], top_n=1)
    return Outcome(values[0], iteration.call_count)


def by_power(task: Task, setting: Setting, seed: int) -> Outcome:
    """A fixed number of power iterations, written plainly."""
    parameters, generator = list(task.model.parameters()), torch_generator(seed, "power")
    v, value = [torch.randn(p.shape, generator=generator) for p in parameters], math.nan
    for _ in range(int(setting["iterations"])):
        norm = math.sqrt(sum((part * part).sum().item() for part in v))
        v = [part / norm for part in v]
        loss = F.cross_entropy(task.model(task.x), task.y)
        grads = torch.autograd.grad(loss, parameters, create_graph=True)
        slope = torch.stack([(g * part).sum() for g, part in zip(grads, v, strict=True)]).sum()
        product = torch.autograd.grad(slope, parameters)
        value = sum((h * part).sum().item() for h, part in zip(product, v, strict=True))
        v = list(product)
    return Outcome(value, int(setting["iterations"]))


def by_curvlinops(task: Task, setting: Setting, seed: int) -> Outcome:
    """Its check of determinism, two more products, is left out."""
    package, products = importlib.import_module("curvlinops"), 0
    hessian = package.HessianLinearOperator(
        task.model,
        nn.CrossEntropyLoss(),
        list(task.model.parameters()),
        task.batches,
        check_deterministic=False,
        num_data=len(task.y),
    ).to_scipy()

    def counted(vector: Any) -> Any:
        nonlocal products
        products += 1
        return hessian.matvec(vector)

    size = hessian.shape[0]
    start = np.random.default_rng(seed).standard_normal(size)
    operator = LinearOperator((size, size), matvec=counted, dtype=hessian.dtype)
    try:
        found = eigsh(
            operator, k=1, which="LA", tol=setting["tol"], ncv=int(setting["ncv"]), v0=start, return_eigenvectors=False
        )
    except ArpackNoConvergence:
        return Outcome(math.nan, products, "no convergence", converged=False)
    return Outcome(float(found[0]), products)


def by_eigenthings(task: Task, setting: Setting, seed: int) -> Outcome:
    package = importlib.import_module("hessian_eigenthings")
    hessian = package.HessianOperator(task.model, task.batches, package.supervised_loss(nn.CrossEntropyLoss()))
    found = package.lanczos(hessian, k=1, max_iter=int(setting["max_iter"]), which="LA", seed=seed)
    converged = bool(found.converged[0])
    says = f"{'converged' if converged else 'not converged'} (to its default 1e-4, which stops nothing)"
    return Outcome(float(found.eigenvalues[0]), found.iterations, says, converged)


@dataclass(frozen=True)
class Side:
    """A way to the eigenvalue: ladders of settings from loose to tight, and the forms it can be given.

    `own` are the settings of a caller who does not know the answer: one where the side stops by a rule of its own.
    """

    name: str
    run: Callable[[Task, Setting, int], Outcome] = field(repr=False)
    ladders: tuple[tuple[Setting, ...], ...]
    own: tuple[Setting, ...]
    probe: Setting  # a few products, to compare the forms
    module: str | None = None
    chunks: bool = True

    def forms(self, images: int) -> list[Form]:
        if self.run is by_overparam:
            return [Form()]  # it orders and divides the images itself
        # Some sides average over batches, so that chunks must be equal.
        sizes = [None, CHUNK] if self.chunks and images > CHUNK and images % CHUNK == 0 else [None]
        return [Form(channels_last, size) for channels_last in (False, True) for size in sizes]


def _ladder(name: str, values: tuple[float, ...], **fixed: float) -> tuple[Setting, ...]:
    return tuple({name: value, **fixed} for value in values)


THIRTY: tuple[Setting, ...] = ({"iterations": 30},)
SIDES = (
    Side(
        OURS,
        by_overparam,
        (
            _ladder("max_products", (4, 5, 6, 7, 8, 9, 10), tol=1e-3),
            _ladder("tol", (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)),
        ),
        ({},),
        {"tol": 0.5},
    ),
    Side(
        WARM,
        by_overparam,
        tuple(_ladder("max_products", (2, 3, 4, 5, 6), tol=1e-3, warm_start=size) for size in (50, 100, 200, 300)),
        ({"warm_start": 100},),
        {"tol": 0.5},
    ),
    Side(
        "PyHessian",
        by_pyhessian,
        (_ladder("tol", (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6), maxIter=500),),
        ({"tol": 1e-3, "maxIter": 100},),
        {"tol": 0.0, "maxIter": 8},  # as many as it needs, so that the graph it keeps counts as it will
        "pyhessian",
    ),
    Side(
        "30 power iterations",
        by_power,
        (({"iterations": 30},),),
        ({"iterations": 30},),
        {"iterations": 3},
        chunks=False,
    ),
    Side(
        "curvlinops + eigsh",
        by_curvlinops,
        tuple(_ladder("tol", (0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4), ncv=ncv) for ncv in (10, 8, 6, 5)),
        ({"tol": 0.0, "ncv": 20},),  # scipy's defaults
        {"tol": 0.9, "ncv": 3},
        "curvlinops",
    ),
    Side(
        "hessian-eigenthings",
        by_eigenthings,
        (_ladder("max_iter", (4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 50)),),
        _ladder("max_iter", (10, 20, 40, 80)),
        {"max_iter": 3},
        "hessian_eigenthings",
    ),
)

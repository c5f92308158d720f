"""Largest Hessian eigenvalue of a trained CNN: overparam and four other ways, at the same achieved error.

The Hessian of the mean cross-entropy in eval mode, on the first images that a CNN (c = 8, batch norm) was trained on;
one network trained with batch 32, one with batch 1024. The reference is a solve in float64 to a residual of 1e-6,
checked by a product of plain PyTorch. Each side gets the same float32 model, images and threads, and

- the faster of the forms it can be given: contiguous or channels last, all images at once or in chunks;
- the loosest setting of its own stopping rule whose error is at most 1e-3 from every start that is timed. It is found
  by knowing the answer; this helps most where there is no stopping rule but a number of iterations.

Sides take turns, each round from another start; the ratio of medians is printed. A call is timed whole, with what it
builds. Peak memory is the high-water mark of the resident set above its size before the call, in a process of its own.

    python bench/curvature.py [--images 1000] [--epochs 8] [--repeats 5] [--threads 2] [--out curvature.json]
    python bench/curvature.py --blocks    # products with 8 vectors at once, against one by one
"""

import argparse
import copy
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from overparam import CNN, MLP, SGD, DataSpec, RunSpec, TrainSpec, top_eigenvalues, train
from overparam.data.load import prepare
from overparam.measure import operators
from overparam.measure import problem as problems
from overparam.measure.operators import CurvatureOperator
from overparam.measure.problem import CHUNK, opened
from overparam.models.build import build
from overparam.rng.torch_generators import torch_generator

LR = {32: 0.005, 1024: 0.08}
ERROR = 1e-3  # relative, of the eigenvalue
OURS = "overparam"
VECTORS = 8
PACKAGES = ("overparam", "torch", "numpy", "scipy", "PyHessian", "curvlinops-for-pytorch", "hessian-eigenthings")
Setting = dict[str, float]
Forms = tuple["Form", ...]


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
    """An eigenvalue, what it took, and what the side itself says about it."""

    value: float
    products: int
    says: str = ""

    def error(self, truth: float) -> float:
        """Relative; infinite where there is no value."""
        return abs(self.value - truth) / truth if math.isfinite(self.value) else math.inf


def by_overparam(task: Task, setting: Setting, seed: int) -> Outcome:
    start = torch_generator(seed, "lanczos")  # seed 0 is the start that a call without `generator` takes
    found = top_eigenvalues(task.model, "cross_entropy", (task.x, task.y), generator=start, **setting)  # type: ignore[arg-type]
    interval = f"[{float(found.lower[0]):.6g}, {float(found.upper[0]):.6g}]"
    says = f"{found.status}, residual {float(found.residuals[0]):.2g}, certified {interval} at {found.confidence:.0%}"
    return Outcome(float(found.values[0]), found.num_products, says)


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
        return Outcome(math.nan, products, "no convergence")
    return Outcome(float(found[0]), products)


def by_eigenthings(task: Task, setting: Setting, seed: int) -> Outcome:
    package = importlib.import_module("hessian_eigenthings")
    hessian = package.HessianOperator(task.model, task.batches, package.supervised_loss(nn.CrossEntropyLoss()))
    found = package.lanczos(hessian, k=1, max_iter=int(setting["max_iter"]), which="LA", seed=seed)
    says = f"{'converged' if found.converged[0] else 'not converged'} (its own tolerance, 1e-4, stops nothing)"
    return Outcome(float(found.eigenvalues[0]), found.iterations, says)


@dataclass(frozen=True)
class Side:
    """A way to the eigenvalue: ladders of settings from loose to tight, and the forms it can be given."""

    name: str
    run: Callable[[Task, Setting, int], Outcome] = field(repr=False)
    ladders: tuple[tuple[Setting, ...], ...]
    probe: Setting  # a few products, to compare the forms
    module: str | None = None
    chunks: bool = True

    def forms(self, images: int) -> list[Form]:
        if self.name == OURS:
            return [Form()]  # it orders and divides the images itself
        # Some sides average over batches, so that chunks must be equal.
        sizes = [None, CHUNK] if self.chunks and images > CHUNK and images % CHUNK == 0 else [None]
        return [Form(channels_last, size) for channels_last in (False, True) for size in sizes]


def _ladder(name: str, values: tuple[float, ...], **fixed: float) -> tuple[Setting, ...]:
    return tuple({name: value, **fixed} for value in values)


SIDES = (
    Side(OURS, by_overparam, (_ladder("tol", (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)),), {"tol": 0.5}),
    Side(
        "PyHessian",
        by_pyhessian,
        (_ladder("tol", (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6), maxIter=500),),
        {"tol": 0.0, "maxIter": 3},
        "pyhessian",
    ),
    Side("30 power iterations", by_power, (({"iterations": 30},),), {"iterations": 3}, chunks=False),
    Side(
        "curvlinops + eigsh",
        by_curvlinops,
        tuple(_ladder("tol", (0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4), ncv=ncv) for ncv in (20, 10)),
        {"tol": 0.9, "ncv": 3},
        "curvlinops",
    ),
    Side(
        "hessian-eigenthings",
        by_eigenthings,
        (_ladder("max_iter", (4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 50)),),
        {"max_iter": 3},
        "hessian_eigenthings",
    ),
)


def installed(side: Side) -> bool:
    found = side.module is None or importlib.util.find_spec(side.module) is not None
    if not found:
        print(f"{side.name} is not installed and left out; `pip install -e '.[bench]'` installs it.")
    return found


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def spec_of(options: argparse.Namespace, batch_size: int) -> RunSpec:
    return RunSpec(
        data=DataSpec(name="cifar10", num_train=options.train_images, subset="first"),
        model=CNN(channels=options.channels),
        train=TrainSpec(optimizer=SGD(lr=LR[batch_size]), batch_size=batch_size, epochs=options.epochs),
    )


def write_network(options: argparse.Namespace, batch_size: int, file: Path) -> str:
    """Train a network, or read it from the store, and put it into a file with the images; says what it is."""
    spec = spec_of(options, batch_size)
    run = train(spec, store=options.store, workers=options.threads, data_dir=options.data_dir)
    state, images = run.state("final"), prepare(spec.data, data_dir=options.data_dir).train
    tensors = {f"state/{name}": value.contiguous() for name, value in (state.weights | state.buffers).items()}
    tensors |= {name: torch.from_numpy(part[: options.images].copy()) for name, part in vars(images).items()}
    save_file(tensors, file)
    losses = f"train loss {run.train_loss:.4f}, test accuracy {run.test_accuracy:.1%}"
    return f"CNN c={options.channels}, batch {batch_size}, lr {LR[batch_size]}, {options.epochs} epochs: {losses}"


def read_task(file: Path, channels: int, form: Form) -> Task:
    tensors = load_file(file)
    x, y = tensors.pop("x"), tensors.pop("y")
    model = build(CNN(channels=channels), tuple(x.shape[1:]), 10, generator=torch_generator(0, "init"))
    model.load_state_dict({name.removeprefix("state/"): value for name, value in tensors.items()})
    layout = torch.channels_last if form.channels_last else torch.contiguous_format
    return Task(model.to(memory_format=layout).eval(), x.contiguous(memory_format=layout), y, form)  # type: ignore[call-overload]


def reference(task: Task) -> dict[str, float]:
    """λmax in float64; its residual by a product of plain PyTorch on all images at once. And λmin, roughly."""
    pair = task.x, task.y
    found = top_eigenvalues(task.model, "cross_entropy", pair, tol=1e-6, dtype=torch.float64, max_products=1000)
    value, v = float(found.values[0]), found.vectors[0]
    model = copy.deepcopy(task.model).double()
    parameters = list(model.parameters())
    loss = F.cross_entropy(model(task.x.double()), task.y)
    flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    product = torch.cat([h.reshape(-1) for h in torch.autograd.grad(flat @ v, parameters)])
    residual = float((product - value * v).norm()) / value
    if found.status != "converged" or not residual < 1e-5:
        raise SystemExit(f"the reference is not one: {found.status}, residual {residual:.1e} of its value {value:.6g}")
    lowest = top_eigenvalues(task.model, "cross_entropy", pair, which="smallest", tol=3e-2)
    print(f"reference λmax = {value:.8g}: float64, {found.num_products} products, relative residual {residual:.1e}")
    print(f"no larger eigenvalue than {float(found.upper[0]):.6g} with probability {found.confidence:.0%}")
    print(f"λmin = {float(lowest.values[0]):.4g}, {found.num_parameters:,} parameters, {len(task.y):,} images")
    return {"value": value, "residual": residual, "products": found.num_products, "lowest": float(lowest.values[0])}


def timed(side: Side, task: Task, setting: Setting, seed: int) -> tuple[float, Outcome]:
    gc.collect()
    began = time.perf_counter()
    outcome = side.run(task, setting, seed)
    seconds = time.perf_counter() - began
    task.model.zero_grad(set_to_none=True)  # breaks PyHessian's reference cycle
    return seconds, outcome


def fastest(side: Side, file: Path, options: argparse.Namespace) -> Task:
    """The task in the form in which a product takes the least time: the best of three tries each."""
    tasks = [read_task(file, options.channels, form) for form in side.forms(options.images)]
    best: dict[Form, float] = {}
    for _ in range(3 if len(tasks) > 1 else 0):
        for task in tasks:
            seconds, outcome = timed(side, task, side.probe, 0)
            best[task.form] = min(best.get(task.form, math.inf), seconds / max(outcome.products, 1))
    tried = "; ".join(f"{form} {seconds:.3f}" for form, seconds in best.items())
    print(f"  {side.name}: seconds per product {tried}" if best else f"  {side.name}: own form", flush=True)
    return min(tasks, key=lambda task: best.get(task.form, 0.0))


def cheapest(side: Side, task: Task, truth: float, seeds: range) -> Setting:
    """The first setting of each ladder that is accurate from every seed; of these the one with the fewest products."""
    found: list[tuple[float, Setting]] = []
    for ladder in side.ladders:
        for setting in ladder:
            errors, products = [], []
            for seed in seeds:
                _, outcome = timed(side, task, setting, seed)
                errors.append(outcome.error(truth))
                products.append(outcome.products)
                if errors[-1] > ERROR:
                    break
            print(
                f"    {shown(setting)}: error {max(errors):.1e}, {statistics.median(products):g} products", flush=True
            )
            if errors[-1] <= ERROR:
                found.append((statistics.median(products), setting))
                break
    if not found:
        print(f"    {side.name} does not reach {ERROR:g} from all {len(seeds)} starts; its tightest setting is timed")
    return min(found, key=lambda pair: pair[0])[1] if found else side.ladders[0][-1]


def shown(setting: Setting) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in setting.items())


def peak_memory(file: Path, channels: int, name: str, form: Form, setting: Setting, threads: int) -> float | None:
    """MB of the resident set's high-water mark above its size before the call (Linux), after a call on 16 images."""
    torch.set_num_threads(threads)
    side = next(side for side in SIDES if side.name == name)
    task = read_task(file, channels, form)
    timed(side, task.first(16), side.probe, 0)
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status_mb("VmRSS")
        timed(side, task, setting, 0)
        return _status_mb("VmHWM") - before
    except OSError:
        return None


def _status_mb(name: str) -> float:
    line = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert line is not None
    return int(line[1]) / 1000


def compare(options: argparse.Namespace, batch_size: int, file: Path, sides: list[Side]) -> dict[str, Any]:
    """All sides on one network."""
    network = in_fresh_process(write_network, options, batch_size, file)
    print(f"\n{network}", flush=True)
    truth = reference(read_task(file, options.channels, Form()))
    tasks: dict[str, Task] = {}
    settings: dict[str, Setting] = {}
    for side in sides:
        tasks[side.name] = fastest(side, file, options)
        settings[side.name] = cheapest(side, tasks[side.name], truth["value"], range(options.repeats))
    rows: dict[str, dict[str, Any]] = {side.name: {"seconds": [], "errors": [], "products": []} for side in sides}
    for seed in range(options.repeats):
        turn = seed % len(sides)
        for side in [*sides[turn:], *sides[:turn]]:
            seconds, outcome = timed(side, tasks[side.name], settings[side.name], seed)
            row = rows[side.name]
            row["seconds"].append(seconds)
            row["errors"].append(outcome.error(truth["value"]))
            row["products"].append(outcome.products)
            row["says"] = outcome.says
        medians = "; ".join(f"{name} {row['seconds'][-1]:.2f}" for name, row in rows.items())
        print(f"  round {seed}, seconds: {medians}", flush=True)
    for side in sides:
        if rows[side.name]["says"]:
            print(f"  {side.name} of its last round: {rows[side.name]['says']}")
        form, setting = tasks[side.name].form, settings[side.name]
        measured = in_fresh_process(peak_memory, file, options.channels, side.name, form, setting, options.threads)
        form_shown = "its own" if side.name == OURS else str(form)
        rows[side.name] |= {"setting": setting, "form": form_shown, "peak_mb": measured}
    return {"batch_size": batch_size, "network": network, "reference": truth, "sides": rows}


def floor(task: Task, options: argparse.Namespace) -> dict[str, float]:
    """What a product of ours takes, against the arithmetic it needs at the speed of a large matrix product."""
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        task.model(task.x)
    square = torch.randn(2048, 2048, generator=torch_generator(0, "square"))
    with opened(task.model, "cross_entropy", (task.x, task.y)) as problem:
        operator = CurvatureOperator(problem)
        vector = torch.randn(operator.size, generator=torch_generator(0, "vector"))
        with FlopCounterMode(display=False) as product:
            operator(vector)
        gemm, own = medians([lambda: square @ square, lambda: operator(vector)], 4 * options.repeats)
    needed, peak = 6 * forward.get_total_flops(), 2 * 2048**3 / gemm
    counted = product.get_total_flops()
    print(
        f"\nfloor: one forward pass F = {needed / 6e9:.3f} GFLOP on {len(task.y):,} images (convolutions and matrices)"
    )
    print("a product needs 6 F: 2 F for the tangent of the forward pass and 4 F for its backward pass")
    print(f"counted in a product of ours: {counted / 1e9:.2f} GFLOP = {6 * counted / needed:.2f} F")
    print(f"this machine, 2048³ float32 on {options.threads} threads: {peak / 1e9:.0f} GFLOP/s")
    print(f"a product of ours: {own:.4f} s, {needed / own / peak:.0%} of that")
    return {"forward_flops": needed / 6, "counted_flops": counted, "peak_flops": peak, "seconds_per_product": own}


def medians(actions: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each action; they take turns, after one turn that does not count."""
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(repeats + 1):
        for action, found in zip(actions, seconds, strict=True):
            began = time.perf_counter()
            action()
            if turn:
                found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in seconds]


def blocks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Products with 8 vectors in one traversal of the kept graphs, against one vector after the other."""
    rows: list[dict[str, Any]] = []
    dense: list[MLP | CNN] = [MLP(width=width) for width in (32, 128, 512)]
    for name, specs in {"digits": dense, "cifar10": [*dense, CNN(channels=options.channels)]}.items():
        split = prepare(DataSpec(name=name, subset="first"), data_dir=options.data_dir).train
        x, y = (torch.from_numpy(part[: options.images].copy()) for part in (split.x, split.y))
        for spec in specs:
            size = f"width {spec.width}" if isinstance(spec, MLP) else f"c={spec.channels}"
            model = build(spec, tuple(x.shape[1:]), 10, generator=torch_generator(0, "init")).eval()
            row = block_row(model, x, y, options.repeats)
            rows.append({"model": f"{spec.kind.upper()} {size}, {name}", **row})
            print(f"  {rows[-1]}", flush=True)
    print(f"\n| model | parameters | {VECTORS} one by one, s | at once, s | one by one / at once |")
    print("|---|---:|---:|---:|---:|")
    for row in rows:
        ratio = row["one_by_one"] / row["at_once"]
        seconds = f"{row['one_by_one']:.4f} | {row['at_once']:.4f}"
        print(f"| {row['model']} | {row['parameters']:,} | {seconds} | {ratio:.2f} |")
    return rows


def block_row(model: nn.Module, x: Tensor, y: Tensor, repeats: int) -> dict[str, float]:
    """At once: one traversal of PyTorch's own graphs, as the library's cheaper convolutions cannot be batched."""
    with opened(model, "cross_entropy", (x, y)) as problem:
        one = CurvatureOperator(problem)
    plain: dict[str, Any] = {
        "_blockwise": lambda product, problem, forms: product,
        "SecondOrder": lambda: nullcontext(SimpleNamespace(seen=())),
    }
    with (
        mock.patch.multiple(operators, **plain),
        mock.patch.object(problems, "_ordered", lambda value: value),  # channels last cannot be batched either
        opened(model, "cross_entropy", (x, y)) as problem,
    ):
        at_once = CurvatureOperator(problem)
    vectors = torch.randn(VECTORS, one.size, generator=torch_generator(0, "vectors"))
    each = torch.stack([one(vector) for vector in vectors])
    difference = float((at_once(vectors) - each).norm() / each.norm())
    assert difference < 1e-3, f"the two ways differ by {difference:.1e}"
    separate, block = medians([lambda: [one(vector) for vector in vectors], lambda: at_once(vectors)], 4 * repeats)
    return {"parameters": one.size, "one_by_one": separate, "at_once": block}


def print_table(networks: list[dict[str, Any]]) -> None:
    print("\n| batch | side | setting | form | worst error | products | median s | × ours | peak MB |")
    print("|---:|---|---|---|---:|---:|---:|---:|---:|")
    for network in networks:
        ours = statistics.median(network["sides"][OURS]["seconds"])
        for name, row in network["sides"].items():
            seconds, worst = statistics.median(row["seconds"]), max(row["errors"])
            error = f"{worst:.1e}" + ("" if worst <= ERROR else " (missed)")
            memory = "not measured" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
            cells = [network["batch_size"], name, shown(row["setting"]), row["form"], error]
            cells += [f"{statistics.median(row['products']):g}", f"{seconds:.3f}", f"{seconds / ours:.2f}", memory]
            print(f"| {' | '.join(map(str, cells))} |")


def environment(options: argparse.Namespace) -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    info = Path("/proc/cpuinfo")
    line = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    cpu = line[1].strip() if line else platform.processor() or platform.machine()
    data = os.environ.get("OVERPARAM_DATA")
    command = (f"OVERPARAM_DATA={data} " if data else "") + f"python {shlex.join(sys.argv)}"
    found = {"command": command, "cpu": cpu, "cores": os.cpu_count(), "threads": options.threads, "versions": versions}
    print(f"{command}\n{cpu}, {os.cpu_count()} cores, {options.threads} threads, Python {platform.python_version()}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"channels": 8, "images": 1000, "train-images": 10_000, "epochs": 8, "repeats": 5, "threads": 2}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batch-sizes", type=int, nargs="+", choices=list(LR), default=list(LR))
    parser.add_argument("--data-dir", type=Path, default=None, help="directory of data sets; default: OVERPARAM_DATA")
    parser.add_argument("--store", type=Path, default=Path("bench-runs"), help="where trained networks are kept")
    parser.add_argument("--blocks", action="store_true", help="compare products with 8 vectors instead")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for all figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {"environment": environment(options)}
    if options.blocks:
        figures["blocks"] = blocks(options)
    else:
        sides = [side for side in SIDES if installed(side)]
        with tempfile.TemporaryDirectory() as folder:
            files = {size: Path(folder) / f"{size}.safetensors" for size in options.batch_sizes}
            figures["networks"] = [compare(options, size, file, sides) for size, file in files.items()]
            figures["floor"] = floor(read_task(next(iter(files.values())), options.channels, Form()), options)
        print_table(figures["networks"])
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

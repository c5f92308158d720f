"""Largest Hessian eigenvalue of a trained CNN: overparam, cold and warm, and four other ways, at the same error.

The Hessian of the mean cross-entropy in eval mode, on the first images that a CNN (c = 8, batch norm) was trained on;
one network trained with batch 32, one with batch 1024. The reference is a solve in float64 to a residual of 1e-6,
checked by a product of plain PyTorch. Each side gets the same float32 model, images and threads, and

- the faster of the forms it can be given: contiguous or channels last, all images at once or in chunks;
- two settings. "Hindsight": the loosest one whose error is at most 1e-3 from every start that is timed. It is found by
  knowing the answer, which helps most where there is no stopping rule but a number of iterations. "Own rule": what a
  caller has who does not know the answer, the defaults of the side's own stopping rule; where there is no default that
  gives an eigenvalue, the number of iterations is doubled from 10 until the side says that it has converged, and only
  the last call is timed.

Sides take turns, each round from another start; the ratio of medians is printed. A call is timed whole, with what it
builds. Peak memory is the high-water mark of the resident set above its size before the call, in a process of its own.

    python bench/curvature.py [--images 1000] [--epochs 8] [--repeats 5] [--threads 2] [--out curvature.json]
"""

import argparse
import copy
import gc
import importlib.util
import json
import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from overparam import CNN, SGD, DataSpec, RunSpec, TrainSpec, top_eigenvalues, train
from overparam.data.load import prepare
from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import CurvatureOperator
from overparam.models.build import build
from sides import OURS, SIDES, WARM, Form, Outcome, Setting, Side, Task
from timing import environment, medians

LR = {32: 0.005, 1024: 0.08}
ERROR = 1e-3  # relative, of the eigenvalue


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
    """λmax in float64; its residual by a product of plain PyTorch on all images at once."""
    pair = task.x, task.y
    found = top_eigenvalues(task.model, "cross_entropy", pair, tol=1e-6, dtype=torch.float64, max_products=1000)
    value, v = float(found.values[0]), found.vectors[0]
    model = copy.deepcopy(task.model).double()
    parameters = list(model.parameters())
    loss = F.cross_entropy(model(task.x.double()), task.y)
    flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    hv = torch.cat([h.reshape(-1) for h in torch.autograd.grad(flat @ v, parameters)])
    residual = float((hv - value * v).norm()) / value
    if found.status != "converged" or not residual < 1e-5:
        raise SystemExit(f"the reference is not one: {found.status}, residual {residual:.1e} of its value {value:.6g}")
    print(f"reference λmax = {value:.8g}: float64, {found.num_products} products, relative residual {residual:.1e}")
    print(f"no larger eigenvalue than {float(found.upper[0]):.6g} with probability {found.confidence:.0%}")
    print(f"{found.num_parameters:,} parameters, {len(task.y):,} images")
    return {"value": value, "residual": residual, "products": found.num_products}


def timed(side: Side, task: Task, setting: Setting, seed: int) -> tuple[float, Outcome]:
    gc.collect()
    began = time.perf_counter()
    outcome = side.run(task, setting, seed)
    seconds = time.perf_counter() - began
    task.model.zero_grad(set_to_none=True)  # breaks PyHessian's reference cycle
    return seconds, outcome


def fastest(side: Side, file: Path, options: argparse.Namespace) -> Task:
    """The task in the form in which a product takes the least time: the better of two tries each."""
    tasks = [read_task(file, options.channels, form) for form in side.forms(options.images)]
    best: dict[Form, float] = {}
    for _ in range(2 if len(tasks) > 1 else 0):
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
    return ", ".join(f"{name}={value:g}" for name, value in setting.items()) or "defaults"


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


def by_own_rule(side: Side, task: Task, seeds: range) -> Setting:
    """The first setting after which the side says of itself, from every start, that it has converged."""
    for setting in side.own[:-1]:
        if all(timed(side, task, setting, seed)[1].converged for seed in seeds):
            return setting
    return side.own[-1]


def compare(options: argparse.Namespace, batch_size: int, file: Path, sides: list[Side]) -> dict[str, Any]:
    """All sides on one network."""
    network = in_fresh_process(write_network, options, batch_size, file)
    print(f"\n{network}", flush=True)
    truth = reference(read_task(file, options.channels, Form()))
    entries: list[tuple[Side, Task, dict[str, Any]]] = []
    for side in sides:
        task, seeds = fastest(side, file, options), range(options.repeats)
        hindsight, own = cheapest(side, task, truth["value"], seeds), by_own_rule(side, task, seeds)
        rules = {"both": own} if own == hindsight else {"hindsight": hindsight, "own rule": own}
        for rule, setting in rules.items():
            row: dict[str, Any] = {"side": side.name, "rule": rule, "setting": setting}
            entries.append((side, task, row | {"seconds": [], "errors": [], "products": []}))
    for seed in range(options.repeats):
        turn = seed % len(entries)
        for side, task, row in [*entries[turn:], *entries[:turn]]:
            seconds, outcome = timed(side, task, row["setting"], seed)
            row["seconds"].append(seconds)
            row["errors"].append(outcome.error(truth["value"]))
            row["products"].append(outcome.products)
            row["says"] = outcome.says
        spent = "; ".join(f"{row['side']} ({row['rule']}) {row['seconds'][-1]:.2f}" for _, _, row in entries)
        print(f"  round {seed}, seconds: {spent}", flush=True)
    for side, task, row in entries:
        arguments = (file, options.channels, side.name, task.form, row["setting"], options.threads)
        row["form"] = "its own" if side.name in (OURS, WARM) else str(task.form)
        row["peak_mb"] = in_fresh_process(peak_memory, *arguments)
        print(f"  {side.name} ({row['rule']}): {row['says'] or 'says nothing of itself'}", flush=True)
    rows = [row for _, _, row in entries]
    return {"batch_size": batch_size, "network": network, "reference": truth, "rows": rows}


def floor(task: Task, options: argparse.Namespace) -> dict[str, float]:
    """What a product of ours takes, against the arithmetic it needs at the speed of a large matrix product."""
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        task.model(task.x)
    square = torch.randn(2048, 2048, generator=torch_generator(0, "square"))
    with opened(task.model, "cross_entropy", (task.x, task.y)) as problem:
        operator = CurvatureOperator(problem)
        vector = torch.randn(operator.size, generator=torch_generator(0, "vector"))
        with FlopCounterMode(display=False) as counter:
            operator(vector)
        gemm, own = medians([lambda: square @ square, lambda: operator(vector)], 4 * options.repeats)
    needed, peak = 6 * forward.get_total_flops(), 2 * 2048**3 / gemm
    counted = counter.get_total_flops()
    print(
        f"\nfloor: one forward pass F = {needed / 6e9:.3f} GFLOP on {len(task.y):,} images (convolutions and matrices)"
    )
    print("a product needs 2 F for the tangent of the forward pass and 4 F for its backward pass, less what the first")
    print(f"layer saves, whose input has no tangent: {counted / 1e9:.2f} GFLOP = {6 * counted / needed:.2f} F counted")
    print(f"this machine, 2048³ float32 on {options.threads} threads: {peak / 1e9:.0f} GFLOP/s")
    print(f"a product of ours: {own:.4f} s, {counted / own / peak:.0%} of that")
    return {"forward_flops": needed / 6, "counted_flops": counted, "peak_flops": peak, "seconds_per_product": own}


def print_table(networks: list[dict[str, Any]]) -> None:
    """One line per side and rule; times relative to ours, cold and warm, under the same rule."""
    print("\n| batch | rule | side | setting | form | worst error | products | median s | × ours | × warm | peak MB |")
    print("|---:|---|---|---|---|---:|---:|---:|---:|---:|---:|")
    for network, rule in product(networks, ("hindsight", "own rule")):
        rows = [row for row in network["rows"] if row["rule"] in (rule, "both")]
        ours = {row["side"]: statistics.median(row["seconds"]) for row in rows}
        for row in rows:
            seconds, worst = statistics.median(row["seconds"]), max(row["errors"])
            error = f"{worst:.1e}" + ("" if worst <= ERROR else " (missed)")
            memory = "not measured" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
            cells = [network["batch_size"], rule, row["side"], shown(row["setting"]), row["form"], error]
            times = [f"{seconds / ours[name]:.2f}" for name in (OURS, WARM)]
            cells += [f"{statistics.median(row['products']):.3g}", f"{seconds:.3f}", *times, memory]
            print(f"| {' | '.join(map(str, cells))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"channels": 8, "images": 1000, "train-images": 10_000, "epochs": 8, "repeats": 5, "threads": 2}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batch-sizes", type=int, nargs="+", choices=list(LR), default=list(LR))
    parser.add_argument("--data-dir", type=Path, default=None, help="directory of data sets; default: OVERPARAM_DATA")
    parser.add_argument("--store", type=Path, default=Path("bench-runs"), help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for all figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {"environment": environment(options)}
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

"""Empirical tangent kernels, all blocks of outputs: overparam against the Jacobian contraction of torch.func.

Three networks: the MLP of four layers and width 1024 on 64 and on 500 inputs, and the CNN (c = 16, batch norm, eval
mode) on 128 images. torch.func's side is the contraction of whole Jacobians, `vmap(jacrev)` and one `einsum` per
parameter; it is left out where its Jacobians would not fit the memory. Sides take turns, in one process; the ratio of
medians is printed, and how far apart the kernels are.

Floor. The kernel is symmetric, so half of it is necessary. A linear layer of width q needs `(N·C)²·q` FLOPs for the
Gram matrix of its sensitivities; a convolution of P weights `(N·C)²·P` for that of its derivatives, and 2 FLOPs per
weight, position, output and example to form them. Sensitivities need as many backward passes as there are outputs,
none of them through the first layer.
Bytes: the kernel is written once. "of GEMM" is the speed on that arithmetic, against that of a large matrix product.
Peak memory is the high-water mark of the resident set above its size before the call, in a process of its own.

    python bench/ntk.py [--repeats 3] [--threads 2] [--out ntk.json]
"""

import argparse
import json
import math
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.utils.flop_counter import FlopCounterMode

from overparam import CNN, MLP, empirical_ntk
from overparam.foundations.torch_generators import torch_generator
from overparam.measure.kernels.empirical import MAX_MEMORY
from overparam.models.build import build
from timing import environment, medians

CASES: dict[str, tuple[MLP | CNN, tuple[int, ...], int]] = {
    "MLP w=1024, 64 inputs": (MLP(width=1024), (784,), 64),
    "MLP w=1024, 500 inputs": (MLP(width=1024), (784,), 500),
    "CNN c=16, 128 images": (CNN(channels=16), (3, 32, 32), 128),
}
CLASSES = 10
MEMORY = 16e9  # bytes of Jacobians that the other side may take


def case(name: str) -> tuple[nn.Module, Tensor]:
    spec, shape, count = CASES[name]
    model = build(spec, shape, CLASSES, generator=torch_generator(0, "init")).eval()
    return model, torch.randn(count, *shape, generator=torch_generator(0, "inputs"))


def by_jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """`Σ_p J_p J_pᵀ` from whole Jacobians, as the documentation of torch.func has it."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def outputs(values: dict[str, Tensor], one: Tensor) -> Tensor:
        found: Tensor = functional_call(model, values, (one.unsqueeze(0),)).squeeze(0)
        return found

    rows = vmap(jacrev(outputs), (None, 0))(parameters, x)
    blocks = [torch.einsum("iap,jbp->ijab", j.flatten(2), j.flatten(2)) for j in rows.values()]
    total: Tensor = torch.stack(blocks).sum(0)
    return total


def necessary(model: nn.Module, x: Tensor) -> float:
    """FLOPs that the symmetric half needs, see the floor above."""
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        model(x)
    first = next(module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    shapes: list[tuple[nn.Module, torch.Size]] = []
    hooks = [m.register_forward_hook(lambda m, _, y: shapes.append((m, y.shape))) for m in model.modules()]
    model(x[:1])
    for hook in hooks:
        hook.remove()
    once: float = 2.0 * len(x) * first.weight.numel() * math.prod(next(s for m, s in shapes if m is first)[2:])
    rows, products = len(x) * CLASSES, float(forward.get_total_flops())
    total = products + CLASSES * (products - once)
    for module, shape in shapes:
        if isinstance(module, nn.Linear):
            total += rows**2 * module.out_features + len(x) ** 2 * module.in_features
        elif isinstance(module, nn.Conv2d):
            total += rows**2 * module.weight.numel() + 2.0 * rows * module.weight.numel() * math.prod(shape[2:])
    return total


def peak_bytes(name: str, threads: int) -> float:
    """High-water mark of one call above what the process held before."""
    torch.set_num_threads(threads)
    model, x = case(name)
    empirical_ntk(model, x[:2])
    before, highest, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    empirical_ntk(model, x)
    done.set()
    watcher.join()
    return float(highest[0] - before)


def resident() -> int:
    """Bytes of this process in memory, on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def in_fresh_process(function: Callable[..., float], *arguments: Any) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    model, x = case(name)
    square = torch.randn(4096, 1024, generator=torch_generator(0, "square"))
    weights = sum(p.numel() for p in model.parameters())
    other = 4.0 * len(x) * CLASSES * weights < MEMORY
    sides = [lambda: empirical_ntk(model, x), lambda: square @ square.T]
    own, gemm = medians(sides, 3 * options.repeats)
    flops = necessary(model, x)
    row: dict[str, Any] = {
        "case": name,
        "seconds": own,
        "floor_flops": flops,
        "floor_bytes": 4.0 * (len(x) * CLASSES) ** 2,
        "gemm_flops": 2.0 * 4096**2 * 1024 / gemm,
        "share_of_gemm": flops / own / (2.0 * 4096**2 * 1024 / gemm),
        "peak_bytes": in_fresh_process(peak_bytes, name, options.threads),
        "chunk_bound": MAX_MEMORY,
    }
    if other:
        theirs, ours = medians([lambda: by_jacobians(model, x), lambda: empirical_ntk(model, x)], options.repeats)
        apart = (by_jacobians(model, x) - empirical_ntk(model, x)).abs().max() / empirical_ntk(model, x).abs().max()
        row |= {"torch_func_seconds": theirs, "seconds_beside": ours, "ratio": theirs / ours, "apart": float(apart)}
    return row


def shown(row: dict[str, Any]) -> str:
    ratio = f"{row['ratio']:.3g}× ({row['torch_func_seconds']:.2f} s)" if "ratio" in row else "does not fit"
    apart = f"{row['apart']:.0e}" if "apart" in row else ""
    floor = f"{row['floor_flops'] / 1e9:.1f} GFLOP, {row['floor_bytes'] / 1e6:.0f} MB"
    memory = f"{row['peak_bytes'] / 1e6:.0f} MB of {(2 * row['floor_bytes'] + row['chunk_bound']) / 1e6:.0f}"
    cells = [row["case"], f"{row['seconds']:.3f}", ratio, apart, floor, f"{row['share_of_gemm']:.0%}", memory]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=None, help="JSON file for all figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {"environment": environment(options), "rows": []}
    for name in options.cases:
        figures["rows"].append(compare(name, options))
        print(shown(figures["rows"][-1]), flush=True)
    gemm = figures["rows"][-1]["gemm_flops"]
    print(f"\na product of 4096×1024 matrices on {options.threads} threads: {gemm / 1e9:.0f} GFLOP/s\n")
    print("| case | median s | torch.func | apart | floor | of GEMM | peak memory of 2× kernel + bound |")
    print("|---|---:|---:|---:|---|---:|---:|")
    print("\n".join(shown(row) for row in figures["rows"]))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

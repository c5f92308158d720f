"""Wall-clock time of a laptop-sized sweep: overparam with two workers against a plain PyTorch loop.

Both sides train the same runs: CNN c = 8 with batch norm, CIFAR-10-shaped data, batch 32 and 1024. The plain side
is what one writes in an afternoon: one process, PyTorch's own number of threads, DataLoader-free batches, the
same optimizer, schedule and evaluations. Sides alternate and the ratio of medians is printed.

    python bench/training.py [--images 10000] [--epochs 2] [--seeds 2] [--repeats 3]
"""

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from overparam.data.load import prepare
from overparam.data.types import Examples
from overparam.foundations.torch_generators import torch_generator
from overparam.lab.backends.choose import open_backend
from overparam.lab.plan import make_plan
from overparam.lab.schedule import Scheduler
from overparam.models.build import build
from overparam.runs.execution import Execution
from overparam.specs import CNN, SGD, DataSpec, RunSpec, TrainSpec

LR = {32: 0.005, 1024: 0.08}
EVALUATIONS = 6


def runs(data: DataSpec, epochs: int, seeds: int) -> list[RunSpec]:
    """The sweep."""
    return [
        RunSpec(
            data=data,
            model=CNN(channels=8),
            train=TrainSpec(optimizer=SGD(lr=lr), batch_size=size, epochs=epochs),
            seed=seed,
        )
        for size, lr in LR.items()
        for seed in range(seeds)
    ]


def ours(specs: list[RunSpec], data_dir: Path | None) -> float:
    """Seconds of the sweep on two worker processes, their start included."""
    store = Path(tempfile.mkdtemp())
    execution = Execution(store=store, data_dir=data_dir, evaluations=EVALUATIONS)
    began = time.perf_counter()
    backend = open_backend("local", 2, execution)
    try:
        swept = Scheduler(make_plan(specs, execution), {}, backend).run(lambda progress: None)
    finally:
        backend.close()
    seconds = time.perf_counter() - began
    assert swept.finished == len(specs), swept.failures
    shutil.rmtree(store)
    return seconds


def plain(specs: list[RunSpec], examples: Examples) -> float:
    """Seconds of the same runs one after the other, written plainly."""
    began = time.perf_counter()
    for spec in specs:
        plain_run(spec, examples)
    return time.perf_counter() - began


def plain_run(spec: RunSpec, examples: Examples) -> None:
    x, y = torch.from_numpy(examples.train.x), torch.from_numpy(examples.train.y)
    test_x, test_y = torch.from_numpy(examples.test.x), torch.from_numpy(examples.test.y)
    model = build(spec.model, examples.input_shape, 10, generator=torch_generator(spec.seed, "init"))
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.train.optimizer.lr, momentum=0.9)
    epochs, size = spec.train.epochs or 1, int(spec.train.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    moments = {round(epochs ** (k / (EVALUATIONS - 1))) for k in range(EVALUATIONS)}
    for epoch in range(1, epochs + 1):
        model.train()
        order = torch.randperm(len(x), generator=torch_generator(spec.seed, "order", epoch))
        for chosen in torch.split(order, size):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[chosen]), y[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        if epoch in moments:
            evaluate(model, x, y)
            evaluate(model, test_x, test_y)


@torch.no_grad()
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    model.eval()
    chunks = zip(torch.split(x, 1000), torch.split(y, 1000), strict=True)
    return sum([int((model(a).argmax(1) == b).sum()) for a, b in chunks]) / len(y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"images": 10_000, "epochs": 2, "seeds": 2, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--data-dir", type=Path, default=None)
    options = parser.parse_args()
    data = DataSpec(name="cifar10", num_train=options.images)
    examples = prepare(data, data_dir=options.data_dir)
    specs = runs(data, options.epochs, options.seeds)
    ours_seconds, plain_seconds = [], []
    for repeat in range(options.repeats):
        plain_seconds.append(plain(specs, examples))
        ours_seconds.append(ours(specs, options.data_dir))
        print(f"repeat {repeat}: plain {plain_seconds[-1]:.1f} s, overparam {ours_seconds[-1]:.1f} s", flush=True)
    a, b = statistics.median(plain_seconds), statistics.median(ours_seconds)
    print(f"{len(specs)} runs, {options.images:,} images, {options.epochs} epochs, batch {' and '.join(map(str, LR))}")
    print(f"plain, 1 process × {torch.get_num_threads()} threads: median {a:.1f} s")
    print(f"overparam, 2 workers × 1 thread: median {b:.1f} s")
    print(f"ratio of medians: {a / b:.2f}")
    print(f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

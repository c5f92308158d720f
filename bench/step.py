"""One training step of a small MLP: overparam against autograd and PyTorch's fused SGD.

Both sides start from the same weights and see the same batches of 100; they must end at the same weights, bit for bit.
One thread, as a worker of a sweep has. Sides take turns; the ratio of medians is printed.

Floor. A step needs three products of `2·P·batch` FLOPs, one less in the first layer, whose inputs need no derivative.
"of GEMM" is the speed on that arithmetic against that of a large matrix product. At width 10 the arithmetic takes some
3 µs: what is left is the cost of calling about 25 kernels, and a step by autograd calls and books twice as much.

    python bench/step.py [--repeats 9]
"""

import argparse
import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam import MLP, SGD, TrainSpec
from overparam.foundations.torch_generators import torch_generator
from overparam.models.build import build
from overparam.runs.training.gradients import gradient_of
from overparam.runs.training.optim import build_optimizer, update_of
from timing import environment, medians

CASES = {(9, 3): (1, 40), (50, 3): (1, 40), (240, 3): (1, 40), (32, 4): (1, 28, 28), (1024, 4): (1, 28, 28)}
BATCH, BATCHES = 100, 40
SPEC = TrainSpec(optimizer=SGD(lr=0.01), batch_size=BATCH, epochs=1)


def ours(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    gradient, update = gradient_of(model, SPEC), update_of(build_optimizer(SPEC.optimizer, model))

    def steps() -> None:
        for x, y in batches:
            gradient(x, y)
            update()

    return steps


def plain(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def steps() -> None:
        for x, y in batches:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return steps


def gemm_speed(repeats: int) -> float:
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / medians([lambda: a @ a], repeats)[0]


def compare(width: int, depth: int, shape: tuple[int, ...], repeats: int) -> None:
    mine = build(MLP(width=width, depth=depth), shape, 10, generator=torch_generator(0, "init")).train()
    theirs = copy.deepcopy(mine)
    draw = torch_generator(0, "inputs")
    batches = [
        (torch.randn(BATCH, *shape, generator=draw), torch.randint(10, (BATCH,), generator=draw))
        for _ in range(BATCHES)
    ]
    seconds = [s / BATCHES for s in medians([ours(mine, batches), plain(theirs, batches)], repeats)]
    equal = all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    weights = [p.numel() for p in mine.parameters() if p.ndim == 2]
    flops = 2.0 * BATCH * (3 * sum(weights) - weights[0])
    print(
        f"width {width:5d}, depth {depth}, {shape[-1] * shape[-2]:4d} inputs: {seconds[0] * 1e3:7.3f} ms against "
        f"{seconds[1] * 1e3:7.3f} ms, {seconds[1] / seconds[0]:.2f} times; "
        f"{flops / seconds[0] / gemm_speed(repeats):4.0%} of GEMM; {'equal bits' if equal else 'WEIGHTS DIFFER'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    environment(options)
    for (width, depth), shape in CASES.items():
        compare(width, depth, shape, options.repeats)


if __name__ == "__main__":
    main()

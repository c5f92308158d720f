"""Test accuracy of the MLP on 10,000 MNIST images at two widths, five seeds each: the Markdown table of README.md.

OVERPARAM_DATA=<data> python docs/results/mnist_mlp.py [--store runs]
"""

import argparse
import math

import overparam as op
from overparam.claims.intervals import t_interval

PAPER = {32: 95.4, 128: 96.7}  # per cent; the paper gives ± .1 at 128
BAND = 0.7  # points that other seeds, subsets and versions may make, before two standard errors


def spec(width: int, seed: int) -> op.RunSpec:
    return op.RunSpec(
        data=op.DataSpec(name="mnist", num_train=10_000),
        model=op.MLP(width=width),
        train=op.TrainSpec(optimizer=op.SGD(lr=0.05), batch_size=128, epochs=60),
        seed=seed,
    )


def row(width: int, runs: list[op.Run]) -> str:
    found = t_interval([100 * run.test_accuracy for run in runs])
    train = sum(100 * run.train_accuracy for run in runs) / len(runs)
    difference, allowed = found.estimate - PAPER[width], BAND + 2 * found.sd / math.sqrt(found.n)
    cells = [
        f"{width}",
        f"{PAPER[width]}",
        f"{found.estimate:.2f} ± {found.sd:.2f}",
        f"[{found.lower:.2f}, {found.upper:.2f}]",
        f"{train:.2f}",
        f"{difference:+.2f}, {'inside' if abs(difference) <= allowed else 'outside'} {allowed:.2f}",
        ", ".join(f"{100 * run.test_accuracy:.2f}" for run in runs),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="runs")
    store = parser.parse_args().store
    specs = {width: [spec(width, seed) for seed in range(5)] for width in PAPER}
    op.run([s for group in specs.values() for s in group], store=store)
    heads = ["width", "paper, test %", "test %", "95 % interval", "train %", "difference, allowed", "single runs"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for width, group in specs.items():
        print(row(width, [op.train(each, store=store) for each in group]))


if __name__ == "__main__":
    main()

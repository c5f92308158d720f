"""Test accuracy of the MLP on 10,000 MNIST images at two widths, five seeds each: a Markdown table.

OVERPARAM_DATA=<data> python docs/results/mnist_mlp.py [--store runs]
"""

import argparse

import overparam as op
from overparam.analyse.intervals import t_interval

PAPER = {32: 95.4, 128: 96.7}


def spec(width: int, seed: int) -> op.RunSpec:
    return op.RunSpec(
        data=op.DataSpec(name="mnist", num_train=10_000),
        model=op.MLP(width=width),
        train=op.TrainSpec(optimizer=op.SGD(lr=0.05), batch_size=128, epochs=60),
        seed=seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="runs")
    store = parser.parse_args().store
    specs = {width: [spec(width, seed) for seed in range(5)] for width in PAPER}
    op.run([s for group in specs.values() for s in group], store=store)
    print("| width | paper | mean ± sd | 95 % interval | single runs |\n|---|---|---|---|---|")
    for width, group in specs.items():
        accuracies = [100 * op.train(s, store=store).test_accuracy for s in group]
        found = t_interval(accuracies)
        single = ", ".join(f"{a:.2f}" for a in accuracies)
        bounds = f"[{found.lower:.2f}, {found.upper:.2f}]"
        print(f"| {width} | {PAPER[width]} | {found.estimate:.2f} ± {found.sd:.2f} | {bounds} | {single} |")


if __name__ == "__main__":
    main()

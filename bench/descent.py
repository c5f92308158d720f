"""What the runs of `double_descent` on MNIST-1D take, laptop preset: 10 widths, clean and wrong labels, 5 seeds.

Trained and evaluated in a store of their own, without the probes, by as many workers as there are cores.

    python bench/descent.py [--seeds 5] [--workers 2]
"""

import argparse
import json
import tempfile
import time

from overparam import run
from overparam.lab.schedule import default_workers
from overparam.studies.double_descent.claims import CLEAN, NOISY
from overparam.studies.double_descent.designs import DESIGNS
from timing import environment


def main(seeds: int, workers: int) -> None:
    design = DESIGNS["laptop"]
    specs = [cell.spec for cell in design.cells() if cell.arm in (CLEAN, NOISY) and cell.seed in design.seeds[:seeds]]
    with tempfile.TemporaryDirectory() as store:
        began = time.perf_counter()
        frame = run(specs, store=store, workers=workers).frame()
        wall = time.perf_counter() - began
    took = frame["seconds"].sum()
    print(f"{len(frame)} runs, {took:,.0f} core-seconds, {wall / 60:.1f} minutes with {workers} workers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=default_workers())
    given = parser.parse_args()
    print(json.dumps(environment(argparse.Namespace(threads=1)), indent=1))
    main(given.seeds, given.workers)

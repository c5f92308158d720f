"""The paper's table of width, movement and accuracy beside the runs of `ntk_regime`: the Markdown table of README.md.

python docs/results/ntk_table.py [docs/results/ntk_regime_laptop/ntk_regime_runs.csv]
"""

import csv
import math
import sys
from collections import defaultdict
from pathlib import Path

from overparam.analyse.intervals import t_interval
from overparam.studies.ntk_regime.claims import PAPER

MOVEMENT, ACCURACY = 3.0, 1.0  # per cent of the paper's movement; points, before two standard errors
RUNS = Path(__file__).parent / "ntk_regime_laptop" / "ntk_regime_runs.csv"


def row(width: int, runs: list[dict[str, str]]) -> str:
    movement, accuracy = PAPER[width]
    moved = t_interval([float(run["relative_movement"]) for run in runs])
    tested = t_interval([100 * float(run["test_accuracy"]) for run in runs])
    apart, further = 100 * (moved.estimate / movement - 1), tested.estimate - 100 * accuracy
    allowed = ACCURACY + 2 * tested.sd / math.sqrt(tested.n)
    cells = [
        f"{width}",
        f"{movement:.4f}",
        f"{moved.estimate:.4f} [{moved.lower:.4f}, {moved.upper:.4f}]",
        f"{apart:+.1f} %, {'inside' if abs(apart) <= MOVEMENT else 'outside'} {MOVEMENT:g}",
        f"{100 * accuracy:.1f}",
        f"{tested.estimate:.2f} [{tested.lower:.2f}, {tested.upper:.2f}]",
        f"{further:+.2f}, {'inside' if abs(further) <= allowed else 'outside'} {allowed:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    by_width = defaultdict(list)
    with (Path(sys.argv[1]) if len(sys.argv) > 1 else RUNS).open() as file:
        for run in csv.DictReader(file):
            if run["arm"] == "standard_sgd":
                by_width[int(run["level"])].append(run)
    heads = ["width", "paper, movement", "movement [95 %]", "difference", "paper, test %", "test % [95 %]", "points"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for width, runs in sorted(by_width.items()):
        print(row(width, runs))


if __name__ == "__main__":
    main()

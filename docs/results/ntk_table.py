"""The paper's table of width, movement and accuracy beside the runs of `ntk_regime`: the Markdown table of README.md.

python docs/results/ntk_table.py [docs/results/ntk_regime_laptop/ntk_regime_runs.csv]
"""

from paper_table import Runs, accuracy_cells, by_level, show

from overparam.claims.intervals import t_interval
from overparam.studies.ntk_regime.claims import PAPER

MOVEMENT, ACCURACY = 3.0, 1.0  # per cent of the paper's movement; points, before two standard errors
HEADS = ("width", "paper, movement", "movement [95 %]", "difference", "paper, test %", "test % [95 %]", "points")


def row(width: int, runs: Runs) -> list[str]:
    movement, accuracy = PAPER[width]
    moved = t_interval([float(run["relative_movement"]) for run in runs])
    apart = 100 * (moved.estimate / movement - 1)
    return [
        f"{width}",
        f"{movement:.4f}",
        f"{moved.estimate:.4f} [{moved.lower:.4f}, {moved.upper:.4f}]",
        f"{apart:+.1f} %, {'inside' if abs(apart) <= MOVEMENT else 'outside'} {MOVEMENT:g}",
        *accuracy_cells(accuracy, runs, ACCURACY),
    ]


if __name__ == "__main__":
    show(HEADS, [row(width, runs) for width, runs in by_level("ntk_regime", "standard_sgd").items()])

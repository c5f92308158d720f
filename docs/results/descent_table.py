"""The paper's table of width and accuracy beside the runs of `double_descent`: the Markdown table of README.md.

python docs/results/descent_table.py [docs/results/double_descent_laptop/double_descent_runs.csv]
"""

from paper_table import Runs, accuracy_cells, by_level, show

from overparam.claims.intervals import t_interval
from overparam.studies.double_descent.claims import PAPER, PUBLISHED

ALLOWED = 0.7  # points, before two standard errors
HEADS = ("width", "paper, test %", "test % [95 %]", "points", "train %")


def row(width: int, runs: Runs) -> list[str]:
    fitted = t_interval([100 * float(run["train_accuracy"]) for run in runs])
    return [f"{width}", *accuracy_cells(PAPER[width], runs, ALLOWED), f"{fitted.estimate:.2f}"]


if __name__ == "__main__":
    show(HEADS, [row(width, runs) for width, runs in by_level("double_descent", PUBLISHED).items()])

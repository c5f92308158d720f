"""What the page says below the sweep figure of points that are less than they look: runs cut short, axes cut off."""

from collections.abc import Sequence

import polars as pl

from overparam.claims.sample import EARLY_STOP
from overparam.report.figures.sweep import ENDS, drawn_runs, grouped, logit_limits, panels_of
from overparam.report.tables import Row

CENSORED = f"{EARLY_STOP}censored"
UNFINISHED = (
    "Early stopping did not stop some runs before their last step. Their value is that of the last look, a lower bound "
    "for the step and an unfinished accuracy:"
)
CUT = "Beyond the ends of a logit axis, and cut off there:"


def remarks(rows: Sequence[Row], frame: pl.DataFrame) -> list[str]:
    """Both remarks, or those for which there is cause."""
    said = ((UNFINISHED, unfinished(rows, frame)), (CUT, cut_off(rows, frame)))
    return [f"{head} {'; '.join(found)}." for head, found in said if found]


def unfinished(rows: Sequence[Row], frame: pl.DataFrame) -> list[str]:
    """Levels by arm at which the validation loss of a run was lowest at its last look, with the number of such runs."""
    if CENSORED not in frame.columns:
        return []
    found: dict[str, list[str]] = {}
    for row in rows:
        runs = drawn_runs(frame, row["arm"], CENSORED).filter(pl.col("level") == row["level"])
        if count := int((runs[CENSORED] == 1.0).sum()):
            found.setdefault(row["title"], []).append(f"{row['level']} ({count} of {_count(len(runs), 'run')})")
    return [f"{title} at {', '.join(levels)}" for title, levels in found.items()]


def cut_off(rows: Sequence[Row], frame: pl.DataFrame) -> list[str]:
    """Runs and bars that a panel's logit axis has no room for, by panel."""
    panels = [(group, metric, title) for group in grouped(rows) for metric, title in panels_of(group)]
    found = []
    for group, metric, title in panels:
        if counts := _beyond(group, frame, metric):
            where = f", {group[0]['group']}" if group[0]["group"] else ""
            found.append(f"{counts} of “{title}”{where}")
    return found


def _beyond(rows: Sequence[Row], frame: pl.DataFrame, metric: str) -> str:
    if (limits := logit_limits(rows, metric)) is None:
        return ""
    arms = dict.fromkeys(row["arm"] for row in rows)
    values = [value for arm in arms for value in drawn_runs(frame, arm, metric)[metric]]
    bars = [[row[f"{metric}_{side}"] for side in ("lower", "upper")] for row in rows]
    num_runs = sum(_outside(value, *limits) for value in values)
    num_bars = sum(any(_outside(end, *limits) for end in bar) for bar in bars)
    return " and ".join(_count(n, word) for n, word in ((num_runs, "run"), (num_bars, "interval bar")) if n)


def _outside(share: float, low: float, high: float) -> bool:
    """Whether it lies off an axis from `low` to `high` percent; a bound that is NaN does not."""
    place = min(max(100 * share, ENDS[0]), ENDS[1])
    return place < low or place > high


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"

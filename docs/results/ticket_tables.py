"""Tickets and their controls by density, beside a published re-run: the Markdown tables of README.md.

The masks' table is of `lottery_ticket_measurements.json`, which a report has beside its runs.

    python docs/results/ticket_tables.py [lottery_ticket_runs.csv [lottery_ticket_measurements.json]]
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import polars as pl
from paper_table import show

from overparam.claims.intervals import t_interval
from overparam.studies.lottery_ticket.arms import CONTROLS, DENSE, TICKET, TITLES, TUNED
from overparam.studies.lottery_ticket.rates import RATES

COMMITTED = Path(__file__).parent / "lottery_ticket_laptop" / "lottery_ticket_runs.csv"
# Early-stop accuracy in percent and step: a published re-run of Frankle & Carbin (2019), one seed, 50,000 steps of Adam
# at .0012, batch 60.
RE_RUN = {
    (TICKET, 100.0): (98.04, 5900),
    (TICKET, 21.1): (98.35, 2600),
    (TICKET, 13.5): (98.36, 3800),
    (TICKET, 8.7): (98.20, 4100),
    ("reinit", 21.1): (97.94, 9100),
    ("reinit", 13.5): (97.60, 8900),
    ("reinit", 8.7): (97.52, 11_300),
}
MOVED = (TICKET, "reinit", "random")  # to a fresh sample of MNIST-1D
CONTROLLED = (100.0, 51.3, 21.1, 13.5, 7.0, 3.6, 1.9, 1.2)


def cell(runs: pl.DataFrame, text: Callable[[pl.DataFrame], str]) -> str:
    there = runs.filter(pl.col("status") != "missing")
    return text(there) if len(there) else "–"


def percent(runs: pl.DataFrame, metric: str) -> str:
    found = t_interval((100 * runs[metric]).to_list())
    return f"{found.estimate:.2f} ± {found.upper - found.estimate:.2f}"


def early_step(runs: pl.DataFrame) -> str:
    """The median step; "≥" where half of the runs were still at their best when they ended."""
    cut, step = int(runs["early_stop_censored"].sum()), median(runs["early_stop_step"].to_list())
    return ("≥ " if 2 * cut >= len(runs) else "") + f"{step:,.0f}" + (f" ({cut}/{len(runs)} cut)" if cut else "")


def table(runs: pl.DataFrame, ladder: str, levels: Sequence[float], text: Callable[[pl.DataFrame], str]) -> None:
    there = [kind for kind in (TICKET, *CONTROLS) if f"{ladder}_{kind}" in set(runs["arm"])]
    rows = []
    for level in levels:
        at = runs.filter(pl.col("level") == f"{level:g}")
        rows.append([f"{level:g}", *(cell(at.filter(pl.col("arm") == f"{ladder}_{kind}"), text) for kind in there)])
    show(["%", *(TITLES[kind] for kind in there)], rows)
    print()


def beside_re_run(runs: pl.DataFrame) -> None:
    rows = []
    for (kind, level), (accuracy, step) in RE_RUN.items():
        ours = runs.filter((pl.col("arm") == f"lenet_{kind}") & (pl.col("level") == f"{level:g}"))
        if len(ours):
            apart = 100 * mean(ours["early_stop_accuracy"].to_list()) - accuracy
            mine = [percent(ours, "early_stop_accuracy"), f"{apart:+.2f}", early_step(ours)]
            rows.append([f"{TITLES[kind]}, {level:g} %", f"{accuracy:.2f}", *mine[:2], f"{step:,}", mine[2]])
    show(["", "re-run, %", "here, % ± 95 %", "points", "re-run, step", "here, step"], rows)
    print()


def own_rates(runs: pl.DataFrame) -> None:
    """Test accuracy after the last step at the common rate and at each kind's own, dense network and 13.5 %."""
    rows = []
    for kind, rate in RATES.items():
        arm, level = ("lenet_ticket", "100") if kind == DENSE else (f"lenet_{kind}", "13.5")
        at = runs.filter(pl.col("level") == level)
        both = [at.filter(pl.col("arm") == name) for name in (arm, f"{arm}_{TUNED}")]
        values = [percent(each, "test_accuracy") for each in both]
        rows.append([TITLES.get(kind, "dense network"), f"{rate:g}", *values])
    show(["", "own rate", "at the common rate", "at its own"], rows)
    print()


def moved(runs: pl.DataFrame) -> None:
    """A ticket on the sample that its mask comes from, and on another, beside what it is compared with there."""
    kinds = {"signals_ticket": TITLES[TICKET], **{f"signals_{k}_fresh": f"{TITLES[k]}, fresh sample" for k in MOVED}}
    rows = []
    for arm, title in kinds.items():
        mine = [runs.filter((pl.col("arm") == arm) & (pl.col("level") == level)) for level in ("100", "8")]
        rows.append([title, *(cell(at, lambda some: percent(some, "test_accuracy")) for at in mine)])
    show(["", "100 %", "8 %"], rows)


def profiles(file: Path) -> None:
    """Where LeNet's weights are left, what is shared with the mask of seed 0, and the pixels that go unread."""
    readings = [each for each in json.loads(file.read_text()) if each["probe"]["kind"] == "mask_profile"]
    rows, shares = [], ("shared / chance", "with each input's count", "z of pairs")
    for level in CONTROLLED[1:]:
        found = profiled(readings, "lenet_ticket", level)
        layers = [f"{100 * mean(row['densities'][index] for row in found):.1f}" for index in range(3)]
        unread = mean(row["dead_inputs"][0] for row in found)
        rows.append([f"{level:g}", *layers, *overlaps(found), f"{unread:.0f}"])
    show(["%", "first, %", "second, %", "last, %", *shares, "pixels unread"], rows)
    print()
    levels = (70, 50, 30, 20, 10, 5)
    show(["CNN, %", *shares], [[f"{each}", *overlaps(profiled(readings, "cnn_ticket", each))] for each in levels])


def profiled(readings: list[dict[str, Any]], arm: str, level: float) -> list[dict[str, Any]]:
    at = [each for each in readings if each["arm"] == arm and each["level"] == f"{level:g}"]
    return [row for each in at for row in each["rows"]]


def overlaps(found: list[dict[str, Any]]) -> list[str]:
    pairs = [row for row in found if row["mask_excess"] is not None]
    if not pairs:
        return ["–"] * 3
    shared = [f"{mean(row[name] for row in pairs):.2f}" for name in ("mask_excess", "mask_excess_by_inputs")]
    z = [row["mask_overlap_z"] for row in pairs]
    return [*shared, f"{min(z):.0f} … {max(z):.0f}"]


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED
    runs = pl.read_csv(file, schema_overrides={"level": pl.String})
    beside_re_run(runs)
    table(runs, "lenet", CONTROLLED, lambda at: percent(at, "early_stop_accuracy"))
    table(runs, "lenet", CONTROLLED, early_step)
    own_rates(runs)
    table(runs, "cnn", (100, 70, 50, 30, 20, 10, 5), lambda at: percent(at, "test_accuracy"))
    moved(runs)
    for given in sys.argv[2:3]:
        profiles(Path(given))

"""What the command line shows: lines of text and tables."""

import shlex
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from overparam.claims.verdict import Verdict
    from overparam.lab.experiment import Experiment

console = Console()
errors = Console(stderr=True)


def say(text: str) -> None:
    """One line of plain text, never wrapped and never read as markup."""
    console.print(escape(text), highlight=False, soft_wrap=True)


def command_line() -> str:
    """The command that is running, as it can be typed again."""
    return shlex.join(["overparam", *sys.argv[1:]])


def plan_table(experiments: "tuple[Experiment, ...]") -> Table:
    """Size and budget of each study."""
    table = Table("study", "preset", "runs", "seeds", "budget core-s", title="Plan")
    for item in experiments:
        budget = item.design.budget_core_seconds
        counts = str(len(set(item.specs))), str(len(item.design.seeds))
        table.add_row(item.study.name, item.preset, *counts, f"{budget:,.0f}" if budget else "-")
    return table


def power_table(experiments: "tuple[Experiment, ...]") -> Table:
    """What the planned seeds can settle, alone and at the strictest step of Holm's correction."""
    from overparam.claims.power import power

    table = Table("claim", "test", "margin", "seeds", "power", "after Holm", title="Power of each claim to be settled")
    for item in experiments:
        family = sum(claim.confirmatory for claim in item.design.claims)
        for claim in item.design.claims:
            n = item.design.seeds_of(claim)
            holm = f"{power(claim, n, family=family):.2f}" if claim.confirmatory else "descriptive"
            table.add_row(claim.name, claim.test, f"{claim.margin:g}", str(n), f"{power(claim, n):.2f}", holm)
    return table


def verdict_table(verdicts: "tuple[Verdict, ...]") -> Table:
    """Verdicts in the units of the report; p is that of the verdict's side, Holm's where the claim is confirmatory."""
    from overparam.report import written

    table = Table("claim")
    for heading in ("verdict", "estimate [95 %]", "unit", "n", "p"):
        table.add_column(escape(heading), no_wrap=heading != "unit")
    for v in verdicts:
        unit, interval = written.unit(v.claim.estimand), v.interval
        estimate, *bounds = (written.effect(x, unit) for x in (interval.estimate, interval.lower, interval.upper))
        name = v.claim.name if v.claim.confirmatory else f"{v.claim.name} (descriptive)"
        p, p_against = (v.p_holm, v.p_against_holm) if v.claim.confirmatory else (v.p, v.p_against)
        decisive = written.p_value(p_against if v.verdict == "refuted" else p)
        shown = escape(f"{estimate} [{', '.join(bounds)}]"), unit
        table.add_row(name, v.verdict, *shown, str(v.n), decisive)
    return table

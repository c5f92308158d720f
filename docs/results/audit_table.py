"""The table of docs/audit.md: what the paper claims, what its published values support, and where we answer it.

The second column is computed from docs/paper_values.csv. A claim that the third names must stand in the committed
verdicts of its study.

    python docs/results/audit_table.py            # writes the table into docs/audit.md
    python docs/results/audit_table.py --check    # fails where the table is not what it would write
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit_rows import BLOCKS, Answer, Row
from paper_values import Paper

RESULTS = Path(__file__).parent
PAGE = RESULTS.parent / "audit.md"
BEGIN, END = "<!-- audit_table.py writes from here -->", "<!-- to here -->"
HEADS = ("the paper's claim", "what its published values support", "what this laboratory finds")


@dataclass(frozen=True)
class Verdicts:
    """Names of the claims in the committed verdicts of each study."""

    folder: Path = RESULTS

    def names(self, study: str) -> set[str]:
        file = self.folder / f"{study}_laptop" / f"{study}_verdicts.csv"
        with file.open(encoding="utf-8", newline="") as opened:
            return {row["name"] for row in csv.DictReader(opened)}

    def found(self, answer: Answer) -> str:
        """The claim of ours that answers one of the paper's; its numbers are those of docs/results."""
        if answer.claim not in self.names(answer.study):
            raise SystemExit(f'the committed verdicts of {answer.study} have no claim "{answer.claim}"')
        return f"`{answer.study}`: {answer.claim}"


def ours(row: Row, verdicts: Verdicts) -> str:
    """The third column."""
    named = "; ".join(verdicts.found(answer) for answer in row.answers)
    return row.here or f"{named}; see [docs/results](results/README.md)"


def table(rows: Sequence[Row], paper: Paper, verdicts: Verdicts) -> str:
    lines = [f"| {' | '.join(HEADS)} |", "|---|---|---|"]
    for row in rows:
        lines.append(f"| **{row.name}** {row.stated} | {row.supports(paper)} | {ours(row, verdicts)} |")
    return "\n".join(lines)


def written(page: str, paper: Paper, verdicts: Verdicts) -> str:
    """The page with its tables made anew."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"{PAGE.name} must hold the lines {BEGIN} and {END} once")
    blocks = [f"## {title}\n\n{table(rows, paper, verdicts)}" for title, rows in BLOCKS.items()]
    before, rest = page.split(BEGIN)
    return "\n\n".join([f"{before}{BEGIN}", *blocks, f"{END}{rest.split(END)[1]}"])


def main(arguments: Sequence[str]) -> None:
    if list(arguments) not in ([], ["--check"]):
        raise SystemExit(f"unknown arguments {' '.join(arguments)}; allowed: none, or --check")
    page = PAGE.read_text(encoding="utf-8")
    now = written(page, Paper(), Verdicts())
    if not arguments:
        PAGE.write_text(now, encoding="utf-8")
    elif now != page:
        raise SystemExit(f"{PAGE.name} is not what its values give; run python docs/results/audit_table.py")


if __name__ == "__main__":
    main(sys.argv[1:])

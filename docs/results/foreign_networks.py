"""Every measure on networks of other libraries: what came of each, kept in a CSV and shown in foreign_networks.md.

PYTHONPATH=. python docs/results/foreign_networks.py [tests.support.foreign.catalogue] [--processes 2]

A module gives its networks by `networks()`. The rows of a module that is measured again are replaced; those of others
stay, so that libraries that need another environment append theirs.
"""

import argparse
import csv
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import torch

from tests.support.foreign.measures import MEASURES
from tests.support.foreign.network import Foreign
from tests.support.foreign.outcomes import outcomes

HERE = Path(__file__).parent
KEPT, SHOWN = HERE / "foreign_networks.csv", HERE / "foreign_networks.md"
FIELDS = ("module", "library", "family", "network", "measure", "verdict", "words", "untouched")
SIGNS = {"right": "✓", "refused": "–", "wrong": "✗"}
Row = dict[str, str]


def networks(module: str) -> list[Foreign]:
    found: list[Foreign] = importlib.import_module(module).networks()
    return found


def measured(module: str, index: int) -> list[Row]:
    """The rows of one network of a module."""
    torch.set_num_threads(1)
    network = networks(module)[index]
    return [
        {
            "module": module,
            "library": network.library,
            "family": network.family,
            "network": network.name,
            "measure": each.measure,
            "verdict": each.verdict,
            "words": each.words,
            "untouched": "no" if each.touched else "yes",
        }
        for each in outcomes(network)
    ]


def kept() -> list[Row]:
    if not KEPT.exists():
        return []
    with KEPT.open(newline="") as file:
        return list(csv.DictReader(file))


def keep(rows: Iterable[Row]) -> None:
    with KEPT.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def page(rows: list[Row]) -> Iterator[str]:
    """Counts, the table of each library, and the sentences of the refusals."""
    names = {row["network"] for row in rows}
    yield "# Every measure on networks of other libraries\n"
    yield (
        "Written by [foreign_networks.py](foreign_networks.py). Every network is small, is built from a configuration "
        "and has three classes; values are compared with double backward and loops of plain PyTorch in float64, to "
        "1e-5 of their scale (1e-3 where the network computes in float32). ✓ right, – refused with the true reason, ✗ "
        "wrong: another value, another error, or something of the caller's was changed.\n"
    )
    yield f"{len(names)} networks, {len(MEASURES)} measures: {_counted(rows)}.\n"
    for library, mine in groupby(sorted(rows, key=_library), _library):
        yield from _table(library, list(mine))
    yield from _refusals(rows)


def _library(row: Row) -> str:
    return row["library"]


def _counted(rows: Iterable[Row]) -> str:
    counts = Counter(_verdict(row) for row in rows)
    return ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in SIGNS)


def _verdict(row: Row) -> str:
    return row["verdict"] if row["untouched"] == "yes" else "wrong"


def _table(library: str, rows: list[Row]) -> Iterator[str]:
    yield f"## {library}\n\n{_counted(rows)}.\n"
    yield f"| network | {' | '.join(MEASURES)} |\n|---|{'---|' * len(MEASURES)}"
    by_network: dict[str, dict[str, str]] = {}
    for row in rows:
        by_network.setdefault(row["network"], {})[row["measure"]] = SIGNS[_verdict(row)]
    for network, signs in by_network.items():
        yield f"| {network} | {' | '.join(signs.get(measure, '') for measure in MEASURES)} |"
    yield ""


def _refusals(rows: list[Row]) -> Iterator[str]:
    yield "## Refusals\n"
    for row in {row["network"]: row for row in reversed(rows) if _verdict(row) == "refused"}.values():
        yield f"- **{row['network']}**: {row['words'].removeprefix('ValueError: ')}"
    for row in rows:
        if _verdict(row) == "wrong":
            yield f"- ✗ **{row['network']}**, {row['measure']}: {row['words']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=["tests.support.foreign.catalogue"])
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    rows = [row for row in kept() if row["module"] not in asked.modules]
    with ProcessPoolExecutor(asked.processes, mp_context=get_context("spawn")) as pool:
        for module in asked.modules:
            waiting = [pool.submit(measured, module, index) for index in range(len(networks(module)))]
            for each in waiting:
                rows += each.result()
                keep(rows)  # what is measured is kept, should a later network not end
                print(rows[-1]["network"], _counted(row for row in rows if row["network"] == rows[-1]["network"]))
    SHOWN.write_text("\n".join(page(rows)) + "\n", encoding="utf-8")
    print(_counted(rows))


if __name__ == "__main__":
    main()

"""The learning rates that `lottery_ticket` gives its tuned arms, by a grid on pilot seeds: a table of README.md.

The dense network, the ticket of 13.5 % and its controls at five rates, as the laptop preset trains them, on two seeds
that are not the study's: about 1,500 core-seconds. The rate with the highest mean validation accuracy after the last
step is taken, of equal ones the lower; no test example counts. Says so if a rate is not the one frozen in the study.

    python docs/results/ticket_rates.py STORE
"""

import sys
from pathlib import Path
from statistics import mean

from paper_table import show

import overparam as op
from overparam.runs.execution import Execution
from overparam.runs.run import read
from overparam.studies.lottery_ticket.designs import LAPTOP_STEPS, LENET_TUNED, lenet
from overparam.studies.lottery_ticket.rates import GRID, RATES, grid
from overparam.studies.study import Design, Study

PILOTS = (100, 101)
DESIGN = Design(
    seeds=PILOTS,
    arms=grid(lenet(LAPTOP_STEPS), LENET_TUNED),
    claims=(),
    caption="Pilot runs on MNIST; validation accuracy decides.",
    evaluations=1,
)
PILOT = Study(
    name="ticket_rates",
    title="Learning rates of tickets and controls",
    question="At which learning rate does each arm do best on validation examples?",
    background="A grid on seeds that no study uses.",
    factor="learning rate",
    designs={"laptop": DESIGN},
)


def main(store: Path) -> None:
    op.run(PILOT, preset="laptop", store=store)
    found: dict[str, dict[float, list[float]]] = {}
    kinds = dict(zip((arm.name for arm in DESIGN.arms), RATES, strict=True))
    for cell in DESIGN.cells():
        run = read(cell.spec, Execution(store=store))
        if run.status != "ok":
            raise SystemExit(f"{kinds[cell.arm]} at {cell.level}, seed {cell.seed}, is {run.status}")
        found.setdefault(kinds[cell.arm], {}).setdefault(float(cell.level), []).append(100 * run.val_accuracy)
    rows = []
    for kind, by_rate in found.items():
        best = max(by_rate, key=lambda rate: mean(by_rate[rate]))
        shown = (f"{mean(values):.2f} ({', '.join(f'{v:.2f}' for v in values)})" for values in by_rate.values())
        rows.append([kind, *shown, f"{best:g}" if best == RATES[kind] else f"{best:g}, but frozen is {RATES[kind]:g}"])
    show(["validation, %", *(f"{rate:g}" for rate in GRID), "taken"], rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

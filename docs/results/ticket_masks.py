"""What tickets of different seeds share, where their weights are left, and which units die: tables of README.md.

python docs/results/ticket_masks.py STORE      a store in which `overparam run lottery_ticket --preset laptop` has run
"""

import sys
from itertools import combinations
from pathlib import Path

from paper_table import show

from overparam.analyse.intervals import t_interval
from overparam.execution import Execution
from overparam.measure.tickets import dead_units, density_profile, mask_overlap
from overparam.runs import read
from overparam.studies.lottery_ticket.designs import DESIGNS
from overparam.training.state import Tensors

LEVELS = (51.3, 21.1, 13.5, 7.0, 3.6, 1.9, 1.2)


def main(store: Path) -> None:
    execution = Execution(store=store)
    masks: dict[float, list[Tensors]] = {}
    for cell in DESIGNS["laptop"].cells():
        if cell.arm == "lenet_ticket" and cell.level in LEVELS:
            masks.setdefault(float(cell.level), []).append(read(cell.spec, execution).state("final").mask)
    rows = []
    for level, found in masks.items():
        pairs = [mask_overlap(a, b) for a, b in combinations(found, 2)]
        profiles = [density_profile(mask) for mask in found]
        dead = [dead_units(mask)["1.weight"] for mask in found]
        layers = [f"{100 * sum(p[name] for p in profiles) / len(profiles):.1f}" for name in sorted(profiles[0])]
        excess = t_interval([pair.excess for pair in pairs]).estimate
        z = [pair.z for pair in pairs]
        unread = sum(each.inputs for each in dead) / len(dead)
        rows.append([f"{level:g}", *layers, f"{excess:.2f}", f"{min(z):.0f} … {max(z):.0f}", f"{unread:.0f}"])
    show(["%", "first, %", "second, %", "last, %", "shared / chance", "z of pairs", "pixels unread"], rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

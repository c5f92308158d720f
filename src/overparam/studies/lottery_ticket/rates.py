"""Each kind of run at a learning rate of its own, found on pilot seeds and frozen before the runs."""

from collections.abc import Iterator, Mapping

from overparam.specs import RunSpec
from overparam.studies.lottery_ticket.arms import CONTROLS, DENSE, TICKET, TITLES, TUNED, Ladder, arm_name
from overparam.studies.study import Arm, Level

GRID = (3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3)
# Highest mean validation accuracy of two pilot seeds, LeNet-300-100 at 13.5 %, 6,000 steps:
# `docs/results/ticket_rates.py`.
RATES = {
    DENSE: 6e-4,
    TICKET: 6e-4,
    "reinit": 2.4e-3,
    "signs": 6e-4,
    "shuffled": 2.4e-3,
    "ratios": 2.4e-3,
    "random": 2.4e-3,
    "one_shot": 1.2e-3,
}


def at_rate(spec: RunSpec, rate: float) -> RunSpec:
    """The same run at another rate; the runs behind it, and with them its mask, stay as they are."""
    optimizer = spec.train.optimizer.model_copy(update={"lr": rate})
    return spec.model_copy(update={"train": spec.train.model_copy(update={"optimizer": optimizer})})


def kinds(ladder: Ladder, number: int) -> dict[str, RunSpec]:
    """The dense run, the ticket of a round and its controls."""
    return {DENSE: ladder.chain[0], **{kind: ladder.control(kind, number) for kind in (TICKET, *CONTROLS)}}


def grid(ladder: Ladder, number: int) -> tuple[Arm, ...]:
    """Every kind of run at every rate of the grid: what pilot seeds run."""
    return tuple(
        Arm(
            name=arm_name(ladder.name, kind),
            title=kind,
            note="Levels are learning rates.",
            levels=tuple(Level(value=rate, spec=at_rate(spec, rate)) for rate in GRID),
        )
        for kind, spec in kinds(ladder, number).items()
    )


def tuned(ladder: Ladder, number: int, rates: Mapping[str, float]) -> Iterator[Arm]:
    """The ticket of a round, the dense run beside it, and its controls, each at its own rate."""
    specs = {kind: at_rate(spec, rates[kind]) for kind, spec in kinds(ladder, number).items()}
    dense = Level(value=ladder.density(0), spec=specs.pop(DENSE))
    for kind, spec in specs.items():
        at = Level(value=ladder.density(number), spec=spec)
        beside = f", of the dense network {rates[DENSE]:g}" if kind == TICKET else ""
        yield Arm(
            name=arm_name(ladder.name, f"{kind}_{TUNED}"),
            title=f"{ladder.title}: {TITLES[kind]}, at a rate tuned for it",
            note=f"Learning rate {rates[kind]:g}{beside}; masks come from runs at the common rate.",
            levels=(dense, at) if kind == TICKET else (at,),
            group=f"{ladder.title}, each at its own learning rate",
        )

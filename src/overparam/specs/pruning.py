"""Pruning as specs: rounds of a lottery ticket, pruning at once to the same counts, and the controls of a ticket."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from overparam.specs.pruning_rates import pruned_count, rates_by_name
from overparam.specs.run import Dense, Fresh, Magnitude, RandomMask, Rewind, RunSpec, SameSigns, ShuffledMask

Rates = float | Mapping[str, float]


def iterative_pruning(
    dense: RunSpec, rates: Sequence[Rates], *, scope: Literal["global", "layer"] = "global", step: int = 0
) -> tuple[RunSpec, ...]:
    """The dense run and a ticket per round: prune by magnitude, rewind to `step`, train again (Frankle & Carbin 2019).

    `rates` has the share of the remaining weights that each round prunes; with `scope="layer"` it may be a table.

    >>> from overparam.specs import MLP, SGD, DataSpec, TrainSpec
    >>> train = TrainSpec(optimizer=SGD(lr=0.1), batch_size=32, epochs=1)
    >>> dense = RunSpec(data=DataSpec(name="digits"), model=MLP(width=16), train=train)
    >>> [spec.mask.kind for spec in iterative_pruning(dense, [0.2, 0.2])]
    ['dense', 'magnitude', 'magnitude']
    """
    chain = [dense]
    for rate in rates:
        mask = Magnitude.model_validate({"of": chain[-1], "fraction": rate, "scope": scope})
        chain.append(dense.model_copy(update={"init": Rewind(of=dense, step=step), "mask": mask}))
    return tuple(chain)


def shares_pruned(counts: Sequence[int]) -> tuple[float, ...]:
    """Shares of the remaining weights that lead from each count to the next, exact after rounding.

    >>> [round(share * left) for share, left in zip(shares_pruned([1000, 700, 301]), [1000, 700])]
    [300, 399]
    """
    return tuple((before - after) / before for before, after in pairwise(counts))


def weights_left(spec: RunSpec, sizes: Mapping[str, int]) -> int | dict[str, int]:
    """How many weights a chain of magnitude pruning leaves: of each layer, or in all if a round was over all layers.

    `sizes` has the number of weights of each layer, in the order of the network.

    Raises:
        ValueError: a mask on the way is not by magnitude, or spares layers, or rounds by layer follow one over all.
    """
    match spec.mask:
        case Dense():
            return dict(sizes)
        case Magnitude(of=of, fraction=fraction, scope=scope, spare=()):
            before = weights_left(of, sizes)
            if scope == "layer" and not isinstance(before, int):
                rates = rates_by_name(list(sizes), fraction)
                return {name: left - pruned_count(rates[name], left) for name, left in before.items()}
            if scope == "global" and isinstance(fraction, float):
                return total(before) - pruned_count(fraction, total(before))
    raise ValueError(f"counts are known for magnitude pruning, by layer or over all; got {spec.mask.kind} after others")


def total(left: int | Mapping[str, int]) -> int:
    """All weights that are left."""
    return left if isinstance(left, int) else sum(left.values())


def one_shot(ticket: RunSpec, sizes: Mapping[str, int]) -> RunSpec:
    """A ticket's dense run pruned once to exactly as many weights, in all or of each layer, and started alike."""
    left, dense = weights_left(ticket, sizes), ticket
    while isinstance(dense.mask, Magnitude):
        dense = dense.mask.of
    if isinstance(left, int):
        mask = Magnitude(of=dense, fraction=(total(sizes) - left) / total(sizes))
    else:
        shares = {name: (size - left[name]) / size for name, size in sizes.items()}
        mask = Magnitude(of=dense, fraction=shares, scope="layer")
    return ticket.model_copy(update={"mask": mask})


def controls(ticket: RunSpec, sizes: Mapping[str, int]) -> dict[str, RunSpec]:
    """What a ticket is compared with, by name, each with exactly as many weights.

    `reinit`: the ticket's mask under a fresh initialization. `signs`: that initialization with the ticket's signs.
    `shuffled`: the ticket's mask permuted within layers, its weights. `ratios`: a random mask whose layers are as dense
    as the Erdős–Rényi rule says. `random`: a random mask over all layers alike. `one_shot`: pruned at once.

    Raises:
        ValueError: the run is not a ticket: it is not pruned by magnitude, or not rewound to weights of the dense run.
    """
    start, mask = ticket.init, ticket.mask
    if not isinstance(start, Rewind) or start.weights != "step" or not isinstance(mask, Magnitude):
        raise ValueError(f"controls are of a run pruned by magnitude and rewound; got {start.kind}, {mask.kind}")
    fraction = 1 - total(weights_left(ticket, sizes)) / total(sizes)
    changes: dict[str, dict[str, object]] = {
        "reinit": {"init": Fresh(stream="reinit")},
        "signs": {"init": SameSigns(of=start.of, step=start.step)},
        "shuffled": {"mask": ShuffledMask(of=ticket)},
        "ratios": {"mask": RandomMask(fraction=fraction, scope="erdos_renyi")},
        "random": {"mask": RandomMask(fraction=fraction, scope="global")},
    }
    found = {name: ticket.model_copy(update=change) for name, change in changes.items()}
    return found | {"one_shot": one_shot(ticket, sizes)}

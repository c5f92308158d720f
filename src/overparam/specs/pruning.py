"""Pruning as specs: rounds of a lottery ticket, pruning at once to the same counts, and the controls of a ticket."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from overparam.specs.run import Fresh, Magnitude, RandomMask, Rewind, RunSpec, SameSigns, ShuffledMask

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


def one_shot(dense: RunSpec, kept: int | Mapping[str, int], sizes: Mapping[str, int], *, step: int = 0) -> RunSpec:
    """Pruned once, from the dense run, to exactly `kept` weights in all or of each layer; `sizes` has all there are."""
    if isinstance(kept, int):
        total = sum(sizes.values())
        mask = Magnitude(of=dense, fraction=(total - kept) / total)
    else:
        mask = Magnitude(
            of=dense, fraction={name: (size - kept[name]) / size for name, size in sizes.items()}, scope="layer"
        )
    return dense.model_copy(update={"init": Rewind(of=dense, step=step), "mask": mask})


def controls(ticket: RunSpec, kept: int, sizes: Mapping[str, int]) -> dict[str, RunSpec]:
    """What a ticket is compared with, by name; `kept` of the weights in `sizes` are left in each of them.

    `reinit`: the ticket's mask under a fresh initialization. `signs`: that initialization with the ticket's signs.
    `shuffled`: the ticket's mask permuted within layers, its weights. `ratios`: a random mask whose layers are as dense
    as the Erdős–Rényi rule says. `random`: a random mask over all layers alike.

    Raises:
        ValueError: the run is not a ticket: it has no mask, or is not rewound.
    """
    if not isinstance(ticket.init, Rewind) or not isinstance(ticket.mask, Magnitude):
        raise ValueError(f"controls are of a rewound run with a mask; got init {ticket.init.kind}, {ticket.mask.kind}")
    fraction = 1 - kept / sum(sizes.values())
    changes: dict[str, dict[str, object]] = {
        "reinit": {"init": Fresh(stream="reinit")},
        "signs": {"init": SameSigns(of=ticket.init.of, step=ticket.init.step)},
        "shuffled": {"mask": ShuffledMask(of=ticket)},
        "ratios": {"mask": RandomMask(fraction=fraction, scope="erdos_renyi")},
        "random": {"mask": RandomMask(fraction=fraction, scope="global")},
    }
    return {name: ticket.model_copy(update=change) for name, change in changes.items()}

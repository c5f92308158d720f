"""Arms by density: a ticket and its controls, each level with exactly the same number of weights left."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from overparam.specs import RunSpec
from overparam.specs.models.model import weight_shapes
from overparam.specs.pruning import Rates, controls, iterative_pruning, shares_pruned, total, weights_left
from overparam.studies.study import Arm, Level

TICKET, ONE_SHOT = "ticket", "one_shot"
CONTROLS = ("reinit", "signs", "shuffled", "ratios", "random", ONE_SHOT)
TITLES = {
    TICKET: "iterative ticket",
    "reinit": "its mask, fresh weights",
    "signs": "its mask and signs, fresh weights",
    "shuffled": "its mask shuffled within layers",
    "ratios": "random mask, Erdős–Rényi ratios",
    "random": "random mask, all layers alike",
    ONE_SHOT: "pruned at once",
}
DENSE, FRESH, TUNED = "dense", "fresh", "tuned"


@dataclass(frozen=True)
class Ladder:
    """A dense run, its tickets by round, and the numbers of weights of its layers."""

    name: str
    title: str
    chain: tuple[RunSpec, ...]
    sizes: Mapping[str, int]

    def density(self, number: int) -> float:
        """Remaining weights in percent after a round."""
        return round(100 * total(weights_left(self.chain[number], self.sizes)) / total(self.sizes), 1)

    def control(self, kind: str, number: int) -> RunSpec:
        """A control of the ticket of a round."""
        if kind == TICKET or (kind == ONE_SHOT and number == 1):  # the first round is pruned at once
            return self.chain[number]
        return controls(self.chain[number], self.sizes)[kind]

    def arm(self, kind: str, numbers: Sequence[int], num_seeds: int | None = None) -> Arm:
        """One kind of run at the densities of these rounds."""
        levels = (Level(value=self.density(number), spec=self.control(kind, number)) for number in numbers)
        title = f"{self.title}: {TITLES[kind]}"
        note = "Levels are the remaining weights in percent."
        return Arm(
            name=arm_name(self.name, kind),
            title=title,
            note=note,
            levels=tuple(levels),
            num_seeds=num_seeds,
            group=self.title,
        )

    def arms(self, numbers: Sequence[int], kinds: Collection[str], num_seeds: int | None = None) -> Iterator[Arm]:
        """The ticket with the dense run and every round, and the controls at some of them."""
        yield self.arm(TICKET, range(len(self.chain)), num_seeds)
        for kind in kinds:
            yield self.arm(kind, numbers, num_seeds)

    def transferred(self, number: int, fresh_seed: int) -> Iterator[Arm]:
        """The dense network, the ticket and two controls of a round, all trained on another sample of the data."""
        dense = self.chain[0]
        data = dense.data.model_copy(update={"data_seed": fresh_seed})
        kinds = {TICKET: (0, number), "reinit": (number,), "random": (number,)}
        for kind, numbers in kinds.items():
            chosen = {self.density(at): (self.control(kind, at) if at else dense) for at in numbers}
            specs = {at: spec.model_copy(update={"data": data}) for at, spec in chosen.items()}
            yield Arm(
                name=arm_name(self.name, f"{kind}_{FRESH}"),
                title=f"{self.title}: {TITLES[kind]}, fresh sample",
                note="Masks come from one sample, training and test examples from another.",
                levels=tuple(Level(value=at, spec=spec) for at, spec in specs.items()),
                group=self.title,
            )


def arm_name(ladder: str, kind: str) -> str:
    return f"{ladder}_{kind}"


def sizes_of(spec: RunSpec, input_shape: tuple[int, ...], num_classes: int = 10) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in weight_shapes(spec.model, input_shape, num_classes).items()}


def by_layer(name: str, title: str, dense: RunSpec, sizes: Mapping[str, int], rates: Rates, rounds: int) -> Ladder:
    """The same rates in every round, layer by layer."""
    chain = iterative_pruning(dense, [rates] * rounds, scope="layer")
    return Ladder(name, title, chain, sizes)


def by_density(
    name: str, title: str, dense: RunSpec, sizes: Mapping[str, int], percents: Sequence[float], step: int = 0
) -> Ladder:
    """Rounds that leave given shares of all weights, whatever the layer."""
    counts = [round(total(sizes) * percent / 100) for percent in percents]
    chain = iterative_pruning(dense, shares_pruned(counts), step=step)
    return Ladder(name, title, chain, sizes)

"""What a study is: a question, arms of runs, claims fixed before the runs, and a budget, per preset."""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, PositiveFloat, model_validator

from overparam.identity import Spec
from overparam.specs.probe import Measured, Probing
from overparam.specs.run import RunSpec

Preset = Literal["smoke", "laptop", "overnight", "paper"]
Metric = str
RUN_METRICS: tuple[Metric, ...] = ("test_accuracy", "train_accuracy", "test_loss", "train_loss", "gap")


class Point(Spec):
    """One cell of a study: an arm at one level of the swept factor."""

    arm: str
    level: float | str


class Difference(Spec):
    """Mean over seeds of `metric(a) − metric(b)`, paired by seed; with `scale="log"` of `ln(metric(a)/metric(b))`."""

    kind: Literal["difference"] = "difference"
    metric: Metric
    a: Point
    b: Point
    scale: Literal["linear", "log"] = "linear"


class Slope(Spec):
    """Slope of `metric` per doubling of the level, fitted per seed, averaged over seeds.

    Levels that are not numbers ("full", an optimizer's name) do not enter.
    """

    kind: Literal["slope"] = "slope"
    metric: Metric
    arm: str


class Every(Spec):
    """Several differences that must all hold: an intersection–union test. The part that decides is shown."""

    kind: Literal["every"] = "every"
    parts: tuple[Difference, ...] = Field(min_length=1)


class Concordance(Spec):
    """Kendall's τ-b between `metric` and `other` over the seeds of a level, averaged over the levels of an arm.

    Networks of one level were trained alike, so what moves both sides from level to level does not enter. Its values
    per seed are jackknife pseudo-values `nτ − (n − 1)τ₍₋ᵢ₎`: whole seeds are left out, so that the runs of one seed,
    which share data order and initialization, are never taken for independent.
    """

    kind: Literal["concordance"] = "concordance"
    metric: Metric
    other: Metric
    arm: str


Estimand = Annotated[Difference | Slope | Every | Concordance, Field(discriminator="kind")]


class Claim(Spec):
    """A sentence about an estimand, with direction, bounds and test fixed before the runs.

    Accuracies are fractions, so a margin of .01 is one percentage point. Superiority and non-inferiority look
    in `direction`; equivalence ignores it. `pilot_sd` is the seed-to-seed standard deviation of the paired
    estimate that power is planned with. `paper_value` is shown, never tested; whether it agrees is said only if the
    design is `comparable` with the paper's protocol.
    """

    name: str
    sentence: str
    estimand: Estimand
    test: Literal["superiority", "equivalence", "noninferiority"]
    direction: Literal["greater", "less"] = "greater"
    null: float = 0.0
    margin: PositiveFloat
    pilot_sd: PositiveFloat
    paper_value: float | None = None
    paper_note: str = ""
    comparable: bool = False
    confirmatory: bool = True


class Level(Spec):
    """One level of an arm: its position on the swept axis and the run it stands for, up to the seed.

    `expected_share` is the share of its step cap that a run to a target loss took on pilot seeds; plans use it.
    """

    level: float | str
    spec: RunSpec
    expected_share: float = Field(default=1.0, gt=0.0, le=1.0)


class Arm(Spec):
    """Runs that differ in the swept factor and in what the note says must differ with it."""

    name: str
    title: str
    note: str
    levels: tuple[Level, ...]


class Cell(NamedTuple):
    """A run in its place: which arm, which level, which seed."""

    arm: str
    level: float | str
    seed: int
    spec: RunSpec


class Design(Spec):
    """A study at one preset."""

    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    budget_core_seconds: PositiveFloat | None = None
    caption: str
    probings: tuple[Probing, ...] = ()

    @model_validator(mode="after")
    def _claims_point_at_cells(self) -> "Design":
        cells = {(arm.name, level.level) for arm in self.arms for level in arm.levels}
        arms = {arm.name for arm in self.arms}
        known = {*RUN_METRICS, *(name for each in self.probings for name in each.probe.columns)}
        for claim in self.claims:
            points, named, metrics = _pointed_at(claim.estimand)
            missing = [f"{p}" for p in points if (p.arm, p.level) not in cells]
            missing += [f'arm "{name}"' for name in named if name not in arms]
            if missing:
                raise ValueError(f"claim {claim.name} points at {missing[0]}, which no arm has")
            if unknown := [metric for metric in metrics if metric not in known]:
                raise ValueError(f'claim {claim.name} needs "{unknown[0]}"; there are: {", ".join(sorted(known))}')
        if sum(claim.confirmatory for claim in self.claims) > 6:
            raise ValueError("at most six confirmatory claims per study")
        return self

    @model_validator(mode="after")
    def _columns_have_one_source(self) -> "Design":
        for arm in self.arms:
            for level in arm.levels:
                for seed in self.seeds:
                    probes = self.probes_of(Cell(arm.name, level.level, seed, level.spec))
                    names = [name for probe in probes for name in probe.columns]
                    if twice := [name for name in names if names.count(name) > 1]:
                        raise ValueError(f'two probes of {arm.name}, level {level.level}, give "{twice[0]}"')
        return self

    def cells(self) -> Iterator[Cell]:
        """Every run of the design; arms may share runs."""
        for arm in self.arms:
            for level in arm.levels:
                for seed in self.seeds:
                    spec = level.spec.model_copy(update={"seed": seed})
                    yield Cell(arm.name, level.level, seed, spec)

    def probes_of(self, cell: Cell) -> tuple[Measured, ...]:
        """The probes that are taken of one cell."""
        return tuple(
            each.probe
            for each in self.probings
            if (each.arms is None or cell.arm in each.arms)
            and (each.levels is None or cell.level in each.levels)
            and (each.num_seeds is None or cell.seed in self.seeds[: each.num_seeds])
        )


def _pointed_at(estimand: Estimand) -> tuple[list[Point], list[str], list[Metric]]:
    """Cells, whole arms and metrics that an estimand needs."""
    match estimand:
        case Difference(metric=metric, a=a, b=b):
            return [a, b], [], [metric]
        case Slope(metric=metric, arm=arm):
            return [], [arm], [metric]
        case Concordance(metric=metric, other=other, arm=arm):
            return [], [arm], [metric, other]
        case Every(parts=parts):
            found = [_pointed_at(part) for part in parts]
            return [p for points, _, _ in found for p in points], [], [m for _, _, metrics in found for m in metrics]


class Study(Spec):
    """A question and how it is answered at each preset."""

    name: str
    title: str
    question: str
    background: str
    factor: str
    designs: dict[Preset, Design]

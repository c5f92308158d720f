"""What a study is: a question, arms of runs, claims fixed before the runs, and a budget, per preset."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    WrapSerializer,
    WrapValidator,
    model_validator,
)

from overparam.claims.claim import Claim
from overparam.claims.estimand import Metric, Slope, level_text
from overparam.foundations.words import nearest
from overparam.identity import Spec
from overparam.probes import AnyProbe
from overparam.probes.probe import Probe
from overparam.specs.run import RunSpec

Preset = Literal["smoke", "laptop", "overnight", "paper"]
RUN_METRICS: tuple[Metric, ...] = ("test_accuracy", "train_accuracy", "test_loss", "train_loss", "gap")


class Level(Spec):
    """One level of an arm: the value of the swept factor, or a name, and the run it stands for, up to the seed.

    `expected_share` is the share of its step cap that a run to a target loss took on pilot seeds; plans use it.
    """

    value: float | str
    spec: RunSpec
    expected_share: float = Field(default=1.0, gt=0.0, le=1.0)

    @model_validator(mode="before")
    @classmethod
    def _under_its_former_name(cls, values: Any) -> Any:
        """`value` was called `level`; declarations from before are read as they were meant."""
        if isinstance(values, dict) and "level" in values and "value" not in values:
            return {"value" if name == "level" else name: each for name, each in values.items()}
        return values


class Arm(Spec):
    """Runs that differ in the swept factor and in what the note says must differ with it.

    With `num_seeds` only the first so many seeds of the design are run. Arms of one `group`, the same networks on the
    same data, are drawn together.
    """

    name: str
    title: str
    note: str
    levels: tuple[Level, ...]
    num_seeds: PositiveInt | None = None
    group: str = ""


class Panel(Spec):
    """A panel of the scaling figure: `metric` against the numeric levels of an arm, both axes logarithmic.

    `reference` is an exponent that is drawn beside the fitted one; it is shown, never tested.
    """

    arm: str
    metric: Metric
    title: str
    reference: float | None = None


def _repeated(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if values.count(value) > 1]


def _no_logarithm(claim: Claim, arm: str, level: float) -> str:
    instead = "name positive levels in its slope" if isinstance(claim.estimand, Slope) else "leave that level out"
    text = level_text(level)
    return f"claim {claim.name} takes logarithms of levels, but arm {arm} has the level {text}; {instead}"


def _too_few_numbers(claim: Claim, arm: str, levels: Sequence[str], least: int) -> str:
    return (
        f"claim {claim.name} needs at least {least} of the levels to be numbers, but arm {arm} has: "
        f"{', '.join(levels)}; give more levels that are numbers, or compare levels by a difference"
    )


class Cell(NamedTuple):
    """A run in its place: which arm, which level, which seed."""

    arm: str
    level: float | str
    seed: int
    spec: RunSpec


class Probing(Spec):
    """A probe and the cells of a design it is taken of: all arms, levels and seeds unless named."""

    probe: AnyProbe
    arms: tuple[str, ...] | None = None
    levels: tuple[float | str, ...] | None = None
    num_seeds: PositiveInt | None = None


class Design(Spec):
    """A study at one preset. With `data_varies` a seed also draws its own data, the same for all arms and levels:
    subset, wrong labels, generated sample. `evaluations` is about how often its runs are evaluated on all examples on
    the way, where that costs much of a run; a run that several studies share is evaluated as often as any of them asks.
    """

    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    budget_core_seconds: PositiveFloat | None = None
    caption: str
    probings: tuple[Probing, ...] = ()
    panels: tuple[Panel, ...] = ()
    data_varies: bool = False
    evaluations: PositiveInt | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is known of every run and what the probes add, each once."""
        return tuple(dict.fromkeys([*RUN_METRICS, *(name for each in self.probings for name in each.probe.columns)]))

    @model_validator(mode="after")
    def _cells_are_distinct(self) -> "Design":
        """Runs are found by the arm's name and the level's text; a seed that is given twice is one replicate."""
        if not self.seeds or _repeated(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}; allowed: at least one seed, and each once")
        if twice := _repeated([arm.name for arm in self.arms]):
            raise ValueError(f'two arms are named "{twice[0]}"; give each arm a name of its own')
        for arm in self.arms:
            if twice := _repeated([level_text(level.value) for level in arm.levels]):
                raise ValueError(f'two levels of arm {arm.name} are "{twice[0]}"; give each level once')
        return self

    @model_validator(mode="after")
    def _claims_point_at_cells(self) -> "Design":
        cells = {(arm.name, level.value) for arm in self.arms for level in arm.levels}
        arms = {arm.name for arm in self.arms}
        for claim in self.claims:
            missing = [f"{p}" for p in claim.estimand.points if (p.arm, p.level) not in cells]
            missing += [f'arm "{name}"' for name in claim.estimand.arms if name not in arms]
            if missing:
                raise ValueError(f"claim {claim.name} points at {missing[0]}, which no arm has")
            self._refuse_unknown(f"claim {claim.name}", claim.estimand.metrics)
        if sum(claim.confirmatory for claim in self.claims) > 6:
            raise ValueError("at most six confirmatory claims per study")
        return self

    @model_validator(mode="after")
    def _logarithms_have_positive_levels(self) -> "Design":
        levels = {arm.name: [each.value for each in arm.levels] for arm in self.arms}
        for claim in self.claims:
            for arm in claim.estimand.arms if claim.estimand.logarithmic_levels else ():
                if refused := [x for x in levels[arm] if not isinstance(x, str) and x <= 0]:
                    raise ValueError(_no_logarithm(claim, arm, refused[0]))
        return self

    @model_validator(mode="after")
    def _arms_have_enough_numbers(self) -> "Design":
        """Levels that are names have no order, so that nothing could ever be said along them."""
        arms = {arm.name: arm.levels for arm in self.arms}
        for claim in self.claims:
            least = claim.estimand.least_levels
            for name in claim.estimand.arms:
                if sum(not isinstance(each.value, str) for each in arms[name]) < least:
                    raise ValueError(_too_few_numbers(claim, name, [level_text(x.value) for x in arms[name]], least))
        return self

    @model_validator(mode="after")
    def _panels_point_at_arms(self) -> "Design":
        for panel in self.panels:
            if panel.arm not in {arm.name for arm in self.arms}:
                raise ValueError(f'panel "{panel.title}" points at arm "{panel.arm}", which is not there')
            self._refuse_unknown(f'panel "{panel.title}"', [panel.metric])
        places = [(panel.arm, panel.metric) for panel in self.panels]
        if twice := _repeated(places):
            raise ValueError(f"two panels show {twice[0][1]} of arm {twice[0][0]}")
        return self

    def _refuse_unknown(self, what: str, metrics: Sequence[Metric]) -> None:
        if unknown := [metric for metric in metrics if metric not in self.metrics]:
            raise ValueError(f'{what} needs "{unknown[0]}"; there are: {", ".join(sorted(self.metrics))}')

    @model_validator(mode="after")
    def _columns_have_one_source(self) -> "Design":
        for arm in self.arms:
            for level in arm.levels:
                for seed in self.seeds[:1]:  # which has every probe that a later seed has
                    probes = self.probes_of(Cell(arm.name, level.value, seed, level.spec))
                    names = [name for probe in probes for name in probe.columns]
                    if twice := _repeated(names):
                        raise ValueError(f'two probes of {arm.name}, level {level.value}, give "{twice[0]}"')
        return self

    def cells(self) -> Iterator[Cell]:
        """Every run of the design; arms may share runs."""
        done: dict[int, dict[RunSpec, RunSpec]] = {seed: {} for seed in self.seeds}
        for arm in self.arms:
            for level in arm.levels:
                for seed in self.seeds[: arm.num_seeds]:
                    spec = level.spec.with_parents(self._seeded(seed), done[seed])
                    yield Cell(arm.name, level.value, seed, spec)

    def seeds_of(self, claim: Claim) -> int:
        """How many seeds every arm has that a claim points at."""
        arms = {*claim.estimand.arms, *(point.arm for point in claim.estimand.points)}
        return min(len(self.seeds[: arm.num_seeds]) for arm in self.arms if arm.name in arms)

    def _seeded(self, seed: int) -> Callable[[RunSpec], RunSpec]:
        """A run with its seed, and with its own data where a seed draws data; its data seed is added to the seed."""

        def change(spec: RunSpec) -> RunSpec:
            data_seed = spec.data.data_seed + (seed if self.data_varies else 0)
            data = spec.data.model_copy(update={"data_seed": data_seed})
            return spec.model_copy(update={"seed": seed, "data": data})

        return change

    def probes_of(self, cell: Cell) -> tuple[Probe, ...]:
        """The probes that are taken of one cell."""
        return tuple(
            each.probe
            for each in self.probings
            if (each.arms is None or cell.arm in each.arms)
            and (each.levels is None or cell.level in each.levels)
            and (each.num_seeds is None or cell.seed in self.seeds[: each.num_seeds])
        )


class Designs(Mapping[Preset, Design]):
    """Designs by preset, each made when it is first looked up: a command is about one preset of some studies.

    A copy or a pickle of it is a `dict` of all of them. Other designs beside these: `dict(designs) | {…}`.

    Raises:
        ValueError: there is no such preset.
        TypeError: at the first look, what was made is no `Design`.
    """

    def __init__(self, makers: Mapping[Preset, Callable[[], Design]]) -> None:
        known = get_args(Preset)
        if unknown := [preset for preset in makers if preset not in known]:
            raise ValueError(
                f'designs: no preset "{unknown[0]}"; allowed: {", ".join(known)}{nearest(unknown[0], known)}'
            )
        self._makers = {preset: cache(make) for preset, make in makers.items()}

    def __getitem__(self, preset: Preset) -> Design:
        made = self._makers[preset]()
        if not isinstance(made, Design):
            raise TypeError(f"designs[{preset!r}] made {made!r}; it must make a Design")
        return made

    def __contains__(self, preset: object) -> bool:
        return preset in self._makers

    def __iter__(self) -> Iterator[Preset]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __repr__(self) -> str:
        return f"Designs({', '.join(self)})"

    def __reduce__(self) -> tuple[type, tuple[dict[Preset, Design]]]:
        return dict, (dict(self),)  # a copy for another process has them all


def _checked_unless_lazy(designs: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    return designs if isinstance(designs, Designs) else validate(designs)


def _all_made(designs: Mapping[Preset, Design], serialize: SerializerFunctionWrapHandler) -> Any:
    return serialize(dict(designs))


class Study(Spec):
    """A question and how it is answered at each preset, beside a theory that the report can draw."""

    name: str
    title: str
    question: str
    background: str
    factor: str
    designs: Annotated[Mapping[Preset, Design], WrapValidator(_checked_unless_lazy), WrapSerializer(_all_made)]
    theory: Literal["least_squares"] | None = None

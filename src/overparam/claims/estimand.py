"""What claims are about: quantities with one value per seed, and several of them together."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, field_validator

from overparam.identity import Spec

Metric = str


class Point(Spec):
    """One cell of a study: an arm at one level of the swept factor."""

    arm: str
    level: float | str


class Mean(Spec):
    """Mean over seeds of `metric` in one cell. Its claim's null is what the mean is compared with."""

    kind: Literal["mean"] = "mean"
    metric: Metric
    at: Point


class Difference(Spec):
    """Mean over seeds of `metric(a) − metric(b)`, paired by seed; with `scale="log"` of `ln(metric(a)/metric(b))`.

    With `other` the side of b is that metric; `a` and `b` may then be one cell, in which two metrics are compared.
    """

    kind: Literal["difference"] = "difference"
    metric: Metric
    a: Point
    b: Point
    scale: Literal["linear", "log"] = "linear"
    other: Metric | None = None


class Slope(Spec):
    """Slope of `metric` per doubling of the level, fitted per seed, averaged over seeds.

    With `scale="log"` it is the exponent b of `metric ∝ level^b`: the least-squares slope of ln metric on ln level.
    Only `levels` enter; without them all levels do that are numbers (not "full", an optimizer's name).
    """

    kind: Literal["slope"] = "slope"
    metric: Metric
    arm: str
    scale: Literal["linear", "log"] = "linear"
    levels: tuple[PositiveFloat, ...] | None = None

    @field_validator("levels")
    @classmethod
    def _levels_give_a_slope(cls, levels: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if levels is not None and (len(levels) < 2 or len(set(levels)) < len(levels)):
            raise ValueError("the levels of a slope must be at least two, each given once")
        return levels


class Every(Spec):
    """Several differences that must all hold: an intersection–union test. The part that decides is shown."""

    kind: Literal["every"] = "every"
    parts: tuple[Difference, ...] = Field(min_length=1)

    @field_validator("parts")
    @classmethod
    def _parts_have_one_scale(cls, parts: tuple[Difference, ...]) -> tuple[Difference, ...]:
        """They share a null, a margin and the unit they are shown in."""
        if odd := [part for part in parts if part.scale != parts[0].scale]:
            raise ValueError(
                f'parts that must all hold need one scale, but that of {parts[0].metric} is "{parts[0].scale}" and '
                f'that of {odd[0].metric} is "{odd[0].scale}"; give all parts one scale, or claim them one by one'
            )
        return parts


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


class Peak(Spec):
    """A valley, a peak and a valley of `metric` along the levels of an arm, chosen on all seeds but one.

    Its values are of the seed that was left out: the rise to the peak or the fall from it, whichever has less
    evidence. Both must pass a test of their own. A peak of the error is a trough of an accuracy: `trough=True` turns it
    over. Only `levels` enter; without them all levels do that are numbers.
    """

    kind: Literal["peak"] = "peak"
    metric: Metric
    arm: str
    trough: bool = False
    levels: tuple[PositiveFloat, ...] | None = None

    @field_validator("levels")
    @classmethod
    def _levels_have_an_inside(cls, levels: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if levels is not None and (len(levels) < 3 or len(set(levels)) < len(levels)):
            raise ValueError("the levels of a peak must be at least three, each given once")
        return levels


class PeakPlace(Spec):
    """log2 of the level of each seed's most prominent peak over another level: how many doublings it lies beyond that.

    A seed without a clear peak has one all the same; whether there is any is the matter of `Peak`.

    The other level is where `other` first reaches `reaches` in that seed (between levels by `ln level`), or, without
    `other`, the level `reaches` itself.
    """

    kind: Literal["peak_place"] = "peak_place"
    metric: Metric
    arm: str
    trough: bool = False
    other: Metric | None = None
    reaches: PositiveFloat


PerSeed = Mean | Difference | Slope | Concordance | Peak | PeakPlace  # what has one value per seed
Estimand = Annotated[PerSeed | Every, Field(discriminator="kind")]


def least_levels(estimand: Estimand) -> int:
    """How many numeric levels an estimand along the levels of an arm needs; 0 for others."""
    match estimand:
        case Concordance():
            return 1
        case Slope():
            return 2
        case Peak() | PeakPlace():
            return 3
        case Mean() | Difference() | Every():
            return 0


def pointed_at(estimand: Estimand) -> tuple[list[Point], list[str], list[Metric]]:
    """Cells, whole arms and metrics that an estimand needs."""
    match estimand:
        case Mean(metric=metric, at=at):
            return [at], [], [metric]
        case Difference(metric=metric, a=a, b=b, other=other):
            return [a, b], [], [metric] if other is None else [metric, other]
        case Slope(metric=metric, arm=arm, levels=levels) | Peak(metric=metric, arm=arm, levels=levels):
            return [Point(arm=arm, level=level) for level in levels or ()], [arm], [metric]
        case Concordance(metric=metric, other=other, arm=arm) | PeakPlace(metric=metric, other=other, arm=arm):
            return [], [arm], [metric] if other is None else [metric, other]
        case Every(parts=parts):
            found = [pointed_at(part) for part in parts]
            return [p for points, _, _ in found for p in points], [], [m for _, _, metrics in found for m in metrics]


def level_text(level: float | str) -> str:
    """How a level is written everywhere: a number with six digits, or with as many as it needs.

    >>> level_text(32.0), level_text(1234567.0), level_text("full lr 0.1")
    ('32', '1234567', 'full lr 0.1')
    """
    if isinstance(level, str):
        return level
    short = format(level, "g")
    return short if float(short) == level else repr(level).removesuffix(".0")

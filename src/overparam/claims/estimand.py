"""What claims are about: quantities with one value per seed, and several of them together.

An estimand says here which cells and metrics it needs, and its value in each seed. A new one is a class and a member
of the union at the end. One exception: a peak is chosen and tested on seeds that are held out, by `claims.sample`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, field_validator

from overparam.identity import Spec

if TYPE_CHECKING:
    from overparam.claims.intervals import Values

    Sides = Sequence[Sequence[Values]]  # for each cell the values of its metrics, in the order of seeds

Metric = str


class Point(Spec):
    """One cell of a study: an arm at one level of the swept factor."""

    arm: str
    level: float | str


def level_text(level: float | str) -> str:
    """How a level is written everywhere: a number with six digits, or with as many as it needs.

    >>> level_text(32.0), level_text(1234567.0), level_text("full lr 0.1")
    ('32', '1234567', 'full lr 0.1')
    """
    if isinstance(level, str):
        return level
    short = format(level, "g")
    return short if float(short) == level else repr(level).removesuffix(".0")


class Estimand(Spec):
    """What all estimands say of themselves. `least_levels` is how many numeric levels one needs along its arm."""

    least_levels: ClassVar[int] = 0
    kind: str

    @property
    def points(self) -> list[Point]:
        """Cells that it names."""
        return []

    @property
    def arms(self) -> list[str]:
        """Arms that it is along."""
        return []

    @property
    def metrics(self) -> list[Metric]:
        """Metrics that it needs."""
        raise NotImplementedError

    @property
    def logarithmic_levels(self) -> bool:
        """Whether it takes logarithms of all numeric levels of its arm, which must then be positive."""
        return False


class PerSeedEstimand(Estimand):
    """An estimand with one value per seed, from the metrics of its cells."""

    metric: Metric

    @property
    def metrics(self) -> list[Metric]:
        return [self.metric]

    @property
    def logarithmic(self) -> bool:
        """Whether logarithms of its metrics are taken, which must then be positive."""
        return False

    def read_from(self, num_cells: int) -> list[tuple[Metric, ...]]:
        """The metrics that are read from each cell."""
        return [tuple(self.metrics)] * num_cells

    def groups(self, sides: "Sides") -> "tuple[Values, ...]":
        """The two sides of a difference; empty for others."""
        return ()

    def values(self, sides: "Sides", levels: Sequence[float]) -> "Values":
        """One value per seed; NaN where a seed has none although all its numbers are there."""
        raise NotImplementedError


class Mean(PerSeedEstimand):
    """Mean over seeds of `metric` in one cell. Its claim's null is what the mean is compared with."""

    kind: Literal["mean"] = "mean"
    at: Point

    @property
    def points(self) -> list[Point]:
        return [self.at]

    def values(self, sides: "Sides", levels: Sequence[float]) -> "Values":
        return sides[0][0]


class Difference(PerSeedEstimand):
    """Mean over seeds of `metric(a) − metric(b)`, paired by seed; with `scale="log"` of `ln(metric(a)/metric(b))`.

    With `other` the side of b is that metric; `a` and `b` may then be one cell, in which two metrics are compared.
    """

    kind: Literal["difference"] = "difference"
    a: Point
    b: Point
    scale: Literal["linear", "log"] = "linear"
    other: Metric | None = None

    @property
    def points(self) -> list[Point]:
        return [self.a, self.b]

    @property
    def metrics(self) -> list[Metric]:
        return [self.metric] if self.other is None else [self.metric, self.other]

    @property
    def logarithmic(self) -> bool:
        return self.scale == "log"

    def read_from(self, num_cells: int) -> list[tuple[Metric, ...]]:
        right = self.metric if self.other is None else self.other
        return [(self.metric, right)] if num_cells == 1 else [(self.metric,), (right,)]

    def groups(self, sides: "Sides") -> "tuple[Values, ...]":
        import numpy as np

        both = [column for side in sides for column in side]  # from two cells, or two metrics of one
        return tuple(np.log(column) for column in both) if self.scale == "log" else tuple(both)

    def values(self, sides: "Sides", levels: Sequence[float]) -> "Values":
        left, right = self.groups(sides)
        return left - right


class Slope(PerSeedEstimand):
    """Slope of `metric` per doubling of the level, fitted per seed, averaged over seeds.

    With `scale="log"` it is the exponent b of `metric ∝ level^b`: the least-squares slope of ln metric on ln level.
    Only `levels` enter; without them all levels do that are numbers (not "full", an optimizer's name).
    """

    least_levels: ClassVar[int] = 2
    kind: Literal["slope"] = "slope"
    arm: str
    scale: Literal["linear", "log"] = "linear"
    levels: tuple[PositiveFloat, ...] | None = None

    @field_validator("levels")
    @classmethod
    def _levels_give_a_slope(cls, levels: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if levels is not None and (len(levels) < 2 or len(set(levels)) < len(levels)):
            raise ValueError("the levels of a slope must be at least two, each given once")
        return levels

    @property
    def points(self) -> list[Point]:
        return [Point(arm=self.arm, level=level) for level in sorted(self.levels or ())]

    @property
    def arms(self) -> list[str]:
        return [self.arm]

    @property
    def logarithmic_levels(self) -> bool:
        return self.levels is None

    @property
    def logarithmic(self) -> bool:
        return self.scale == "log"

    def values(self, sides: "Sides", levels: Sequence[float]) -> "Values":
        import numpy as np

        from overparam.claims.comparisons import exponents, slopes_per_doubling

        if len(sides) < 2 or len(sides[0][0]) == 0:
            return np.empty(0)
        fit = exponents if self.scale == "log" else slopes_per_doubling
        return fit(np.array(levels), np.stack([side[0] for side in sides], axis=1))


class Concordance(PerSeedEstimand):
    """Kendall's τ-b between `metric` and `other` over the seeds of a level, averaged over the levels of an arm.

    Networks of one level were trained alike, so what moves both sides from level to level does not enter. Its values
    per seed are jackknife pseudo-values `nτ − (n − 1)τ₍₋ᵢ₎`: whole seeds are left out, so that the runs of one seed,
    which share data order and initialization, are never taken for independent.
    """

    least_levels: ClassVar[int] = 1
    kind: Literal["concordance"] = "concordance"
    other: Metric
    arm: str

    @property
    def arms(self) -> list[str]:
        return [self.arm]

    @property
    def metrics(self) -> list[Metric]:
        return [self.metric, self.other]

    def values(self, sides: "Sides", levels: Sequence[float]) -> "Values":
        from overparam.claims.kendall import within_levels

        return within_levels([side[0] for side in sides], [side[1] for side in sides])


class Peak(PerSeedEstimand):
    """A valley, a peak and a valley of `metric` along the levels of an arm, chosen on all seeds but one.

    Its values are of the seed that was left out: the rise to the peak or the fall from it, whichever has less
    evidence. Both must pass a test of their own. A peak of the error is a trough of an accuracy: `trough=True` turns it
    over. Only `levels` enter; without them all levels do that are numbers.
    """

    least_levels: ClassVar[int] = 3
    kind: Literal["peak"] = "peak"
    arm: str
    trough: bool = False
    levels: tuple[PositiveFloat, ...] | None = None

    @field_validator("levels")
    @classmethod
    def _levels_have_an_inside(cls, levels: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if levels is not None and (len(levels) < 3 or len(set(levels)) < len(levels)):
            raise ValueError("the levels of a peak must be at least three, each given once")
        return levels

    @property
    def points(self) -> list[Point]:
        return [Point(arm=self.arm, level=level) for level in sorted(self.levels or ())]

    @property
    def arms(self) -> list[str]:
        return [self.arm]

    def values(self, sides: "Sides", levels: Sequence[float]) -> "Values":
        """None: they are of the seeds that are held out, with a test of their own (`claims.peak.held_out`)."""
        import numpy as np

        return np.empty(0)


class PeakPlace(PerSeedEstimand):
    """log2 of the level of each seed's most prominent peak over another level: how many doublings it lies beyond that.

    A seed without a clear peak has one all the same; whether there is any is the matter of `Peak`.

    The other level is where `other` first reaches `reaches` in that seed (between levels by `ln level`), or, without
    `other`, the level `reaches` itself.
    """

    least_levels: ClassVar[int] = 3
    kind: Literal["peak_place"] = "peak_place"
    arm: str
    trough: bool = False
    other: Metric | None = None
    reaches: PositiveFloat

    @property
    def arms(self) -> list[str]:
        return [self.arm]

    @property
    def metrics(self) -> list[Metric]:
        return [self.metric] if self.other is None else [self.metric, self.other]

    @property
    def logarithmic_levels(self) -> bool:
        return True

    def values(self, sides: "Sides", levels: Sequence[float]) -> "Values":
        """NaN where a seed has no level to count from."""
        import numpy as np

        from overparam.claims.peak import first_below, most_prominent

        if len(sides) < 3 or len(sides[0][0]) == 0:
            return np.empty(0)
        places = np.array(levels)
        curves = np.stack([side[0] for side in sides], axis=1) * (-1.0 if self.trough else 1.0)
        _, peak, _ = most_prominent(curves)
        if self.other is None:
            origin = np.full(len(curves), self.reaches)
        else:
            origin = first_below(places, -np.stack([side[1] for side in sides], axis=1), -self.reaches)
        found: Values = np.log2(places[peak] / origin)
        return found


class Every(Estimand):
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

    @property
    def points(self) -> list[Point]:
        return [point for part in self.parts for point in part.points]

    @property
    def metrics(self) -> list[Metric]:
        return [metric for part in self.parts for metric in part.metrics]


PerSeed = Mean | Difference | Slope | Concordance | Peak | PeakPlace  # what has one value per seed
AnyEstimand = Annotated[PerSeed | Every, Field(discriminator="kind")]

"""Probes: named measurements of a trained network, with their settings. Plain values, like runs.

A probe's id hashes its settings and its semantics; a measurement is kept with the run it was taken of. `metrics` are
the numbers it gives at each look, `columns` those that enter the table of runs, taken at the end of the run. `at` lists
the shares of the run's steps at which it is measured, the end last. All probes look at the first `num_examples`
training examples, the same for all runs on the same data.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from overparam.identity import Spec, canonical_json, digest_text

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Scale = Literal["absolute", "filter", "adaptive"]
BUILD, PRODUCT, GRADIENT = 5.4, 4.4, 3.2  # in forward passes: seconds of the laptop preset's probes, by kind


class Measured(Spec):
    """What all probes have."""

    num_examples: PositiveInt = 1000
    at: tuple[Share, ...] = (1.0,)

    @field_validator("at")
    @classmethod
    def _ends_at_the_end(cls, at: tuple[float, ...]) -> tuple[float, ...]:
        if not at or at[-1] != 1.0 or list(at) != sorted(set(at)):
            raise ValueError("at must be ascending shares of the run, the last of them 1")
        return at

    def looks(self, first: int, last: int) -> list[int]:
        """Steps of a run from `first` to `last` at which it is measured."""
        return [first + round(share * (last - first)) for share in self.at]

    @property
    def metrics(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """None for a probe that follows a run: the table has what a probe of the trained network found."""
        return self.metrics if len(self.at) == 1 else ()

    @property
    def ranked(self) -> tuple[str, ...]:
        """Columns that are measures of sharpness, to be ranked against the gap."""
        return self.columns

    @property
    def forward_passes(self) -> float:
        """Cost in forward passes over the examples, for plans."""
        raise NotImplementedError


class Eigenvalues(Measured):
    """Both ends of the Hessian's spectrum, with residuals and certified intervals.

    λmin is near zero in trained networks and its residual is relative to ‖H‖, so it has no rank.
    """

    semantics: ClassVar[int] = 2  # 1: a looser stop rule
    kind: Literal["eigenvalues"] = "eigenvalues"
    tol: PositiveFloat = 1e-2
    certify: PositiveFloat | None = 0.06
    max_products: PositiveInt = 100

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*self.sharpness, "lambda_max_lower", "lambda_max_upper", "lambda_min", "lambda_min_lower")

    @property
    def sharpness(self) -> tuple[str, ...]:
        return ("lambda_max", "lambda_max_per_loss", "lambda_max_per_softmax_variance")

    @property
    def ranked(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name in self.sharpness)

    @property
    def forward_passes(self) -> float:
        products = 12 if self.certify is None else 22
        return len(self.at) * (BUILD + PRODUCT * products)


class Noise(Measured):
    """Loss and accuracy under Gaussian weight noise."""

    kind: Literal["noise"] = "noise"
    sigmas: tuple[PositiveFloat, ...]
    draws: int = Field(default=3, ge=2)
    antithetic: bool = True
    scale: Scale = "absolute"

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(f"{self.scale}_noise_{sigma:g}" for sigma in self.sigmas)

    @property
    def forward_passes(self) -> float:
        return len(self.at) * (1.0 + len(self.sigmas) * self.draws * (2 if self.antithetic else 1))


class Trace(Measured):
    """Trace of the Hessian by Hutch++."""

    kind: Literal["trace"] = "trace"
    max_products: int = Field(default=45, ge=6)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("trace",)

    @property
    def forward_passes(self) -> float:
        return len(self.at) * (BUILD + PRODUCT * self.max_products)


class WorstCase(Measured):
    """The largest loss increase that ascent finds within a radius."""

    kind: Literal["worst_case"] = "worst_case"
    radius: PositiveFloat
    norm: Literal["l2", "linf", "keskar"]
    adaptive: bool = False
    steps: PositiveInt = 10
    restarts: PositiveInt = 2

    @property
    def metrics(self) -> tuple[str, ...]:
        return (f"{'adaptive_' if self.adaptive else ''}worst_{self.norm}_{self.radius:g}",)

    @property
    def forward_passes(self) -> float:
        return len(self.at) * GRADIENT * self.steps * self.restarts


class RelativeFlatness(Measured):
    """Petzka's relative flatness of the last weight matrix."""

    kind: Literal["relative_flatness"] = "relative_flatness"
    probes: int = Field(default=30, ge=2)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("relative_flatness",)

    @property
    def forward_passes(self) -> float:
        return len(self.at) * (BUILD + self.probes)  # the last layer's products reach no other layer


class SpectralDensity(Measured):
    """Nodes and weights of the Hessian's spectrum."""

    kind: Literal["density"] = "density"
    steps: PositiveInt = 40
    probes: int = Field(default=2, ge=2)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    @property
    def forward_passes(self) -> float:
        return len(self.at) * (BUILD + PRODUCT * self.steps * self.probes)


class Surface(Measured):
    """Loss on a plane through the network, along two filter-normalized random directions."""

    kind: Literal["surface"] = "surface"
    points: int = Field(default=15, ge=3)
    span: PositiveFloat = 1.0

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    @property
    def forward_passes(self) -> float:
        return len(self.at) * float(self.points**2)


Probe = Annotated[
    Eigenvalues | Noise | Trace | WorstCase | RelativeFlatness | SpectralDensity | Surface, Field(discriminator="kind")
]


def probe_id(probe: Measured) -> str:
    """32 hexadecimal digits that name a probe with its settings and semantics."""
    return digest_text(canonical_json(probe))


class Probing(Spec):
    """A probe and the cells of a design it is taken of: all arms, levels and seeds unless named."""

    probe: Probe
    arms: tuple[str, ...] | None = None
    levels: tuple[float | str, ...] | None = None
    num_seeds: PositiveInt | None = None

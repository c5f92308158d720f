"""Probes of the curvature around a trained network, and which probes there are."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from overparam.probes.connectivity import Connectivity
from overparam.probes.early_stop import EarlyStop
from overparam.probes.fitted import Fitted
from overparam.probes.kernel import AnalyticKernel, Linearization, Movement, TangentKernel, Taylor, TraceRegression
from overparam.probes.mask_profile import MaskProfile
from overparam.probes.probe import Measured as Measured
from overparam.probes.probe import probe_id as probe_id

Scale = Literal["absolute", "filter", "adaptive"]
BUILD, PRODUCT, GRADIENT = 5.4, 4.4, 3.2  # in forward passes: seconds of the laptop preset's probes, by kind


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
    """Nodes and weights of the Hessian's spectrum.

    With a `prior_precision` c, in the unit of the eigenvalues, also the effective parameters `Σ λ/(λ + c)` over the
    positive ones (MacKay 1992), beside the number of all parameters.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"prior_precision": None}
    kind: Literal["density"] = "density"
    steps: PositiveInt = 40
    probes: int = Field(default=2, ge=2)
    prior_precision: PositiveFloat | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return () if self.prior_precision is None else ("effective_parameters", "num_parameters")

    @property
    def ranked(self) -> tuple[str, ...]:
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
    Eigenvalues
    | Noise
    | Trace
    | WorstCase
    | RelativeFlatness
    | SpectralDensity
    | Surface
    | Movement
    | TangentKernel
    | AnalyticKernel
    | Linearization
    | TraceRegression
    | Taylor
    | Fitted
    | EarlyStop
    | Connectivity
    | MaskProfile,
    Field(discriminator="kind"),
]

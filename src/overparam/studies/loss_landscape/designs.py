"""The batch-size study's runs, and what is measured of them at each preset."""

from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues
from overparam.probes.hessian_trace import HessianTrace
from overparam.probes.loss_surface import LossSurface
from overparam.probes.relative_flatness import RelativeFlatness
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.weight_noise import WeightNoise
from overparam.probes.worst_case import WorstCase
from overparam.studies.batch_size.designs import DESIGNS as BATCH_SIZE
from overparam.studies.loss_landscape.claims import ADAPTIVE_SIGMA, SIGMAS, claims
from overparam.studies.study import Design, Designs, Preset, Probing

PAPER_SIGMAS = (0.0005, 0.001, *SIGMAS, 0.05)
ALONG = (0.0, 0.05, 0.15, 0.35, 0.6, 0.85, 1.0)
EQUAL_EPOCHS, EQUAL_LOSS = ("equal_epochs",), ("equal_loss",)
CAPTION = "Curvature and noise are measured on the first {n:,} training examples, in eval mode."


def probings(
    n: int, levels: tuple[float | str, ...], few: tuple[float | str, ...], *, seeds: int
) -> tuple[Probing, ...]:
    """λmax, λmin and noise of every run; the dearer measures of some levels; pictures at equal loss, of few seeds."""
    some = {"arms": EQUAL_EPOCHS + EQUAL_LOSS, "levels": levels}
    rare = {"arms": EQUAL_LOSS, "levels": few, "num_seeds": seeds}
    along = {**rare, "arms": EQUAL_EPOCHS}
    adaptive = WeightNoise(
        num_examples=n, sigmas=(ADAPTIVE_SIGMA / 4, ADAPTIVE_SIGMA / 2, ADAPTIVE_SIGMA), scale="adaptive"
    )
    return (
        Probing(probe=ExtremeEigenvalues(num_examples=n)),
        Probing(probe=WeightNoise(num_examples=n, sigmas=PAPER_SIGMAS)),
        Probing(probe=adaptive),
        Probing(probe=HessianTrace(num_examples=n), **some),
        Probing(probe=WorstCase(num_examples=n, radius=1e-3, norm="keskar"), **some),
        Probing(probe=WorstCase(num_examples=n, radius=0.05, norm="l2", adaptive=True), **some),
        Probing(probe=RelativeFlatness(num_examples=n), **some),
        Probing(probe=SpectralDensity(num_examples=n), **rare),
        Probing(probe=LossSurface(num_examples=n), **rare),
        Probing(probe=ExtremeEigenvalues(num_examples=n, at=ALONG, certify=None), **along),
    )


def _design(preset: Preset, small: int, large: int, n: int, budget: float | None, everything: bool = False) -> Design:
    source = BATCH_SIZE[preset]
    levels = tuple(level.value for level in source.arms[0].levels) if everything else (small, 128, large)
    seeds = len(source.seeds) if everything else 2
    return Design(
        seeds=source.seeds,
        arms=source.arms,
        claims=claims(small, large, comparable=preset == "paper"),
        budget_core_seconds=budget,
        caption=f"{source.caption} {CAPTION.format(n=n)}",
        probings=probings(n, tuple(dict.fromkeys(levels)), (small, large), seeds=seeds),
    )


DESIGNS = Designs(
    {
        "smoke": lambda: _design("smoke", 8, 128, 200, 50.0),
        "laptop": lambda: _design("laptop", 32, 1024, 1000, 3000.0),
        "overnight": lambda: _design("overnight", 32, 1024, 1000, None, everything=True),
        "paper": lambda: _design("paper", 32, 1024, 1000, None, everything=True),
    }
)

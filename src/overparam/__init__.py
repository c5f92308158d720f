"""overparam: why do networks with more parameters than data generalize?

The public names below are loaded on first use, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from overparam.foundations.version import __version__ as __version__

if TYPE_CHECKING:
    from overparam.lab.laboratory import Results as Results
    from overparam.lab.laboratory import RunsFailed as RunsFailed
    from overparam.lab.laboratory import run as run
    from overparam.measure.comparison.barrier import Barrier as Barrier
    from overparam.measure.comparison.barrier import loss_barrier as loss_barrier
    from overparam.measure.comparison.masks import DeadUnits as DeadUnits
    from overparam.measure.comparison.masks import Overlap as Overlap
    from overparam.measure.comparison.masks import dead_units as dead_units
    from overparam.measure.comparison.masks import density_profile as density_profile
    from overparam.measure.comparison.masks import mask_overlap as mask_overlap
    from overparam.measure.comparison.movement import Movement as Movement
    from overparam.measure.comparison.movement import parameter_movement as parameter_movement
    from overparam.measure.estimate import Estimate as Estimate
    from overparam.measure.gradient_noise import NoiseScale as NoiseScale
    from overparam.measure.gradient_noise import gradient_noise_scale as gradient_noise_scale
    from overparam.measure.kernels.empirical import EmpiricalKernel as EmpiricalKernel
    from overparam.measure.kernels.empirical import empirical_kernel as empirical_kernel
    from overparam.measure.kernels.empirical import empirical_ntk as empirical_ntk
    from overparam.measure.kernels.infinite import analytic_ntk as analytic_ntk
    from overparam.measure.kernels.infinite import learning_rate_map as learning_rate_map
    from overparam.measure.kernels.regression import kernel_regression as kernel_regression
    from overparam.measure.kernels.similarity import effective_rank as effective_rank
    from overparam.measure.kernels.similarity import kernel_alignment as kernel_alignment
    from overparam.measure.kernels.similarity import kernel_distance as kernel_distance
    from overparam.measure.kernels.similarity import kernel_drift as kernel_drift
    from overparam.measure.kernels.similarity import label_kernel as label_kernel
    from overparam.measure.sharpness.card import SharpnessReport as SharpnessReport
    from overparam.measure.sharpness.card import sharpness_report as sharpness_report
    from overparam.measure.sharpness.pac_bayes import pac_bayes_sigma as pac_bayes_sigma
    from overparam.measure.sharpness.pac_bayes import relative_flatness as relative_flatness
    from overparam.measure.sharpness.surface import Surface as Surface
    from overparam.measure.sharpness.surface import loss_surface as loss_surface
    from overparam.measure.sharpness.weight_noise import Curve as Curve
    from overparam.measure.sharpness.weight_noise import perturbation_curve as perturbation_curve
    from overparam.measure.sharpness.worst_case import worst_case_sharpness as worst_case_sharpness
    from overparam.measure.spectrum.density import Density as Density
    from overparam.measure.spectrum.density import spectral_density as spectral_density
    from overparam.measure.spectrum.eigenvalues import Eigenvalues as Eigenvalues
    from overparam.measure.spectrum.eigenvalues import top_eigenvalues as top_eigenvalues
    from overparam.measure.spectrum.trace import hessian_frobenius as hessian_frobenius
    from overparam.measure.spectrum.trace import hessian_trace as hessian_trace
    from overparam.models.masks import magnitude_mask as magnitude_mask
    from overparam.models.masks import masked as masked
    from overparam.models.masks import random_mask as random_mask
    from overparam.models.masks import shuffled_mask as shuffled_mask
    from overparam.models.taylor.function import linearize as linearize
    from overparam.runs.execute import train as train
    from overparam.runs.execution import Execution as Execution
    from overparam.runs.run import Run as Run
    from overparam.runs.training.observer import Observer as Observer
    from overparam.runs.training.solve import descended as descended
    from overparam.runs.training.solve import least_squares as least_squares
    from overparam.runs.training.solve import solve as solve
    from overparam.specs import CNN as CNN
    from overparam.specs import MLP as MLP
    from overparam.specs import SGD as SGD
    from overparam.specs import Adam as Adam
    from overparam.specs import DataSpec as DataSpec
    from overparam.specs import Dense as Dense
    from overparam.specs import Fresh as Fresh
    from overparam.specs import Magnitude as Magnitude
    from overparam.specs import RandomMask as RandomMask
    from overparam.specs import Rewind as Rewind
    from overparam.specs import RunSpec as RunSpec
    from overparam.specs import SameSigns as SameSigns
    from overparam.specs import ShuffledMask as ShuffledMask
    from overparam.specs import TrainSpec as TrainSpec
    from overparam.specs.models.layers import weight_shapes as weight_shapes
    from overparam.specs.pruning import controls as controls
    from overparam.specs.pruning import iterative_pruning as iterative_pruning
    from overparam.specs.pruning import one_shot as one_shot
    from overparam.specs.pruning import weights_left as weights_left

_HOMES = {
    "overparam.specs": (
        *("Adam", "CNN", "DataSpec", "Dense", "Fresh", "MLP", "Magnitude", "RandomMask", "Rewind"),
        *("RunSpec", "SGD", "SameSigns", "ShuffledMask", "TrainSpec"),
    ),
    "overparam.runs.execute": ("train",),
    "overparam.runs.run": ("Run",),
    "overparam.runs.execution": ("Execution",),
    "overparam.runs.training.observer": ("Observer",),
    "overparam.runs.training.solve": ("descended", "least_squares", "solve"),
    "overparam.lab.laboratory": ("Results", "RunsFailed", "run"),
    "overparam.measure.sharpness.card": (
        "SharpnessReport",
        "sharpness_report",
    ),
    "overparam.measure.spectrum.eigenvalues": (
        "Eigenvalues",
        "top_eigenvalues",
    ),
    "overparam.measure.estimate": ("Estimate",),
    "overparam.measure.sharpness.pac_bayes": (
        "pac_bayes_sigma",
        "relative_flatness",
    ),
    "overparam.measure.gradient_noise": ("NoiseScale", "gradient_noise_scale"),
    "overparam.measure.sharpness.weight_noise": (
        "Curve",
        "perturbation_curve",
    ),
    "overparam.measure.sharpness.worst_case": ("worst_case_sharpness",),
    "overparam.measure.spectrum.density": (
        "Density",
        "spectral_density",
    ),
    "overparam.measure.sharpness.surface": (
        "Surface",
        "loss_surface",
    ),
    "overparam.measure.spectrum.trace": (
        "hessian_frobenius",
        "hessian_trace",
    ),
    "overparam.measure.kernels.infinite": (
        "analytic_ntk",
        "learning_rate_map",
    ),
    "overparam.measure.kernels.regression": ("kernel_regression",),
    "overparam.measure.kernels.similarity": (
        "effective_rank",
        "kernel_alignment",
        "kernel_distance",
        "kernel_drift",
        "label_kernel",
    ),
    "overparam.measure.comparison.movement": (
        "Movement",
        "parameter_movement",
    ),
    "overparam.measure.kernels.empirical": (
        "EmpiricalKernel",
        "empirical_kernel",
        "empirical_ntk",
    ),
    "overparam.models.taylor.function": ("linearize",),
    "overparam.models.masks": ("magnitude_mask", "masked", "random_mask", "shuffled_mask"),
    "overparam.measure.comparison.barrier": ("Barrier", "loss_barrier"),
    "overparam.measure.comparison.masks": ("DeadUnits", "Overlap", "dead_units", "density_profile", "mask_overlap"),
    "overparam.specs.pruning": ("controls", "iterative_pruning", "one_shot", "weights_left"),
    "overparam.specs.models.layers": ("weight_shapes",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'overparam' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

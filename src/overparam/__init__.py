"""overparam: why do networks with more parameters than data generalize?

The public names below are loaded on first use, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from overparam.version import __version__ as __version__

if TYPE_CHECKING:
    from overparam.execute import train as train
    from overparam.execution import Execution as Execution
    from overparam.laboratory import Results as Results
    from overparam.laboratory import RunsFailed as RunsFailed
    from overparam.laboratory import run as run
    from overparam.measure.card import SharpnessReport as SharpnessReport
    from overparam.measure.card import sharpness_report as sharpness_report
    from overparam.measure.connectivity import Barrier as Barrier
    from overparam.measure.connectivity import loss_barrier as loss_barrier
    from overparam.measure.eigenvalues import Eigenvalues as Eigenvalues
    from overparam.measure.eigenvalues import top_eigenvalues as top_eigenvalues
    from overparam.measure.estimate import Estimate as Estimate
    from overparam.measure.flatness import pac_bayes_sigma as pac_bayes_sigma
    from overparam.measure.flatness import relative_flatness as relative_flatness
    from overparam.measure.gradient_noise import NoiseScale as NoiseScale
    from overparam.measure.gradient_noise import gradient_noise_scale as gradient_noise_scale
    from overparam.measure.infinite import analytic_ntk as analytic_ntk
    from overparam.measure.infinite import learning_rate_map as learning_rate_map
    from overparam.measure.kernel_regression import kernel_regression as kernel_regression
    from overparam.measure.kernels import effective_rank as effective_rank
    from overparam.measure.kernels import kernel_alignment as kernel_alignment
    from overparam.measure.kernels import kernel_distance as kernel_distance
    from overparam.measure.kernels import kernel_drift as kernel_drift
    from overparam.measure.kernels import label_kernel as label_kernel
    from overparam.measure.movement import Movement as Movement
    from overparam.measure.movement import parameter_movement as parameter_movement
    from overparam.measure.ntk import EmpiricalKernel as EmpiricalKernel
    from overparam.measure.ntk import empirical_kernel as empirical_kernel
    from overparam.measure.ntk import empirical_ntk as empirical_ntk
    from overparam.measure.perturbation import Curve as Curve
    from overparam.measure.perturbation import perturbation_curve as perturbation_curve
    from overparam.measure.sharpness import worst_case_sharpness as worst_case_sharpness
    from overparam.measure.spectrum import Density as Density
    from overparam.measure.spectrum import spectral_density as spectral_density
    from overparam.measure.surface import Surface as Surface
    from overparam.measure.surface import loss_surface as loss_surface
    from overparam.measure.tickets import DeadUnits as DeadUnits
    from overparam.measure.tickets import Overlap as Overlap
    from overparam.measure.tickets import dead_units as dead_units
    from overparam.measure.tickets import density_profile as density_profile
    from overparam.measure.tickets import mask_overlap as mask_overlap
    from overparam.measure.trace import hessian_frobenius as hessian_frobenius
    from overparam.measure.trace import hessian_trace as hessian_trace
    from overparam.models.linearize import linearize as linearize
    from overparam.models.masks import magnitude_mask as magnitude_mask
    from overparam.models.masks import masked as masked
    from overparam.models.masks import random_mask as random_mask
    from overparam.models.masks import shuffled_mask as shuffled_mask
    from overparam.runs import Run as Run
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
    from overparam.specs.layers import weight_shapes as weight_shapes
    from overparam.specs.pruning import controls as controls
    from overparam.specs.pruning import iterative_pruning as iterative_pruning
    from overparam.specs.pruning import one_shot as one_shot
    from overparam.specs.pruning import weights_left as weights_left
    from overparam.training.observer import Observer as Observer
    from overparam.training.solve import descended as descended
    from overparam.training.solve import least_squares as least_squares
    from overparam.training.solve import solve as solve

_HOMES = {
    "overparam.specs": (
        *("Adam", "CNN", "DataSpec", "Dense", "Fresh", "MLP", "Magnitude", "RandomMask", "Rewind"),
        *("RunSpec", "SGD", "SameSigns", "ShuffledMask", "TrainSpec"),
    ),
    "overparam.execute": ("train",),
    "overparam.runs": ("Run",),
    "overparam.execution": ("Execution",),
    "overparam.training.observer": ("Observer",),
    "overparam.training.solve": ("descended", "least_squares", "solve"),
    "overparam.laboratory": ("Results", "RunsFailed", "run"),
    "overparam.measure.card": (
        "SharpnessReport",
        "sharpness_report",
    ),
    "overparam.measure.eigenvalues": (
        "Eigenvalues",
        "top_eigenvalues",
    ),
    "overparam.measure.estimate": ("Estimate",),
    "overparam.measure.flatness": (
        "pac_bayes_sigma",
        "relative_flatness",
    ),
    "overparam.measure.gradient_noise": ("NoiseScale", "gradient_noise_scale"),
    "overparam.measure.perturbation": (
        "Curve",
        "perturbation_curve",
    ),
    "overparam.measure.sharpness": ("worst_case_sharpness",),
    "overparam.measure.spectrum": (
        "Density",
        "spectral_density",
    ),
    "overparam.measure.surface": (
        "Surface",
        "loss_surface",
    ),
    "overparam.measure.trace": (
        "hessian_frobenius",
        "hessian_trace",
    ),
    "overparam.measure.infinite": (
        "analytic_ntk",
        "learning_rate_map",
    ),
    "overparam.measure.kernel_regression": ("kernel_regression",),
    "overparam.measure.kernels": (
        "effective_rank",
        "kernel_alignment",
        "kernel_distance",
        "kernel_drift",
        "label_kernel",
    ),
    "overparam.measure.movement": (
        "Movement",
        "parameter_movement",
    ),
    "overparam.measure.ntk": (
        "EmpiricalKernel",
        "empirical_kernel",
        "empirical_ntk",
    ),
    "overparam.models.linearize": ("linearize",),
    "overparam.models.masks": ("magnitude_mask", "masked", "random_mask", "shuffled_mask"),
    "overparam.measure.connectivity": ("Barrier", "loss_barrier"),
    "overparam.measure.tickets": ("DeadUnits", "Overlap", "dead_units", "density_profile", "mask_overlap"),
    "overparam.specs.pruning": ("controls", "iterative_pruning", "one_shot", "weights_left"),
    "overparam.specs.layers": ("weight_shapes",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'overparam' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Probes: what is measured of a trained network. Each is one file with its settings, its cost and how it is taken."""

from overparam.probes.analytic_kernel import AnalyticKernel as AnalyticKernel
from overparam.probes.connectivity import Connectivity as Connectivity
from overparam.probes.early_stop import EarlyStop as EarlyStop
from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues as ExtremeEigenvalues
from overparam.probes.hessian_trace import HessianTrace as HessianTrace
from overparam.probes.label_fit import LabelFit as LabelFit
from overparam.probes.linearization import Linearization as Linearization
from overparam.probes.loss_surface import LossSurface as LossSurface
from overparam.probes.mask_profile import MaskProfile as MaskProfile
from overparam.probes.parameter_movement import ParameterMovement as ParameterMovement
from overparam.probes.relative_flatness import RelativeFlatness as RelativeFlatness
from overparam.probes.spectral_density import SpectralDensity as SpectralDensity
from overparam.probes.tangent_kernel import TangentKernel as TangentKernel
from overparam.probes.taylor_error import TaylorError as TaylorError
from overparam.probes.trace_regression import TraceRegression as TraceRegression
from overparam.probes.weight_noise import WeightNoise as WeightNoise
from overparam.probes.worst_case import WorstCase as WorstCase

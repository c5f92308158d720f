"""Probes: what is measured of a trained network. Each is one file with its settings, its cost and how it is taken.

A new one is a file of its own and a member of the union at the end.
"""

from typing import Annotated

from pydantic import Field

from overparam.probes.analytic_kernel import AnalyticKernel
from overparam.probes.connectivity import Connectivity
from overparam.probes.early_stop import EarlyStop
from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues
from overparam.probes.hessian_trace import HessianTrace
from overparam.probes.label_fit import LabelFit
from overparam.probes.linearization import Linearization
from overparam.probes.loss_surface import LossSurface
from overparam.probes.mask_profile import MaskProfile
from overparam.probes.parameter_movement import ParameterMovement
from overparam.probes.relative_flatness import RelativeFlatness
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.tangent_kernel import TangentKernel
from overparam.probes.taylor_error import TaylorError
from overparam.probes.trace_regression import TraceRegression
from overparam.probes.weight_noise import WeightNoise
from overparam.probes.worst_case import WorstCase

AnyProbe = Annotated[
    ExtremeEigenvalues
    | WeightNoise
    | HessianTrace
    | WorstCase
    | RelativeFlatness
    | SpectralDensity
    | LossSurface
    | ParameterMovement
    | TangentKernel
    | AnalyticKernel
    | Linearization
    | TraceRegression
    | TaylorError
    | LabelFit
    | EarlyStop
    | Connectivity
    | MaskProfile,
    Field(discriminator="kind"),
]

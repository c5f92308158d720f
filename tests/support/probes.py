"""One of each probe, small, in every setting that takes a path of its own: `ALL` are those of curvature."""

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
from overparam.probes.probe import Probe
from overparam.probes.relative_flatness import RelativeFlatness
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.tangent_kernel import TangentKernel
from overparam.probes.taylor_error import TaylorError
from overparam.probes.trace_regression import TraceRegression
from overparam.probes.weight_noise import WeightNoise
from overparam.probes.worst_case import WorstCase

ALL: tuple[Probe, ...] = (
    ExtremeEigenvalues(num_examples=50),
    ExtremeEigenvalues(num_examples=50, at=(0.0, 0.5, 1.0), certify=None),
    WeightNoise(num_examples=50, sigmas=(0.01, 0.1)),
    WeightNoise(num_examples=50, sigmas=(0.1,), scale="adaptive"),
    WeightNoise(num_examples=50, sigmas=(0.1,), scale="filter", antithetic=False),
    HessianTrace(num_examples=50, max_products=9),
    WorstCase(num_examples=50, radius=0.01, norm="l2", steps=3),
    WorstCase(num_examples=50, radius=0.01, norm="linf", steps=3),
    WorstCase(num_examples=50, radius=0.01, norm="keskar", steps=3),
    WorstCase(num_examples=50, radius=0.01, norm="l2", adaptive=True, steps=3),
    RelativeFlatness(num_examples=50, probes=4),
    SpectralDensity(num_examples=50, steps=5),
    SpectralDensity(num_examples=50, steps=5, prior_precision=0.02),
    LossSurface(num_examples=50, points=3),
)

# Of the kernel at the start: what the last ones assume holds of wide networks in full-batch gradient descent on mse.
KERNEL: tuple[Probe, ...] = (
    ParameterMovement(),
    TangentKernel(num_examples=10),
    TangentKernel(num_examples=10, at=(0.0, 0.5, 1.0)),
    AnalyticKernel(num_examples=10),
    Linearization(num_test=50, at=(0.0, 0.5, 1.0)),
    TraceRegression(num_examples=40, num_test=50),
    TaylorError(num_test=50),
)

# Of a run with wrong labels, validation examples and an order of its examples.
ALONG: tuple[Probe, ...] = (LabelFit(), EarlyStop(every=2), Connectivity(num_examples=50, points=5))

# Of a run with a mask and seed 1, which is the other run of the second.
MASKED: tuple[Probe, ...] = (MaskProfile(), MaskProfile(other_seed=1))

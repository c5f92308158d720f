"""One of each probe, small, in every setting that takes a path of its own: `ALL` are those of curvature."""

from overparam.probes.connectivity import Connectivity
from overparam.probes.early_stop import EarlyStop
from overparam.probes.every import (
    Eigenvalues,
    Measured,
    Noise,
    RelativeFlatness,
    SpectralDensity,
    Surface,
    Trace,
    WorstCase,
)
from overparam.probes.fitted import Fitted
from overparam.probes.kernel import AnalyticKernel, Linearization, Movement, TangentKernel, Taylor, TraceRegression
from overparam.probes.mask_profile import MaskProfile

ALL: tuple[Measured, ...] = (
    Eigenvalues(num_examples=50),
    Eigenvalues(num_examples=50, at=(0.0, 0.5, 1.0), certify=None),
    Noise(num_examples=50, sigmas=(0.01, 0.1)),
    Noise(num_examples=50, sigmas=(0.1,), scale="adaptive"),
    Noise(num_examples=50, sigmas=(0.1,), scale="filter", antithetic=False),
    Trace(num_examples=50, max_products=9),
    WorstCase(num_examples=50, radius=0.01, norm="l2", steps=3),
    WorstCase(num_examples=50, radius=0.01, norm="linf", steps=3),
    WorstCase(num_examples=50, radius=0.01, norm="keskar", steps=3),
    WorstCase(num_examples=50, radius=0.01, norm="l2", adaptive=True, steps=3),
    RelativeFlatness(num_examples=50, probes=4),
    SpectralDensity(num_examples=50, steps=5),
    SpectralDensity(num_examples=50, steps=5, prior_precision=0.02),
    Surface(num_examples=50, points=3),
)

# Of the kernel at the start: what the last ones assume holds of wide networks in full-batch gradient descent on mse.
KERNEL: tuple[Measured, ...] = (
    Movement(),
    TangentKernel(num_examples=10),
    TangentKernel(num_examples=10, at=(0.0, 0.5, 1.0)),
    AnalyticKernel(num_examples=10),
    Linearization(num_test=50, at=(0.0, 0.5, 1.0)),
    TraceRegression(num_examples=40, num_test=50),
    Taylor(num_test=50),
)

# Of a run with wrong labels, validation examples and an order of its examples.
ALONG: tuple[Measured, ...] = (Fitted(), EarlyStop(every=2), Connectivity(num_examples=50, points=5))

# Of a run with a mask and seed 1, which is the other run of the second.
MASKED: tuple[Measured, ...] = (MaskProfile(), MaskProfile(other_seed=1))

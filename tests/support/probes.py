"""One of each probe, small, in every setting that takes a path of its own."""

from overparam.specs import (
    Eigenvalues,
    Measured,
    Noise,
    RelativeFlatness,
    SpectralDensity,
    Surface,
    Trace,
    WorstCase,
)

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

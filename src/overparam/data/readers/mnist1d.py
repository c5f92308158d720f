"""MNIST-1D, generated here: 40-point signals of ten digit shapes, padded, scaled, shifted, sheared and noisy.

Greydanus & Kobak (2024), arXiv:2011.14439; draws and arithmetic follow the published generator (Apache-2.0) so
that seed 42 with 5,000 samples gives its frozen data set. That fixes numpy's legacy random stream, kept local.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from overparam.data.types import Array, Embedded
from overparam.foundations.keys import key
from overparam.specs.data import DataSpec

Signal = NDArray[np.float64]

# Heights of the ten shapes at twelve equally spaced points.
SHAPES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
POINTS = len(SHAPES[0])
PADDING = (36, 60)
PADDED = POINTS + PADDING[1]
LENGTH = 40
SCALE, MAX_SHIFT, SMOOTH_NOISE, WHITE_NOISE, SHEAR = 0.4, 48, 0.25, 0.02, 0.75
PUBLISHED_SEED = 42
NUM_TRAIN, NUM_TEST = 4000, 1000


def generate(num_train: int, num_test: int, data_seed: int) -> dict[str, Array]:
    """A sample of the distribution, split into train and test.

    Data seed 0 is the published seed 42: with 4,000 + 1,000 it gives the published set. Other seeds are fresh samples.
    The first 1,000 test examples belong to the sample of the training set; further ones come from a stream of their
    own, scaled like it, so that a larger test set changes neither the training set nor those.
    """
    first = min(num_test, NUM_TEST)
    seed = PUBLISHED_SEED if data_seed == 0 else key(data_seed, "mnist1d") % 2**32
    signals, labels = _sample(num_train + first, seed)
    mean, std = signals.mean(), signals.std()
    if more := num_test - first:
        extra, extra_labels = _sample(more, key(data_seed, "mnist1d", "test") % 2**32)
        signals, labels = np.concatenate([signals, extra]), np.concatenate([labels, extra_labels])
    x = ((signals - mean) / std).astype(np.float32)
    train, test = slice(num_train), slice(num_train, num_train + num_test)
    return {"train_x": x[train], "train_y": labels[train], "test_x": x[test], "test_y": labels[test]}


def sample(spec: DataSpec) -> tuple[int, int, int]:
    """The smallest sample of at least the published size that holds what a spec asks for."""
    num_train = NUM_TRAIN if spec.num_train is None else spec.num_train + spec.num_val
    return max(NUM_TRAIN, num_train), max(NUM_TEST, spec.num_test or 0), spec.data_seed


def _sample(count: int, seed: int) -> tuple[Signal, NDArray[np.int64]]:
    """Equal numbers of each shape, shuffled and cut to the count."""
    draws = np.random.RandomState(seed)
    per_class = -(-count // len(SHAPES))
    signals = np.stack([_signal(shape, draws) for shape in _templates() for _ in range(per_class)])
    labels = np.repeat(np.arange(len(SHAPES)), per_class)
    shuffled = draws.permutation(len(labels))
    return signals[shuffled][:count], labels[shuffled][:count]


def _templates() -> Signal:
    """Shapes with mean 0 and standard deviation 1, shifted to start at 0, divided by 6."""
    x = np.array(SHAPES)
    x -= x.mean(1, keepdims=True)
    x /= x.std(1, keepdims=True)
    started: Signal = (x - x[:, :1]) / 6.0
    return started


def _signal(shape: Signal, draws: "np.random.RandomState") -> Signal:
    """One noisy signal; the order of the random draws is part of the data set."""
    low, high = PADDING
    padding = low + int(draws.rand() * (high - low + 1))
    x = _resample(np.concatenate([shape + 1e-8, np.zeros(padding)]), PADDED)
    x = x * (1 + SCALE * (draws.rand() - 0.5))
    x = np.roll(x, draws.choice(MAX_SHIFT))
    inside = x != 0
    smooth = gaussian_filter(SMOOTH_NOISE * draws.randn(PADDED), 2)
    x = inside * x + (1 - inside) * smooth
    x = x + WHITE_NOISE * draws.randn(PADDED)
    x = x - SHEAR * (draws.rand() - 0.5) * np.linspace(-0.5, 0.5, PADDED)
    return _resample(x, LENGTH)


def _resample(x: Signal, length: int) -> Signal:
    """Linear interpolation at equally spaced points."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(x)), x)


MNIST1D = Embedded(
    name="mnist1d",
    described="signals, any size",
    origin="generated",
    sample=sample,
    read=generate,
)

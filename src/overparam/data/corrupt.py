"""Choosing a subset and making labels wrong. Pure functions of arrays and a data seed."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from overparam.data.types import DataError
from overparam.foundations.numpy_generators import numpy_generator
from overparam.identity import digest_arrays

Indices = NDArray[np.int64]


def select_first(labels: Indices, sizes: tuple[int, ...]) -> tuple[Indices, ...]:
    """Consecutive runs of examples in stored order."""
    bounds = np.cumsum((0, *sizes))
    return tuple(np.arange(a, b, dtype=np.int64) for a, b in pairwise(bounds))


def select_balanced(labels: Indices, sizes: tuple[int, ...], data_seed: int, purpose: str) -> tuple[Indices, ...]:
    """Disjoint subsets with equal numbers per class, in random order.

    Each class is shuffled once and subsets are taken from its front, so a smaller first subset of the same seed
    is contained in a larger one whenever both sizes are multiples of K. A remainder goes to classes drawn once.

    Raises:
        DataError: a class has too few examples.
    """
    generator = numpy_generator(data_seed, purpose)
    classes = np.unique(labels)
    extra_order = generator.permutation(len(classes))
    queues = [generator.permutation(np.flatnonzero(labels == k)) for k in classes]
    taken = np.zeros(len(classes), dtype=np.int64)
    subsets = []
    for size in sizes:
        counts = np.full(len(classes), size // len(classes))
        counts[extra_order[: size % len(classes)]] += 1
        short = np.flatnonzero(taken + counts > [len(queue) for queue in queues])
        if len(short):
            k = int(short[0])
            raise DataError(
                f"a balanced subset needs {taken[k] + counts[k]} examples of class {classes[k]}, but there are "
                f'{len(queues[k])}; ask for fewer or use subset="first"'
            )
        parts = [queue[t : t + c] for queue, t, c in zip(queues, taken, counts, strict=True)]
        taken += counts
        subsets.append(generator.permutation(np.concatenate(parts)))
    return tuple(subsets)


def wrong_labels(labels: Indices, share: float, num_classes: int, data_seed: int) -> tuple[Indices, Indices]:
    """Labels of which exactly `round(share · n)` are replaced by one of the K − 1 others, and their positions.

    >>> noisy, flipped = wrong_labels(np.zeros(10, dtype=np.int64), 0.3, 5, data_seed=0)
    >>> len(flipped), bool((noisy[flipped] != 0).all()), int((noisy != 0).sum())
    (3, True, 3)
    """
    generator = numpy_generator(data_seed, "label_noise")
    flipped = np.sort(generator.permutation(len(labels))[: round(share * len(labels))]).astype(np.int64)
    shift = generator.integers(1, num_classes, size=len(flipped)) if num_classes > 1 else np.zeros(len(flipped), int)
    noisy = labels.copy()
    noisy[flipped] = (labels[flipped] + shift) % num_classes
    return noisy, flipped


def digest_noise(noisy: Indices, flipped: Indices) -> str:
    """Digest of the list of wrong labels: where they are and what they say."""
    return digest_arrays({"flipped": flipped, "labels": noisy[flipped]})

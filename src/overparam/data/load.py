"""DataSpec → examples: find the source, decode once, choose, corrupt, normalize."""

import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from overparam.data.cache import DECODER_VERSION, decoded, fingerprint
from overparam.data.corrupt import Indices, digest_noise, select_balanced, select_first, wrong_labels
from overparam.data.find import find, folder_of
from overparam.data.readers.every import EMBEDDED
from overparam.data.types import Array, DataError, Dataset, Examples, Sizes, Split
from overparam.identity import digest_text
from overparam.specs.data import DataSpec

LOOK_AGAIN = 5.0  # seconds after which a process looks again whether files have changed


def prepare(spec: DataSpec, *, data_dir: Path | None = None) -> Examples:
    """The examples that a spec selects, normalized, kept in memory for the next call.

    Raises:
        DataError: the data set is missing or damaged, or has too few examples.
    """
    folder = folder_of(data_dir)
    return _prepare(spec, folder, _recent_mark(spec, folder, _tick()))


def sizes(spec: DataSpec, *, data_dir: Path | None = None) -> Sizes:
    """Counts and shapes of the examples that a spec selects, without building any.

    Raises:
        DataError: as for `prepare`.
    """
    folder = folder_of(data_dir)
    return _sizes(spec, folder, _recent_mark(spec, folder, _tick()))


def content_digest(spec: DataSpec, *, data_dir: Path | None = None) -> str:
    """Digest of the decoded data set behind a spec, as it is found now."""
    return dataset_of(spec, data_dir).digest


def dataset_of(spec: DataSpec, data_dir: Path | None = None) -> Dataset:
    """The whole decoded data set behind a spec."""
    folder = folder_of(data_dir)
    return _dataset(spec, folder, _mark(spec, folder))


def _mark(spec: DataSpec, folder: Path) -> str:
    """Names the files of a data set as they are now, so that nothing kept in memory outlives them."""
    if spec.name in EMBEDDED:
        return "embedded"  # it comes with the package
    source = find(spec.name, folder)
    return fingerprint(source.name, source.files)


@lru_cache(maxsize=64)
def _recent_mark(spec: DataSpec, folder: Path, tick: int) -> str:
    """For callers that ask for every run: looking at the files of a large image folder takes a second."""
    return _mark(spec, folder)


def _tick() -> int:
    return int(time.monotonic() // LOOK_AGAIN)


def _dataset(spec: DataSpec, folder: Path, mark: str) -> Dataset:
    if spec.name in EMBEDDED:
        return _embedded(spec.name, EMBEDDED[spec.name].sample(spec))
    return _decoded(spec.name, mark, folder)


@lru_cache(maxsize=16)  # small, and of a study whose seeds draw samples as many take turns as it has seeds
def _embedded(name: str, sample: tuple[int, ...]) -> Dataset:
    mark = digest_text("|".join(map(str, (DECODER_VERSION, name, *sample))))
    return decoded(name, mark, lambda say: EMBEDDED[name].read(*sample))


@lru_cache(maxsize=4)
def _decoded(name: str, mark: str, folder: Path) -> Dataset:
    return decoded(name, mark, find(name, folder).decode)


@lru_cache(maxsize=3)
def _prepare(spec: DataSpec, folder: Path, mark: str) -> Examples:
    data = _dataset(spec, folder, mark)
    train, val, test = _chosen(spec, data)
    clean = data.train_y[train]
    noisy, flipped = wrong_labels(clean, spec.label_noise, data.num_classes, spec.data_seed)
    return Examples(
        train=Split(_inputs(spec, data, data.train_x, train), noisy),
        val=Split(_inputs(spec, data, data.train_x, val), data.train_y[val]),
        test=Split(_inputs(spec, data, data.test_x, test), data.test_y[test]),
        clean_train_y=clean,
        flipped=flipped,
        noise_digest=digest_noise(noisy, flipped),
        digest=data.digest,
        num_classes=data.num_classes,
        input_shape=data.train_x.shape[1:],
    )


@lru_cache(maxsize=64)
def _sizes(spec: DataSpec, folder: Path, mark: str) -> Sizes:
    data = _dataset(spec, folder, mark)
    train, val, test = (len(chosen) for chosen in _chosen(spec, data))
    return Sizes(train, val, test, data.train_x.shape[1:], data.num_classes)


def _chosen(spec: DataSpec, data: Dataset) -> tuple[Indices, Indices, Indices]:
    """Which examples of a data set train, validate and test."""
    train, val = _choose_train(spec, data)
    (test,) = _choose(spec, data.test_y, (spec.num_test or len(data.test_y),), "test subset")
    return train, val, test


def _choose_train(spec: DataSpec, data: Dataset) -> tuple[Indices, Indices]:
    pool = len(data.train_y)
    num_train = pool - spec.num_val if spec.num_train is None else spec.num_train
    if num_train < 1 or num_train + spec.num_val > pool:
        raise DataError(
            f"{spec.name}: num_train={spec.num_train} and num_val={spec.num_val} do not fit into a training pool of "
            f"{pool} examples; ask for fewer"
        )
    train, val = _choose(spec, data.train_y, (num_train, spec.num_val), "subset")
    return train, val


def _choose(spec: DataSpec, labels: Indices, sizes: tuple[int, ...], purpose: str) -> tuple[Indices, ...]:
    if sizes[0] > len(labels):
        raise DataError(f"{spec.name}: num_test={sizes[0]}, but there are {len(labels)} test examples; ask for fewer")
    whole = sizes[0] == len(labels)
    if whole or spec.subset == "first":
        return select_first(labels, sizes)
    if len(sizes) == 2 and sum(sizes) == len(labels):
        return _rest_and_val(labels, sizes[1], spec.data_seed, purpose)
    return select_balanced(labels, sizes, spec.data_seed, purpose)


def _rest_and_val(labels: Indices, num_val: int, data_seed: int, purpose: str) -> tuple[Indices, Indices]:
    """A balanced validation set and all that is left, in stored order: the pool itself need not be balanced."""
    (val,) = select_balanced(labels, (num_val,), data_seed, purpose)
    return np.setdiff1d(np.arange(len(labels)), val), val


def _inputs(spec: DataSpec, data: Dataset, x: Array, chosen: Indices) -> np.ndarray:
    values = x[chosen].astype(np.float32)
    if x.dtype == np.uint8:
        values /= np.float32(255.0)
    if spec.normalize:
        shape = (1, -1) + (1,) * (values.ndim - 2)
        values -= np.array(data.mean, dtype=np.float32).reshape(shape)
        values /= np.array(data.std, dtype=np.float32).reshape(shape)
    return np.ascontiguousarray(values)

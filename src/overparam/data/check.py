"""From raw arrays to a `Dataset`: what every reader's result must satisfy."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from overparam.data.types import Array, DataError, Dataset
from overparam.specs.known_data import PUBLISHED, Moments

Raw = dict[str, Array]
Labels = NDArray[np.int64]


def dataset(name: str, raw: Raw, notes: Iterable[str] = ()) -> Dataset:
    """Check shapes, types and labels, count labels from 0, and add the normalization constants.

    Raises:
        DataError: a part is empty, lengths or shapes disagree, or the labels are not K numbers in a row from 0 or 1.
    """
    for part in ("train", "test"):
        _check_part(name, part, raw[f"{part}_x"], raw[f"{part}_y"])
    _check_alike(name, raw["train_x"], raw["test_x"])
    labels = [raw[f"{part}_y"].astype(np.int64) for part in ("train", "test")]
    (train_y, test_y), moved = _from_zero(*labels)
    num_classes = int(max(train_y.max(), test_y.max())) + 1
    absent = np.setdiff1d(np.arange(num_classes), train_y)
    if len(absent):
        raise DataError(f"{name}: class {absent[0]} of 0 … {num_classes - 1} has no training example; check the labels")
    mean, std = _normalization(name, raw["train_x"])
    return Dataset(
        name=name,
        train_x=np.ascontiguousarray(raw["train_x"]),
        train_y=train_y,
        test_x=np.ascontiguousarray(raw["test_x"]),
        test_y=test_y,
        num_classes=num_classes,
        mean=mean,
        std=std,
        notes=tuple(dict.fromkeys((*notes, *moved))),
    )


def _from_zero(train_y: Labels, test_y: Labels) -> tuple[tuple[Labels, Labels], list[str]]:
    """Labels 1 … K, as published for EMNIST's letters, become 0 … K − 1; a note says so."""
    classes = np.unique(train_y)
    if classes[0] != 1 or classes[-1] != len(classes) or test_y.min() < 1:
        return (train_y, test_y), []
    note = f"The labels 1 … {len(classes)} of the files are counted from 0, so that each is less by one."
    return (train_y - 1, test_y - 1), [note]


def _check_alike(name: str, train_x: Array, test_x: Array) -> None:
    for what, train, test in (("shape", train_x.shape[1:], test_x.shape[1:]), ("type", train_x.dtype, test_x.dtype)):
        if train != test:
            raise DataError(f"{name}: train inputs have {what} {train} but test inputs {test}; they must agree")


def _check_part(name: str, part: str, x: Array, y: Array) -> None:
    if len(x) == 0:
        raise DataError(f"{name}: the {part} part is empty")
    if len(x) != len(y):
        raise DataError(f"{name}: {len(x)} {part} inputs but {len(y)} labels; one label per input is needed")
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise DataError(
            f"{name}: {part} labels are {y.dtype} of shape {y.shape}; whole numbers of shape (N,) are needed"
        )
    if y.min() < 0 or y.max() >= 10_000:
        bad = int(y.min()) if y.min() < 0 else int(y.max())
        raise DataError(f"{name}: {part} label {bad} is out of range; labels count from 0 to K − 1")
    if not (x.dtype == np.uint8 and x.ndim == 4) and not (x.dtype == np.float32 and x.ndim in (2, 4)):
        raise DataError(
            f"{name}: {part} inputs are {x.dtype} of shape {x.shape}; images are uint8 or float32 (N, C, H, W), "
            "signals float32 (N, L)"
        )
    if x.dtype == np.float32 and (bad := int(np.count_nonzero(~np.isfinite(x)))):
        raise DataError(
            f"{name}: {bad:,} values of the {part} inputs are NaN or infinite as float32; all must be finite: mend or "
            "leave out their examples"
        )


def _normalization(name: str, x: Array) -> Moments:
    """The published constants if they fit: a folder of that name may hold signals, floats, or other channels."""
    published = PUBLISHED.get(name)
    if published is None or x.ndim != 4 or x.dtype != np.uint8 or x.shape[1] != len(published[0]):
        return _moments(x)
    return published


def _moments(x: Array) -> Moments:
    """Mean and standard deviation per channel, of bytes as parts of 255; signals are left as they are."""
    if x.ndim == 2:
        return (0.0,), (1.0,)
    values = x.astype(np.float64) / (255.0 if x.dtype == np.uint8 else 1.0)
    mean, std = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())

"""From raw arrays to a `Dataset`: what every reader's result must satisfy."""

import numpy as np

from overparam.data.types import Array, DataError, Dataset
from overparam.specs.known_data import PUBLISHED, Moments

Raw = dict[str, Array]


def dataset(name: str, raw: Raw) -> Dataset:
    """Check shapes, types and labels, and add the normalization constants.

    Raises:
        DataError: a part is empty, lengths or shapes disagree, or a label is not in 0 … K − 1.
    """
    for part in ("train", "test"):
        _check_part(name, part, raw[f"{part}_x"], raw[f"{part}_y"])
    if raw["train_x"].shape[1:] != raw["test_x"].shape[1:]:
        shapes = raw["train_x"].shape[1:], raw["test_x"].shape[1:]
        raise DataError(f"{name}: train inputs have shape {shapes[0]} but test inputs {shapes[1]}; they must agree")
    labels = np.concatenate([raw["train_y"], raw["test_y"]]).astype(np.int64)
    num_classes = int(labels.max()) + 1
    absent = np.setdiff1d(np.arange(num_classes), raw["train_y"])
    if len(absent):
        raise DataError(f"{name}: class {absent[0]} of 0 … {num_classes - 1} has no training example; check the labels")
    mean, std = _normalization(name, raw["train_x"])
    arrays = {key: np.ascontiguousarray(value) for key, value in raw.items()}
    return Dataset(
        name=name,
        train_x=arrays["train_x"],
        train_y=arrays["train_y"].astype(np.int64),
        test_x=arrays["test_x"],
        test_y=arrays["test_y"].astype(np.int64),
        num_classes=num_classes,
        mean=mean,
        std=std,
    )


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
    if not (x.dtype == np.uint8 and x.ndim == 4) and not (x.dtype == np.float32 and x.ndim == 2):
        raise DataError(
            f"{name}: {part} inputs are {x.dtype} of shape {x.shape}; images are uint8 (N, C, H, W), "
            "signals float32 (N, L)"
        )
    if x.dtype == np.float32 and (bad := int(np.count_nonzero(~np.isfinite(x)))):
        raise DataError(
            f"{name}: {bad:,} values of the {part} inputs are NaN or infinite as float32; all must be finite: mend or "
            "leave out their examples"
        )


def _normalization(name: str, x: Array) -> Moments:
    """The published constants if they fit: a folder of that name may hold signals, or images of other channels."""
    published = PUBLISHED.get(name)
    if published is None or x.ndim != 4 or x.shape[1] != len(published[0]):
        return _moments(x)
    return published


def _moments(x: Array) -> Moments:
    """Mean and standard deviation per channel of images in [0, 1]; signals are left as they are."""
    if x.ndim == 2:
        return (0.0,), (1.0,)
    values = x.astype(np.float64) / 255.0
    mean, std = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())

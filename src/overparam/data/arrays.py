"""Arrays in an .npz file: x_train, y_train, x_test, y_test (or train_x, …)."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from overparam.data.types import Array, DataError


def read_npz(file: Path) -> dict[str, Array]:
    """Images as uint8 (N, H, W), (N, H, W, C) or (N, C, H, W); signals as floats (N, L); labels as whole numbers.

    Raises:
        DataError: the file is damaged, holds objects, or lacks an array.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            found = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file} cannot be read as .npz without pickled objects ({error})") from None
    return {f"{part}_{axis}": _part(file, found, part, axis) for part in ("train", "test") for axis in "xy"}


def _part(file: Path, found: dict[str, Array], part: str, axis: str) -> Array:
    names = (f"{axis}_{part}", f"{part}_{axis}")
    name = next((name for name in names if name in found), None)
    if name is None:
        raise DataError(f"{file} has the arrays {', '.join(sorted(found))}; it needs {names[0]} (or {names[1]})")
    return _inputs(found[name]) if axis == "x" else _labels(file, name, found[name])


def _labels(file: Path, name: str, y: Array) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{file}: {name} has shape {y.shape}; labels are whole numbers of shape (N,), not one-hot rows")
    return y


def _inputs(x: Array) -> Array:
    if x.ndim == 2:
        return x.astype(np.float32)
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x

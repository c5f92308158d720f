"""Arrays in an .npz file: x_train, y_train, x_test, y_test (or train_x, …)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from overparam.data.types import Array, DataError, first_line, unreadable


def read_npz(file: Path) -> dict[str, Array]:
    """Images as uint8 (N, H, W), (N, H, W, C) or (N, C, H, W); signals as floats (N, L); labels as whole numbers.

    Raises:
        DataError: the file is damaged, holds objects, or lacks an array.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            return {f"{part}_{axis}": _part(file, content, part, axis) for part in ("train", "test") for axis in "xy"}
    except DataError:
        raise
    except PermissionError as error:
        raise unreadable(file, error) from None
    except Exception as error:  # what numpy and zipfile raise on a damaged or encrypted archive is no closed list
        raise DataError(f"{file} cannot be read as .npz without pickled objects ({first_line(error)})") from None


def _part(file: Path, content: Mapping[str, Array], part: str, axis: str) -> Array:
    """One array of the archive; those that nothing asks for are never read."""
    names = (f"{axis}_{part}", f"{part}_{axis}")
    name = next((name for name in names if name in content), None)
    if name is None:
        raise DataError(f"{file} has the arrays {', '.join(sorted(content))}; it needs {names[0]} (or {names[1]})")
    array = content[name]
    if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is no array
        raise DataError(f"{file}: {name} is no numpy array; write the file with numpy.savez")
    return _inputs(file, name, array) if axis == "x" else _labels(file, name, array)


def _labels(file: Path, name: str, y: Array) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{file}: {name} has shape {y.shape}; labels are whole numbers of shape (N,), not one-hot rows")
    return y


def _inputs(file: Path, name: str, x: Array) -> Array:
    if x.ndim == 2:
        return _signals(file, name, x)
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x


def _signals(file: Path, name: str, x: Array) -> Array:
    """Signals as float32. Whole numbers are most likely the pixels of flattened images, which nothing would scale."""
    if not np.issubdtype(x.dtype, np.floating):
        raise DataError(
            f"{file}: {name} is {x.dtype} of shape {x.shape}, but signals (N, L) are floats; reshape flattened "
            "images to (N, H, W) or (N, C, H, W), or store signals as float32"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which the check of values refuses
        return x.astype(np.float32)

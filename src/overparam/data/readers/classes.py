"""Labels in an array of any usual form → classes (N,)."""

from pathlib import Path

import numpy as np

from overparam.data.types import Array, DataError, Say

PIECE = 2**16  # rows that are looked at together


def classes_of(file: Path, arrays: dict[str, tuple[str, Array]], say: Say) -> dict[str, Array]:
    """Classes as they are, of one column, true or false as 1 and 0, or the place of the one of exact one-hot rows.

    Raises:
        DataError: an array has another shape, or rows that are not exactly one-hot.
    """
    return {key: _classes(file, name, y, say) for key, (name, y) in arrays.items()}


def _classes(file: Path, name: str, y: Array, say: Say) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and _is_one_hot(y):
        say(f"The one-hot rows of {name} are taken as classes.")
        return np.asarray(y.argmax(axis=1))
    if y.ndim != 1:
        raise DataError(
            f"{file}: {name} has shape {y.shape}; labels are whole numbers of shape (N,), or rows that are exactly "
            "one-hot: a one, and zeros elsewhere"
        )
    if y.dtype == np.bool_:
        say(f"False and true of {name} are the classes 0 and 1.")
        return y.astype(np.int64)
    return y


def _is_one_hot(y: Array) -> bool:
    if y.dtype.kind not in "biuf":
        return False
    pieces = (y[start : start + PIECE] for start in range(0, len(y), PIECE))
    return all(_ones_in_rows(rows) for rows in pieces)


def _ones_in_rows(rows: Array) -> bool:
    ones = rows == 1
    return bool((ones | (rows == 0)).all() and (ones.sum(axis=1) == 1).all())

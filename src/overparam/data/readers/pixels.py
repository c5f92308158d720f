"""Arrays of images in any usual form → (N, C, H, W), as bytes where that changes no pixel."""

from pathlib import Path

import numpy as np

from overparam.data.pieces import pieces
from overparam.data.reading import FILE
from overparam.data.types import Array, DataError, Say

CHANNELS = (1, 3)
ROUNDING = (
    4 * 2.0**-23
)  # as a part of a pixel: float32 rounds a few times in k / 255, also where it is stored as float64

Named = dict[str, tuple[str, Array]]  # the arrays of "train_x" and "test_x" with the names that their file gives them


def images_of(file: Path, named: Named, channels: str | None, say: Say) -> dict[str, Array]:
    """Images of all parts, given with the names of their arrays.

    Raises:
        DataError: an array has no axes of images, leaves open which axis is that of channels, or holds no pixels.
    """
    placed = {key: _channels_first(file, name, x, channels) for key, (name, x) in named.items()}
    _check_types(file, named)
    found = _as_bytes(placed, say)
    for key, (name, x) in named.items():
        if x.ndim == 3 and found[key].dtype == np.float32 and not np.isnan(x).all():
            _check_grey(file, name, x)
    if channels is None:
        _say_axes(named["train_x"][1], found["train_x"], say)
    return {key: np.ascontiguousarray(x) for key, x in found.items()}


def _channels_first(file: Path, name: str, x: Array, channels: str | None) -> Array:
    """Where the channels are is never guessed: an axis of 1 or 3 tells it, if only one is."""
    if x.ndim == 3 and channels is None:
        return _grey(file, name, x)
    if x.ndim != 4:
        axes = "has no axis of channels" if x.ndim == 3 else "is neither images nor signals"
        raise DataError(
            f"{file}: {name} of shape {x.shape} {axes}; images are (N, H, W), (N, C, H, W) or (N, H, W, C), signals "
            "(N, L), and channels is said of images with four axes only"
        )
    first, last = x.shape[1] in CHANNELS, x.shape[3] in CHANNELS
    if channels is None and first == last:
        raise DataError(
            f"{file}: {name} of shape {x.shape} may be (N, C, H, W) or (N, H, W, C); say which, with --channels first "
            f'or last of `overparam data add`, or as {{"channels": "first"}} or "last" in the file {FILE} beside it'
        )
    return x.transpose(0, 3, 1, 2) if (channels == "last" if channels else last) else x


def _grey(file: Path, name: str, x: Array) -> Array:
    if any(size in CHANNELS for size in x.shape[1:]):
        raise DataError(
            f"{file}: {name} of shape {x.shape} may be grey images, one image of {x.shape[1]}×{x.shape[2]} an example, "
            "or signals of several channels, which cannot be read; reshape grey images to (N, 1, H, W), and signals "
            "of one channel to (N, L)"
        )
    return x[:, None]


def _check_types(file: Path, named: Named) -> None:
    """Floats, or whole numbers that are bytes; both parts alike, because their scales need not be one."""
    for name, x in named.values():
        if x.dtype.kind not in "fiu":
            raise DataError(
                f"{file}: {name} is {x.dtype}; images are floats, or whole numbers from 0 to 255: convert it with "
                "x.astype(numpy.float32)"
            )
        if x.dtype.kind in "iu" and not _all_whole(x, 1):
            raise DataError(
                f"{file}: {name} is {x.dtype} with values from {x.min()} to {x.max()}; whole numbers must be from 0 to "
                "255: images on another scale are floats, of x.astype(numpy.float32)"
            )
    (_, train), (_, test) = named["train_x"], named["test_x"]
    if (train.dtype.kind == "f") != (test.dtype.kind == "f"):
        raise DataError(
            f"{file}: train inputs have type {train.dtype} but test inputs {test.dtype}; they must agree: store both "
            "as bytes, or both as floats on one scale"
        )


def _as_bytes(parts: dict[str, Array], say: Say) -> dict[str, Array]:
    """Whole numbers, and floats that are 255ths, as bytes; other floats stay floats.

    All parts are changed in the same way or not at all.
    """
    if all(x.dtype == np.uint8 for x in parts.values()):
        return parts
    if all(x.dtype.kind in "iu" for x in parts.values()):
        say("Its images are whole numbers from 0 to 255, and kept as bytes.")
        return {key: x.astype(np.uint8) for key, x in parts.items()}
    for scale, what in ((255, "255ths from 0 to 1"), (1, "whole numbers from 0 to 255")):
        if all(_all_whole(x, scale) for x in parts.values()):
            say(f"Its images are {what}, stored as floats; they are kept as bytes, without loss.")
            return {key: _scaled(x, scale) for key, x in parts.items()}
    say("Its images are floats other than 255ths; they are kept as float32, on the scale they have.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which the check of values refuses
        return {key: x.astype(np.float32) for key, x in parts.items()}


def _all_whole(x: Array, scale: int) -> bool:
    """Whether `scale` times each value is a whole number from 0 to 255; nothing that is not finite is."""
    return all(_is_whole(piece, scale) for piece in pieces(x))


def _is_whole(x: Array, scale: int) -> bool:
    """Up to rounding, which is a part of the number, so that no small value is taken for zero."""
    rounding = max(ROUNDING, float(np.finfo(x.dtype.name).eps)) if x.dtype.kind == "f" else 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        values = x.astype(np.float64) * scale
        whole = np.rint(values)
        return bool(((whole >= 0) & (whole <= 255) & (np.abs(values - whole) <= rounding * whole)).all())


def _scaled(x: Array, scale: int) -> Array:
    found = np.empty(x.shape, dtype=np.uint8)
    for source, target in zip(pieces(x), pieces(found), strict=True):
        target[...] = np.rint(source.astype(np.float64) * scale)
    return found


def _check_grey(file: Path, name: str, x: Array) -> None:
    """Floats with three axes are grey images in [0, 1]; others may be signals of several channels, or spectra."""
    low, high = (float(bound(x)) for bound in (np.nanmin, np.nanmax))
    if low < 0 or high > 1:
        raise DataError(
            f"{file}: {name} of shape {x.shape} has floats from {low} to {high}; with three axes, floats from 0 to 1 "
            "and whole numbers from 0 to 255 are grey images, but others may be signals of several channels, which "
            "cannot be read: reshape images to (N, 1, H, W)"
        )


def _say_axes(x: Array, found: Array, say: Say) -> None:
    """How axes were read is said of all but bytes: numbers of other types need not be pixels."""
    channels, height, width = found.shape[1:]
    if x.dtype == np.uint8:
        return
    if x.ndim == 3:
        say(f"Its arrays are read as (N, H, W), grey images of {height}×{width}.")
    else:
        axes = "(N, C, H, W)" if x.shape[1:] == found.shape[1:] else "(N, H, W, C)"
        say(f"Its arrays are read as {axes}, images of {height}×{width} with C = {channels}.")

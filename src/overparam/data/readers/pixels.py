"""Arrays of images in any usual form → (N, C, H, W), as bytes where that changes no pixel."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from overparam.data.reading import FILE
from overparam.data.types import Array, DataError, Say

CHANNELS = (1, 3)
PIECE = 2**22  # values that are looked at together
WHOLE = 1e-3  # how far from a whole number a pixel may be: float32 rounds 255 · (k / 255)


def images_of(file: Path, named: dict[str, tuple[str, Array]], channels: str | None, say: Say) -> dict[str, Array]:
    """Images of all parts, given with the names of their arrays.

    Raises:
        DataError: an array has no axes of images, or leaves open which axis is that of channels.
    """
    placed = {key: _channels_first(file, name, x, channels) for key, (name, x) in named.items()}
    found = _as_bytes(placed, say)
    for key, (name, x) in named.items():
        if x.ndim == 3 and found[key].dtype == np.float32 and not np.isnan(x).all():
            _check_grey(file, name, x)
    return {key: np.ascontiguousarray(x) for key, x in found.items()}


def _channels_first(file: Path, name: str, x: Array, channels: str | None) -> Array:
    """Where the channels are is never guessed: an axis of 1 or 3 tells it, if only one is."""
    if x.ndim == 3 and channels is None:
        return x[:, None]
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


def _as_bytes(parts: dict[str, Array], say: Say) -> dict[str, Array]:
    """Whole numbers from 0 to 255, and floats that are 255ths, as bytes; other floats stay floats.

    All parts are changed in the same way or not at all.
    """
    kinds = {x.dtype.kind if x.dtype != np.uint8 else "bytes" for x in parts.values()}
    if kinds <= {"i", "u"} and all(_all_whole(x, 1) for x in parts.values()):
        say("Its images are whole numbers from 0 to 255, and kept as bytes.")
        return {key: x.astype(np.uint8) for key, x in parts.items()}
    if kinds != {"f"}:
        return parts
    for scale, what in ((255, "255ths from 0 to 1"), (1, "whole numbers from 0 to 255")):
        if all(_all_whole(x, scale) for x in parts.values()):
            say(f"Its images are {what}, stored as floats; they are kept as bytes, without loss.")
            return {key: _scaled(x, scale) for key, x in parts.items()}
    say("Its images are floats other than 255ths; they are kept as float32, on the scale they have.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which the check of values refuses
        return {key: x.astype(np.float32) for key, x in parts.items()}


def _pieces(x: Array) -> Iterator[Array]:
    rows = max(1, PIECE // max(1, math.prod(x.shape[1:])))
    return (x[start : start + rows] for start in range(0, len(x), rows))


def _all_whole(x: Array, scale: int) -> bool:
    """Whether `scale` times each value is a whole number from 0 to 255; nothing that is not finite is."""
    return all(_is_whole(piece, scale) for piece in _pieces(x))


def _is_whole(x: Array, scale: int) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        values = x.astype(np.float64) * scale
        within = (values >= -WHOLE) & (values <= 255 + WHOLE)
        return bool((within & (np.abs(values - np.rint(values)) <= WHOLE)).all())


def _scaled(x: Array, scale: int) -> Array:
    found = np.empty(x.shape, dtype=np.uint8)
    for source, target in zip(_pieces(x), _pieces(found), strict=True):
        target[...] = np.rint(source.astype(np.float64) * scale)
    return found


def _check_grey(file: Path, name: str, x: Array) -> None:
    """Floats with three axes are grey images in [0, 1]; others may be signals of several channels, or spectra."""
    low, high = (float(bound(x)) for bound in (np.nanmin, np.nanmax))
    if low < 0 or high > 1:
        raise DataError(
            f"{file}: {name} of shape {x.shape} has values from {low:g} to {high:g}, which are no pixels; signals are "
            "(N, L), and images with values of their own have four axes: reshape to (N, 1, H, W)"
        )

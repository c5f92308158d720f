"""An image folder: train/<class>/* and test/<class>/*; classes are numbered in the order of their names."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from overparam.data.readers.parquet import decode_images
from overparam.data.types import Array, DataError, unreadable
from overparam.foundations.numpy_generators import numpy_generator

PARTS = ("train", "test")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
UNREAD = {".tif", ".tiff", ".gif", ".jfif", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".avif", ".heic", ".npy"}


def image_files(folder: Path) -> list[Path]:
    """All images of the folder, sorted."""
    return sorted(file for file in _entries(folder) if file.suffix.lower() in SUFFIXES)


def read_folder(folder: Path) -> dict[str, Array]:
    """Decode both parts, each in a fixed order that mixes the classes.

    Raises:
        DataError: the parts have different classes, an image cannot be read, or a file is of a kind that is not read.
    """
    classes = {part: _classes(folder / part) for part in PARTS}
    if unknown := sorted(set(classes["test"]) - set(classes["train"])):
        raise DataError(f"{folder}: test class {unknown[0]!r} has no training folder; both parts need the same classes")
    _check_suffixes(folder)
    images = image_files(folder)
    raw: dict[str, Array] = {}
    for part in PARTS:
        files = _mixed(part, [file for file in images if file.parent.parent.name == part])
        raw[f"{part}_x"] = decode_images(((str(file), _content(file)) for file in files), folder / part)
        raw[f"{part}_y"] = np.array([classes["train"].index(file.parent.name) for file in files], dtype=np.int64)
    return raw


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in the folders of classes; names that start with a dot (.ipynb_checkpoints, ._x.png) are no data."""
    found = (entry for part in PARTS for entry in (folder / part).glob("*/*"))
    return (entry for entry in found if not entry.name.startswith(".") and not entry.parent.name.startswith("."))


def _classes(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _check_suffixes(folder: Path) -> None:
    """An image that is left out in silence would change what is trained on."""
    if others := sorted(entry for entry in _entries(folder) if entry.suffix.lower() in UNREAD):
        raise DataError(
            f'{others[0]} cannot be read: its suffix is "{others[0].suffix}"; images end in '
            f"{', '.join(sorted(SUFFIXES))}: convert it or take it out"
        )


def _mixed(part: str, files: list[Path]) -> list[Path]:
    """Files in an order of their own: the first of the sorted ones would all be of one class."""
    return [files[index] for index in numpy_generator(0, "folder", part).permutation(len(files))]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from None

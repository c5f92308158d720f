"""An image folder: train/<class>/* and test/<class>/*; classes are numbered in the order of their names."""

from pathlib import Path

import numpy as np

from overparam.data.parquet import decode_image, stack_images
from overparam.data.types import Array, DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def image_files(folder: Path) -> list[Path]:
    """All images of the folder, sorted."""
    return sorted(file for file in folder.glob("*/*/*") if file.suffix.lower() in SUFFIXES)


def read_folder(folder: Path) -> dict[str, Array]:
    """Decode both parts.

    Raises:
        DataError: the parts have different classes, or an image cannot be read.
    """
    classes = {part: sorted(d.name for d in (folder / part).iterdir() if d.is_dir()) for part in ("train", "test")}
    if unknown := sorted(set(classes["test"]) - set(classes["train"])):
        raise DataError(f"{folder}: test class {unknown[0]!r} has no training folder; both parts need the same classes")
    raw: dict[str, Array] = {}
    for part in ("train", "test"):
        files = [file for file in image_files(folder) if file.parent.parent.name == part]
        raw[f"{part}_x"] = stack_images([decode_image(f.read_bytes(), str(f)) for f in files], folder / part)
        raw[f"{part}_y"] = np.array([classes["train"].index(f.parent.name) for f in files], dtype=np.int64)
    return raw

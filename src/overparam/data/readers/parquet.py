"""Parquet files in Hugging Face layout: an image column struct{bytes, path} and a label column."""

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from overparam.data.types import Array, DataError, first_line, unreadable

if TYPE_CHECKING:
    import polars as pl

IMAGE_COLUMNS = ("image", "img")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


def read_parquet(parts: dict[str, Sequence[Path]]) -> dict[str, Array]:
    """Decode the shards of "train" and "test" into uint8 images (N, C, H, W) and labels.

    Raises:
        DataError: a file is truncated, lacks a column, or its images differ in size.
    """
    raw: dict[str, Array] = {}
    for part, files in parts.items():
        _all_shards(part, files)
        tables = [_read(file) for file in files]
        rows = (
            (f"{file}, row {row}", content)
            for file, table in zip(files, tables, strict=True)
            for row, content in enumerate(table["bytes"])
        )
        raw[f"{part}_x"] = decode_images(rows, files[0].parent)
        raw[f"{part}_y"] = np.concatenate([table["label"].to_numpy() for table in tables])
    return raw


def _all_shards(part: str, files: Sequence[Path]) -> None:
    """A shard says how many there are: `train-00000-of-00005.parquet`."""
    promised = {int(match[1]) for file in files if (match := re.search(r"-of-(\d+)(-\w+)?\.parquet$", file.name))}
    if promised and promised != {len(files)}:
        raise DataError(
            f"{files[0].parent} has {len(files)} {part} shards, but their names promise {max(promised)}: get the others"
        )


def _read(file: Path, rows: int | None = None) -> "pl.DataFrame":
    import polars as pl  # planning runs on embedded data needs none

    try:
        table = pl.read_parquet(file, n_rows=rows)
    except PermissionError as error:
        raise unreadable(file, error) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{file} cannot be read as Parquet ({first_line(error)}); it may be truncated: get it again"
        ) from None
    image = next((name for name in IMAGE_COLUMNS if name in table.columns), None)
    if image is None or "label" not in table.columns:
        have = ", ".join(table.columns)
        raise DataError(f"{file} has the columns {have}; it needs label and one of {', '.join(IMAGE_COLUMNS)}")
    kind = table[image].dtype
    if not isinstance(kind, pl.Struct) or "bytes" not in {field.name for field in kind.fields}:
        raise DataError(f"{file}: column {image} is {table[image].dtype}; a struct with the field bytes is needed")
    if table["label"].null_count() or not table["label"].dtype.is_integer():
        raise DataError(f"{file}: column label is {table['label'].dtype}; whole numbers without gaps are needed")
    return table.select(pl.col(image).struct.field("bytes").alias("bytes"), "label")


def is_jpeg(file: Path) -> bool:
    """Whether the first image of a Parquet shard, or an image file, is JPEG; false for other files."""
    if file.suffix != ".parquet":
        return file.suffix.lower() in (".jpg", ".jpeg")
    first = _read(file, rows=1)["bytes"]
    return len(first) == 1 and first[0] is not None and first[0].startswith(b"\xff\xd8")


def decode_images(images: Iterable[tuple[str, bytes | None]], where: Path) -> Array:
    """Named image files → uint8 (N, C, H, W), one channel for grey and three for colour.

    Raises:
        DataError: there are none, one cannot be read, or their sizes differ.
    """
    decoded: list[Array] = []
    for name, content in images:
        decoded.append(_decode(content, name, where, decoded[0].shape if decoded else None))
    if not decoded:
        raise DataError(f"{where} holds no images")
    return np.stack(decoded)


def _decode(content: bytes | None, name: str, where: Path, first: tuple[int, ...] | None) -> Array:
    """One image, looked at before its pixels are decoded: `first` is the shape that it must have."""
    try:
        with Image.open(io.BytesIO(content or b"")) as image:
            _check_mode(image.mode, name)
            _check_shape((1 if image.mode == "L" else 3, image.height, image.width), name, where, first)
            pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # no closed list: DecompressionBombError is of no other class, and formats add theirs
        raise DataError(f"{name} is not a readable image ({first_line(error)})") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_mode(mode: str, name: str) -> None:
    """Pillow clips what has more than eight bits to white, and says nothing."""
    if mode not in MODES:
        raise DataError(
            f'{name} has pixels of mode "{mode}"; allowed: {", ".join(MODES)}, with eight bits per channel or fewer: '
            "convert it"
        )


def _check_shape(shape: tuple[int, int, int], name: str, where: Path, first: tuple[int, ...] | None) -> None:
    if first is not None and shape != first:
        named = " and ".join(f"{c} channels {h}×{w}" for c, h, w in sorted([shape, first]))
        raise DataError(
            f"{where} mixes image sizes ({named}: {name} is not like the first one); all images of a data set must "
            "have one size"
        )

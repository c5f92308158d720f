"""Parquet files in Hugging Face layout: an image column struct{bytes, path} and a label column."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, UnidentifiedImageError

from overparam.data.types import Array, DataError

IMAGE_COLUMNS = ("image", "img")


def read_parquet(parts: dict[str, Sequence[Path]]) -> dict[str, Array]:
    """Decode the shards of "train" and "test" into uint8 images (N, C, H, W) and labels.

    Raises:
        DataError: a file is truncated, lacks a column, or its images differ in size.
    """
    raw: dict[str, Array] = {}
    for part, files in parts.items():
        _all_shards(part, files)
        tables = [_read(file) for file in files]
        raw[f"{part}_x"] = stack_images(
            [image for file, table in zip(files, tables, strict=True) for image in _decode(file, table)],
            files[0].parent,
        )
        raw[f"{part}_y"] = np.concatenate([table["label"].to_numpy() for table in tables])
    return raw


def _all_shards(part: str, files: Sequence[Path]) -> None:
    """A shard says how many there are: `train-00000-of-00005.parquet`."""
    promised = {int(match[1]) for file in files if (match := re.search(r"-of-(\d+)(-\w+)?\.parquet$", file.name))}
    if promised and promised != {len(files)}:
        raise DataError(
            f"{files[0].parent} has {len(files)} {part} shards, but their names promise {max(promised)}: get the others"
        )


def _read(file: Path, rows: int | None = None) -> pl.DataFrame:
    try:
        table = pl.read_parquet(file, n_rows=rows)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{file} cannot be read as Parquet ({_first_line(error)}); it may be truncated: get it again"
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


def _decode(file: Path, table: pl.DataFrame) -> list[Array]:
    return [decode_image(content, f"{file}, row {row}") for row, content in enumerate(table["bytes"])]


def decode_image(content: bytes | None, where: str) -> Array:
    """Image bytes → uint8 (C, H, W), one channel for grey and three for colour."""
    try:
        with Image.open(io.BytesIO(content or b"")) as image:
            pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{where} is not a readable image ({_first_line(error)})") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def is_jpeg(file: Path) -> bool:
    """Whether the first image of a Parquet shard, or an image file, is JPEG; false for other files."""
    if file.suffix != ".parquet":
        return file.suffix.lower() in (".jpg", ".jpeg")
    first = _read(file, rows=1)["bytes"]
    return len(first) == 1 and first[0] is not None and first[0].startswith(b"\xff\xd8")


def stack_images(images: list[Array], where: Path) -> Array:
    """Stack images of one size.

    Raises:
        DataError: there are none, or their sizes differ.
    """
    if not images:
        raise DataError(f"{where} holds no images")
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        named = " and ".join(f"{c} channels {h}×{w}" for c, h, w in sorted(shapes)[:2])
        raise DataError(f"{where} mixes image sizes ({named}); all images of a data set must have one size")
    return np.stack(images)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Parquet files in Hugging Face layout: an image column struct{bytes, path} and a label column."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overparam.data.readers.images import Named, decode_parts, file_content
from overparam.data.readers.splits import held_out
from overparam.data.reading import Reading
from overparam.data.types import Array, DataError, Say, Source, first_line, unreadable, unsaid

if TYPE_CHECKING:
    import polars as pl

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "coarse_label")

Shards = Mapping[str, Sequence[Path]]


def find_parquet(name: str, home: Path, reading: Reading) -> Source | None:
    """`{train,test}-*.parquet`, `train.parquet` or `train/0000.parquet`, in the folder or in `data/` below it."""
    return _find_in(name, home, reading) or _find_in(name, home / "data", reading)


def _find_in(name: str, place: Path, reading: Reading) -> Source | None:
    train, held = _shards(place, "train"), held_out(partial(_shards, place))
    if not train or held is None:
        return None
    split, notes = held
    shards = {"train": train, "test": _shards(place, split)}
    files = (*train, *shards["test"])
    beside = (image for file in files for image in _images_beside(file))
    read = partial(read_parquet, shards, reading)
    return Source(name, "Parquet", (*files, *beside), read, notes, takes=frozenset({"labels"}))


def _shards(place: Path, split: str) -> tuple[Path, ...]:
    """The files of a split, which have one of three forms of names."""
    forms = (f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet")
    found = [[file for file in sorted(place.glob(each)) if not file.name.startswith(".")] for each in forms]
    used = [files for files in found if files]
    if len(used) > 1:
        first, second = (files[0].relative_to(place) for files in used[:2])
        raise DataError(f"{place} has the split {split} twice, as {first} and as {second}; take one of them out")
    return tuple(used[0]) if used else ()


def read_parquet(parts: Shards, reading: Reading | None = None, say: Say = unsaid) -> dict[str, Array]:
    """Decode the shards of "train" and "test" into uint8 images (N, C, H, W) and labels.

    Raises:
        DataError: a file is truncated, lacks a column, or its images differ in size.
    """
    tables = {part: _tables(part, files, reading or Reading(), say) for part, files in parts.items()}
    images = {part: _images(files, tables[part]) for part, files in parts.items()}
    x = decode_parts(images, {part: files[0].parent for part, files in parts.items()}, say)
    y = {part: np.concatenate([table["label"].to_numpy() for table in tables[part]]) for part in parts}
    return {f"{part}_x": x[part] for part in parts} | {f"{part}_y": y[part] for part in parts}


def _tables(part: str, files: Sequence[Path], reading: Reading, say: Say) -> list["pl.DataFrame"]:
    """Each shard. A shard says how many there are: `train-00000-of-00005.parquet`."""
    promised = {int(match[1]) for file in files if (match := re.search(r"-of-(\d+)(-\w+)?\.parquet$", file.name))}
    if promised and promised != {len(files)}:
        raise DataError(
            f"{files[0].parent} has {len(files)} {part} shards, but their names promise {max(promised)}: get the others"
        )
    return [_table(file, reading, say) for file in files]


def _table(file: Path, reading: Reading, say: Say) -> "pl.DataFrame":
    """The columns bytes, path and label of a shard; others are not read."""
    columns = _columns(file)
    image, label = _image_column(file, columns), _label_column(file, columns, reading, say)
    if not columns[label].is_integer() or (table := _read(file, [image, label]))[label].null_count():
        raise DataError(f"{file}: column {label} is {columns[label]}; whole numbers without gaps are needed")
    return _image_fields(table, image, [label]).rename({label: "label"})


def _columns(file: Path) -> "dict[str, pl.DataType]":
    import polars as pl  # planning runs on embedded data needs none

    with _in_words(file):
        return dict(pl.read_parquet_schema(file))


def _read(file: Path, columns: list[str], rows: int | None = None) -> "pl.DataFrame":
    import polars as pl

    with _in_words(file):
        return pl.read_parquet(file, columns=columns, n_rows=rows)


@contextmanager
def _in_words(file: Path) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except PermissionError as error:
        raise unreadable(file, error) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{file} cannot be read as Parquet ({first_line(error)}); it may be truncated: get it again"
        ) from None


def _image_column(file: Path, columns: "Mapping[str, pl.DataType]") -> str:
    import polars as pl

    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    if image is None:
        raise _lacking(file, columns)
    kind = columns[image]
    if not isinstance(kind, pl.Struct) or not {"bytes", "path"} & {field.name for field in kind.fields}:
        raise DataError(f"{file}: column {image} is {kind}; a struct with the field bytes is needed")
    return image


def _label_column(file: Path, columns: "Mapping[str, pl.DataType]", reading: Reading, say: Say) -> str:
    """The column that is asked for, else the first there is; which one is said if there might be a doubt."""
    if reading.labels is not None:
        if reading.labels not in columns:
            raise DataError(f'{file} has the columns {", ".join(columns)}; labels="{reading.labels}" is none of them')
        return reading.labels
    there = [name for name in LABEL_COLUMNS if name in columns]
    if not there:
        raise _lacking(file, columns)
    if there[1:]:
        say(f'Its labels are the column "{there[0]}", not "{there[1]}"; labels="{there[1]}" takes that one.')
    elif there[0] == "coarse_label":
        say('Its labels are the column "coarse_label".')
    return there[0]


def _lacking(file: Path, columns: "Mapping[str, pl.DataType]") -> DataError:
    return DataError(
        f"{file} has the columns {', '.join(columns)}; it needs label and one of {', '.join(IMAGE_COLUMNS)}"
    )


def _image_fields(table: "pl.DataFrame", image: str, others: Sequence[str] = ()) -> "pl.DataFrame":
    """The fields bytes and path of an image column as columns; one that is absent is empty."""
    import polars as pl

    kind = table.schema[image]
    there = {field.name for field in kind.fields} if isinstance(kind, pl.Struct) else set()
    fields = (pl.col(image).struct.field(name) if name in there else pl.lit(None) for name in ("bytes", "path"))
    return table.select(*(field.alias(name) for field, name in zip(fields, ("bytes", "path"), strict=True)), *others)


def _images(files: Sequence[Path], tables: Sequence["pl.DataFrame"]) -> Iterator[Named]:
    for file, table in zip(files, tables, strict=True):
        rows = table.select("bytes", "path")
        beside = len(rows) > 0 and rows["bytes"][0] is None
        for row, (content, path) in enumerate(rows.iter_rows()):
            yield f"{file}, row {row}", _content(file, row, path, beside) if content is None else content


def _content(file: Path, row: int, path: str | None, beside: bool) -> bytes:
    """The image that a row without bytes names by its path, in a shard whose images are `beside` it."""
    if not path:
        raise DataError(f"{file}, row {row} holds no image: neither bytes nor a path")
    if not beside:  # such a shard is not searched for paths each time that a change of its files is looked for
        raise DataError(
            f'{file}, row {row} holds no bytes, only the path "{path}", but row 0 holds bytes; write the content of '
            "all images into the field bytes, or of none"
        )
    image = _beside(file, path)
    if image is None:
        raise DataError(
            f'{file}, row {row} holds no bytes, only the path "{path}", and no such file is beside {file.name}: put '
            "the images there, or write their content into the field bytes"
        )
    return file_content(image)


def _beside(file: Path, path: str) -> Path | None:
    """An image in the folder of a Parquet file or below it; a path that leads out of there is no part of the data."""
    inner = Path(path)
    if inner.anchor or ".." in inner.parts:
        return None
    try:
        return file.parent / inner if (file.parent / inner).is_file() else None
    except (OSError, ValueError):  # a path may be anything, also too long or with a null byte
        return None


def _images_beside(file: Path) -> Iterator[Path]:
    """Images that the rows of a shard only name, of those that are there."""
    stat = file.stat()
    return (found for path in _paths_alone(file, stat.st_size, stat.st_mtime_ns) if (found := _beside(file, path)))


@lru_cache(maxsize=256)  # files are looked for often, and this opens one
def _paths_alone(file: Path, size: int, modified: int) -> tuple[str, ...]:
    """Paths of the rows without bytes, in a shard whose first row has none."""
    try:
        image = _image_column(file, _columns(file))
        first = _image_fields(_read(file, [image], rows=1), image)["bytes"]
        if len(first) == 0 or first[0] is not None:
            return ()
        fields = _image_fields(_read(file, [image]), image)
        return tuple(fields.filter(fields["bytes"].is_null())["path"].drop_nulls().unique(maintain_order=True))
    except DataError:
        return ()  # what is wrong is said where the file is decoded

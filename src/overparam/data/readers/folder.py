"""An image folder: train/<class>/* and test/<class>/*. Classes are numbered in the order of their names."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from overparam.data.readers.images import decode_parts, file_content
from overparam.data.readers.splits import held_out
from overparam.data.reading import Reading
from overparam.data.types import Array, DataError, Say, Source, unreadable, unsaid
from overparam.foundations.numpy_generators import numpy_generator

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
LEFT_BY_OTHERS = {"thumbs.db", "desktop.ini", "icon\r", "__macosx"}  # by systems and archives; also all with a dot

Labelled = tuple[Path, str]  # an image file and the name of its class


def find_folder(name: str, home: Path, reading: Reading) -> Source | None:
    held = held_out(lambda split: (home / split).is_dir())
    if held is None or not (home / "train").is_dir():
        return None
    split, notes = held
    files = tuple(sorted(file for part in ("train", split) for file in visible_files(home / part)))
    return Source(name, "image folder", files, partial(read_folder, home, split), notes)


def read_folder(folder: Path, split: str = "test", say: Say = unsaid) -> dict[str, Array]:
    """Decode both parts, each in a fixed order that mixes the classes.

    Raises:
        DataError: the parts have different classes, an image cannot be read, or a file is none of a class's images.
    """
    parts = {"train": folder / "train", "test": folder / split}
    classes = {part: class_names(place) for part, place in parts.items()}
    if unknown := [name for name in classes["test"] if name not in set(classes["train"])]:
        raise DataError(f"{folder}: test class {unknown[0]!r} has no training folder; both parts need the same classes")
    images = {part: [_in_class(place, file) for file in sorted(visible_files(place))] for part, place in parts.items()}
    return read_labelled(parts, images, classes["train"], say)


def read_labelled(
    parts: dict[str, Path], images: dict[str, list[Labelled]], classes: list[str], say: Say
) -> dict[str, Array]:
    """Decode images with the names of their classes; the label of a class is its place in `classes`."""
    numbers = {name: number for number, name in enumerate(classes)}
    if classes != sorted(classes):
        say(f"Its classes are in the order of their numbers: {', '.join(classes[:3])} … {classes[-1]}.")
    mixed = {part: _mixed(part, found) for part, found in images.items()}
    contents = {part: ((str(file), file_content(file)) for file, _ in found) for part, found in mixed.items()}
    x = decode_parts(contents, parts, say)
    y = {part: np.array([numbers[name] for _, name in found], dtype=np.int64) for part, found in mixed.items()}
    return {f"{part}_x": x[part] for part in parts} | {f"{part}_y": y[part] for part in parts}


def class_names(part: Path) -> list[str]:
    """Names of the class folders: in the order of their numbers if all are whole numbers, else in that of texts."""
    found = sorted(entry.name for entry in part.iterdir() if entry.is_dir() and not _is_left(entry.name))
    return sorted(found, key=int) if all(name.isascii() and name.isdigit() for name in found) else found


def visible_files(part: Path) -> Iterator[Path]:
    """All files of a part, wherever they lie in it, but those that systems and archives leave."""
    for entry in part.iterdir():
        if _is_left(entry.name):
            continue
        if entry.is_dir():  # also one that is a link; links below it are not followed, because they may form a circle
            yield from _files_below(entry)
        else:
            yield entry


def _files_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not _is_left(name)]
        links = (name for name in folders if os.path.islink(os.path.join(place, name)))
        yield from (Path(place, name) for name in (*files, *links) if not _is_left(name))


def _refuse(error: OSError) -> None:
    raise unreadable(Path(error.filename), error)


def _is_left(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_BY_OTHERS


def _in_class(part: Path, file: Path) -> Labelled:
    """An image that was left out in silence would change what is trained on."""
    inner = file.relative_to(part).parts
    if len(inner) == 2:
        check_suffix(file)
        return file, inner[0]
    if len(inner) == 1:
        raise DataError(f"{file} lies in no class folder; put it into {part / 'CLASS'}, or take it out")
    raise DataError(
        f"{file} lies deeper than in its class folder {part / inner[0]}; move it up into that, or take it out"
    )


def check_suffix(file: Path) -> None:
    if file.suffix.lower() not in SUFFIXES:
        what = f'its suffix is "{file.suffix}"' if file.suffix else "its name has no suffix"
        raise DataError(
            f"{file} cannot be read: {what}; images end in {', '.join(sorted(SUFFIXES))}: convert it or take it out"
        )


def _mixed(part: str, found: list[Labelled]) -> list[Labelled]:
    """Images in an order of their own: the first of the sorted ones would all be of one class."""
    return [found[index] for index in numpy_generator(0, "folder", part).permutation(len(found))]

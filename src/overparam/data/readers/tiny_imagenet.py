"""Tiny-ImageNet as published: train/<class>/images/*, and val/images/* with val/val_annotations.txt."""

from functools import partial
from pathlib import Path

from overparam.data.readers.folder import Labelled, check_suffix, class_names, read_labelled, visible_files
from overparam.data.readers.images import file_content
from overparam.data.reading import Reading
from overparam.data.types import Array, DataError, Say, Source, unsaid

ANNOTATIONS = "val_annotations.txt"
NOTE = "Its images of val/ are the test part, labelled by val_annotations.txt; those of test/ have no labels."


def find_tiny_imagenet(name: str, home: Path, reading: Reading) -> Source | None:
    if not (home / "val" / ANNOTATIONS).is_file() or not (home / "train").is_dir():
        return None
    files = tuple(sorted(file for part in ("train", "val") for file in visible_files(home / part)))
    return Source(name, "Tiny-ImageNet", files, partial(read_tiny_imagenet, home), (NOTE,))


def read_tiny_imagenet(home: Path, say: Say = unsaid) -> dict[str, Array]:
    """Decode both parts, each in a fixed order that mixes the classes.

    Raises:
        DataError: an image has no annotation or a class that is not trained on, or a file is of none of these kinds.
    """
    parts = {"train": home / "train", "test": home / "val"}
    classes = class_names(parts["train"])
    images = {"train": _train(parts["train"]), "test": _val(parts["test"], set(classes))}
    return read_labelled(parts, images, classes, say)


def _train(part: Path) -> list[Labelled]:
    """Images with the folders that they lie in; the boxes of objects in them are not read."""
    found: list[Labelled] = []
    for file in sorted(visible_files(part)):
        inner = file.relative_to(part).parts
        if len(inner) == 3 and inner[1] == "images":
            check_suffix(file)
            found.append((file, inner[0]))
        elif not (len(inner) == 2 and file.name == f"{inner[0]}_boxes.txt"):
            place = part / "CLASS" / "images"
            raise DataError(f"{file} is not of Tiny-ImageNet, whose images lie in {place}; take it out")
    return found


def _val(part: Path, classes: set[str]) -> list[Labelled]:
    """Images with the classes that the annotations give them."""
    annotations = part / ANNOTATIONS
    lines = [line.split() for line in file_content(annotations).decode("utf-8", "replace").splitlines() if line.strip()]
    if short := next((line for line in lines if len(line) < 2), None):
        raise DataError(f'{annotations} has the line "{short[0]}"; each names an image and its class')
    named = {line[0]: line[1] for line in lines}
    found: list[Labelled] = []
    for file in sorted(each for each in visible_files(part) if each != annotations):
        check_suffix(file)
        if file.parent != part / "images" or file.name not in named:
            raise DataError(f"{file} has no annotation in {annotations}; its images lie in {part / 'images'}")
        if named[file.name] not in classes:
            raise DataError(f"{annotations}: class {named[file.name]!r} of {file.name} has no training folder")
        found.append((file, named[file.name]))
    return found

"""Files and directories that are there whole or not at all, whatever stops the process or the machine."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def synced(file: Path) -> Iterator[BinaryIO]:
    """A new file whose content is on the disk when the block ends."""
    with open(file, "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A draft of a file, to be written in the block; at its end it takes the file's place in one rename.

    No reader and no crash sees half of it, and after an error nothing is left of it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(file)
    try:
        yield draft
        _sync_file(draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)  # there is none after the rename
    sync_directory(file.parent)


def replace_bytes(file: Path, content: bytes) -> None:
    """Write a file in one rename."""
    with replaced(file) as draft:
        draft.write_bytes(content)


def replace_if_changed(file: Path, content: bytes) -> None:
    """As `replace_bytes`; a file that has exactly these bytes is left as it is, which spares waiting for the disk."""
    try:
        same = file.read_bytes() == content
    except OSError:
        same = False
    if not same:
        replace_bytes(file, content)


@contextmanager
def published(folder: Path, draft: Path | None = None) -> Iterator[Path]:
    """A draft of a directory, to be filled in the block; at its end it becomes `folder` in one rename.

    The files in it must be on the disk by then (`synced`). After an error nothing is left of it. That it is there
    outlasts a crash once the caller has brought the name to the disk: `sync_directory(folder.parent)`.

    Raises:
        OSError: `folder` is there already and not empty, or the disk is full.
    """
    draft = _draft_of(folder) if draft is None else draft
    try:
        draft.mkdir(parents=True)
        yield draft
        for each in (*filter(Path.is_dir, draft.rglob("*")), draft):
            sync_directory(each)
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # there is none after the rename


def sync_all(place: Path) -> None:
    """Bring to the disk what lies in a directory: everything at once, where the system can."""
    if hasattr(os, "sync"):
        os.sync()
        return
    for file in filter(Path.is_file, place.rglob("*")):
        _sync_file(file)


def _sync_file(file: Path) -> None:
    with file.open("r+b") as stream:  # Windows syncs only what may be written
        os.fsync(stream.fileno())


def sync_directory(directory: Path) -> None:
    """Bring the names in a directory to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _draft_of(place: Path) -> Path:
    """A name beside that nothing else has and that no reader looks at."""
    return place.with_name(f".{place.name}-{uuid.uuid4().hex}")

"""Files that are there whole or not at all."""

import os
import uuid
from pathlib import Path


def replace_bytes(file: Path, content: bytes) -> None:
    """Write a file in one rename, so that no reader and no crash sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    try:
        _write_bytes(draft, content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)  # there is none after the rename
    _sync_directory(file.parent)


def replace_if_changed(file: Path, content: bytes) -> None:
    """As `replace_bytes`; a file that has exactly these bytes is left as it is, which spares waiting for the disk."""
    if not (file.is_file() and file.read_bytes() == content):
        replace_bytes(file, content)


def _write_bytes(file: Path, content: bytes) -> None:
    with open(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Adding a data set to the user's data directory: checked first, then copied in one rename."""

import os
import shutil
import uuid
from pathlib import Path

from overparam.data.check import dataset
from overparam.data.sources import LAYOUTS, Source, detect, folder_of
from overparam.data.types import DataError
from overparam.specs.known_data import EMBEDDED


def add(name: str, source: Path, data_dir: Path | None = None) -> Path:
    """Decode what is in `source`, and if it is a sound data set copy its files to `<data_dir>/<name>`.

    Raises:
        DataError: the name is taken or is no name of a folder, or `source` holds no data set that can be read.
    """
    if not name or name.startswith(".") or set(name) & {"/", "\\"}:
        raise DataError(f'"{name}" cannot name a data set; allowed: text without / and \\ that starts with no dot')
    home = folder_of(data_dir) / name
    if name in EMBEDDED or home.exists():
        raise DataError(f'a data set "{name}" exists already; choose another name')
    found = detect(name, source) if source.is_dir() else None
    if found is None:
        raise DataError(f"{source} holds no data set this version reads; expected {LAYOUTS}")
    dataset(name, found.decode())
    _copy(found, source, home)
    return home


def _copy(found: Source, source: Path, home: Path) -> None:
    """Copy the files of a data set to its home, all or none, also if the machine stops."""
    draft = home.with_name(f".{home.name}-{uuid.uuid4().hex}")
    try:
        for file in found.files:
            target = draft / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        _sync(draft)
        draft.rename(home)
        _sync(home)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # there is none after the rename


def _sync(place: Path) -> None:
    """Write what is in memory of a data set to the disk: all at once, where the system can."""
    if hasattr(os, "sync"):
        os.sync()
        return
    for file in filter(Path.is_file, place.rglob("*")):
        with file.open("r+b") as stream:  # Windows syncs only what may be written
            os.fsync(stream.fileno())

"""Adding a data set to the user's data directory: checked first, then copied in one rename."""

import shutil
from pathlib import Path

from overparam.data.check import dataset
from overparam.data.readers.every import EMBEDDED
from overparam.data.sources import LAYOUTS, Source, detect, folder_of
from overparam.data.types import DataError
from overparam.foundations.files import published, sync_all, sync_directory


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
    with published(home) as draft:
        for file in found.files:
            target = draft / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        sync_all(draft)
    sync_directory(home.parent)

"""Adding a data set to the user's data directory: checked first, then copied in one rename."""

import json
import shutil
from pathlib import Path

from overparam.data import cache
from overparam.data.check import dataset
from overparam.data.find import detect, find, folder_of, no_data_set
from overparam.data.readers.every import EMBEDDED
from overparam.data.reading import FILE, Reading, stored_reading
from overparam.data.types import DataError, Source
from overparam.foundations.files import published, sync_all, sync_directory


def add(
    name: str,
    source: Path,
    data_dir: Path | None = None,
    *,
    channels: str | None = None,
    labels: str | None = None,
) -> Path:
    """Decode what is in `source`, and if it is a sound data set copy its files to `<data_dir>/<name>`.

    `channels` and `labels` say how to read files that leave it open; they are kept beside the copied files.

    Raises:
        DataError: the name is taken or is no name of a folder, or `source` holds no data set that can be read.
    """
    if not name or name.startswith(".") or set(name) & {"/", "\\"}:
        raise DataError(f'"{name}" cannot name a data set; allowed: text without / and \\ that starts with no dot')
    home = folder_of(data_dir) / name
    if name in EMBEDDED or home.exists():
        raise DataError(f'a data set "{name}" exists already; choose another name')
    said = Reading.of(channels, labels)
    found = detect(name, source, said) if source.is_dir() else None
    if found is None:
        raise no_data_set(source)
    notes: list[str] = []
    decoded = dataset(name, found.decode(notes.append), notes)
    _copy(found, source, home, said.over(stored_reading(source)))
    copied = find(name, home.parent)
    cache.keep(cache.fingerprint(name, copied.files), decoded)  # which spares decoding the copy
    return home


def _copy(found: Source, source: Path, home: Path, reading: Reading) -> None:
    """Copy the files of a data set to its home, all or none, also if the machine stops."""
    with published(home) as draft:
        for file in found.files:
            target = draft / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        if said := reading.said():
            (draft / FILE).write_text(json.dumps(said))
        sync_all(draft)
    sync_directory(home.parent)

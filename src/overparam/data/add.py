"""Adding a data set to the user's data directory: checked first, and the copy again; it appears in one rename."""

import json
import shutil
from pathlib import Path

from overparam.data import cache
from overparam.data.check import dataset
from overparam.data.find import detect, find, folder_of, no_data_set
from overparam.data.readers.every import EMBEDDED
from overparam.data.reading import FILE, Reading, stored_reading
from overparam.data.types import DataError, Dataset, Source
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

    `channels` and `labels` say how to read files that leave it open; they are kept beside the copied files, with the
    notes on files that are not copied.

    Raises:
        DataError: the name is taken or is no name of a folder, or `source` is no folder with a data set that can be
            read, also from a copy.
    """
    home = _new_home(name, data_dir)
    said = Reading.of(channels, labels)
    found = _found(name, source, said)
    digest = _decoded(name, found).digest
    with published(home) as draft:
        _copy(found, source, draft, said.over(stored_reading(source)))
        copied = _decoded_alike(name, draft, source, digest)
        sync_all(draft)
    sync_directory(home.parent)
    cache.keep(cache.fingerprint(name, find(name, home.parent).files), copied)  # which spares decoding it once more
    return home


def _new_home(name: str, data_dir: Path | None) -> Path:
    if not name or name.startswith(".") or set(name) & {"/", "\\"}:
        raise DataError(f'"{name}" cannot name a data set; allowed: text without / and \\ that starts with no dot')
    home = folder_of(data_dir) / name
    if name in EMBEDDED or home.exists():
        raise DataError(f'a data set "{name}" exists already; choose another name')
    return home


def _found(name: str, source: Path, said: Reading) -> Source:
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise DataError(f"{source} {what}; name the folder that holds the files of the data set")
    found = detect(name, source, said)
    if found is None:
        raise no_data_set(source)
    return found


def _decoded(name: str, source: Source) -> Dataset:
    notes: list[str] = []
    return dataset(name, source.decode(notes.append), notes)


def _decoded_alike(name: str, draft: Path, source: Path, digest: str) -> Dataset:
    """The copy, which may lack what its original is read by, such as the name of an empty class folder."""
    try:
        copied = None if (found := detect(name, draft)) is None else _decoded(name, found)
    except DataError:
        copied = None
    if copied is None or copied.digest != digest:
        raise DataError(
            f"{source} is read in another way from a copy of its files, so that nothing was added; take out what holds "
            "no data, such as empty folders, and leave the files as they are meanwhile"
        )
    return copied


def _copy(found: Source, source: Path, draft: Path, reading: Reading) -> None:
    """Copy the files of a data set, and write down what they do not say."""
    for file in found.files:
        target = draft / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if kept := reading.said() | ({"notes": found.notes} if found.notes else {}):
        (draft / FILE).write_text(json.dumps(kept))

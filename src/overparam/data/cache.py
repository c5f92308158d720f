"""Decoded data, kept as plain arrays so that files are decoded once.

A fingerprint of the source files (names, sizes, times) names the entry; its digest is checked when it is
read. A damaged or unwritable cache is never an error: the data is decoded again.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from overparam.data.check import dataset
from overparam.data.types import Array, Dataset, Say, unreadable
from overparam.foundations import paths
from overparam.foundations.files import published, synced

DECODER_VERSION = 5  # raised when a reader's output or what is embedded changes
PARTS = ("train_x", "train_y", "test_x", "test_y")


def fingerprint(name: str, files: Iterable[Path]) -> str:
    """Names the decoded form of these files as they are now.

    Raises:
        DataError: one cannot be looked at, as a link to nothing.
    """
    found = sorted(files)
    places = {folder: folder.resolve() for folder in {file.parent for file in found}}  # once per folder: it is slow
    lines = [f"{DECODER_VERSION}|{name}"]
    for file in found:
        try:
            stat = file.stat()
        except OSError as error:
            raise unreadable(file, error) from None
        # A file moved over another one, or given its old time back, differs in its time of change.
        marks = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        lines.append("|".join([str(places[file.parent] / file.name), *map(str, marks)]))
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def decoded(name: str, mark: str, decode: Callable[[Say], dict[str, Array]]) -> Dataset:
    """Data set from the cache entry `mark`, or decoded now and cached."""
    found = _load(name, paths.decoded_dir(mark))
    if found is None:
        notes: list[str] = []
        found = dataset(name, decode(notes.append), notes)
        keep(mark, found)
    return found


def cached_notes(mark: str) -> tuple[str, ...]:
    """Notes of the data set in the cache entry `mark`; none if there is no sound one."""
    try:
        return tuple(map(str, json.loads((paths.decoded_dir(mark) / "meta.json").read_bytes())["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _load(name: str, folder: Path) -> Dataset | None:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        raw: dict[str, Array] = {
            part: np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in PARTS
        }
        found = dataset(name, raw, meta["notes"])
        return found if found.digest == meta["digest"] else None
    except Exception:  # what numpy raises on damaged bytes is no closed list: EOFError and TokenError are among it
        return None


def keep(mark: str, found: Dataset) -> None:
    """Cache a decoded data set under `mark`, if the cache can be written."""
    folder = paths.decoded_dir(mark)
    with contextlib.suppress(OSError), published(folder) as draft:
        for part, array in found.arrays().items():
            with synced(draft / f"{part}.npy") as stream:
                np.save(stream, array, allow_pickle=False)
        with synced(draft / "meta.json") as stream:
            stream.write(json.dumps({"name": found.name, "digest": found.digest, "notes": found.notes}).encode())
        shutil.rmtree(folder, ignore_errors=True)

"""Decoded data, kept as plain arrays so that files are decoded once.

A fingerprint of the source files (names, sizes, times of change) names the entry; its digest is checked when it is
read. A damaged or unwritable cache is never an error: the data is decoded again.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from overparam import paths
from overparam.data.check import dataset
from overparam.data.types import Array, Dataset

DECODER_VERSION = 2  # raised when a reader's output changes
PARTS = ("train_x", "train_y", "test_x", "test_y")


def fingerprint(name: str, files: Iterable[Path]) -> str:
    """Names the decoded form of these files as they are now."""
    lines = [f"{DECODER_VERSION}|{name}"]
    for file in sorted(files):
        stat = file.stat()
        lines.append(f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}")
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def decoded(name: str, mark: str, decode: Callable[[], dict[str, Array]]) -> Dataset:
    """Data set from the cache entry `mark`, or decoded now and cached."""
    folder = paths.decoded_dir(mark)
    found = _load(name, folder)
    if found is None:
        found = dataset(name, decode())
        _save(folder, found)
    return found


def _load(name: str, folder: Path) -> Dataset | None:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        raw: dict[str, Array] = {
            part: np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in PARTS
        }
        found = dataset(name, raw)
        return found if found.digest == meta["digest"] else None
    except (OSError, ValueError, KeyError):
        return None


def _save(folder: Path, found: Dataset) -> None:
    draft = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        for part, array in found.arrays().items():
            np.save(draft / f"{part}.npy", array, allow_pickle=False)
        (draft / "meta.json").write_text(json.dumps({"name": found.name, "digest": found.digest}))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(draft, folder)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)

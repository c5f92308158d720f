"""CIFAR in its binary version. The Python version is pickles, which are never opened."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from overparam.data.readers.images import file_content
from overparam.data.reading import Reading
from overparam.data.types import Array, DataError, Say, Source, unsaid

PIXELS = 3 * 32 * 32
BATCH, BATCHES = 10_000, 5  # of CIFAR-10's published files; smaller ones are taken as they are
CIFAR100_LABELS = ("coarse_label", "fine_label")  # in the order of a record
PYTHON_VERSIONS = {  # their files, and those of the binary version of the same data
    ("data_batch_1", "test_batch"): ("CIFAR-10", "data_batch_1.bin to data_batch_5.bin and test_batch.bin"),
    ("train", "test", "meta"): ("CIFAR-100", "train.bin and test.bin"),
}


def find_cifar10(name: str, home: Path, reading: Reading) -> Source | None:
    batches = {"train": tuple(sorted(home.glob("data_batch_*.bin"))), "test": tuple(home.glob("test_batch.bin"))}
    if not all(batches.values()):
        return None
    read = partial(read_cifar10, batches)
    return Source(name, "CIFAR-10 binary", batches["train"] + batches["test"], read)


def find_cifar100(name: str, home: Path, reading: Reading) -> Source | None:
    files = {part: home / f"{part}.bin" for part in ("train", "test")}
    if not all(file.is_file() for file in files.values()):
        return None
    read = partial(read_cifar100, files, reading)
    return Source(name, "CIFAR-100 binary", tuple(files.values()), read, takes=frozenset({"labels"}))


def refuse_python_version(name: str, home: Path, reading: Reading) -> Source | None:
    """Says what to get instead.

    Raises:
        DataError: the folder holds CIFAR's Python version.
    """
    for files, (title, binary) in PYTHON_VERSIONS.items():
        if all((home / file).is_file() for file in files):
            raise DataError(
                f"{home / files[0]} is of the Python version of {title}, a pickle, which could run any program and is "
                f"never opened; get the binary version from the same page, with the files {binary}"
            )
    return None


def read_cifar10(parts: Mapping[str, Sequence[Path]], say: Say = unsaid) -> dict[str, Array]:
    """The binary batches: records of one label byte and 3 × 32 × 32 pixel bytes.

    Raises:
        DataError: a batch is missing, truncated, or has a label above 9.
    """
    raw: dict[str, Array] = {}
    for part, files in parts.items():
        batches = [_records(file, 1, (9,)) for file in files]
        if part == "train" and len(batches[0]) == BATCH and len(batches) != BATCHES:
            found = ", ".join(file.name for file in files)
            raise DataError(f"{files[0].parent} has only {found}; data_batch_1.bin to data_batch_5.bin are needed")
        raw |= _part(part, np.concatenate(batches), label=0, labels=1)
    return raw


def read_cifar100(files: Mapping[str, Path], reading: Reading, say: Say = unsaid) -> dict[str, Array]:
    """Two files: records of a coarse and a fine label byte and 3 × 32 × 32 pixel bytes.

    Raises:
        DataError: a file is truncated, or has a label that CIFAR-100 has not.
    """
    wanted = reading.labels or "fine_label"
    if wanted not in CIFAR100_LABELS:
        raise DataError(f'labels="{wanted}" are none of CIFAR-100; it has {" and ".join(CIFAR100_LABELS)}')
    if reading.labels is None:
        say('Its labels are the 100 of "fine_label"; labels="coarse_label" takes the 20 coarse ones.')
    raw: dict[str, Array] = {}
    for part, file in files.items():
        raw |= _part(part, _records(file, 2, (19, 99)), label=CIFAR100_LABELS.index(wanted), labels=2)
    return raw


def _part(part: str, records: Array, label: int, labels: int) -> dict[str, Array]:
    return {
        f"{part}_x": records[:, labels:].reshape(-1, 3, 32, 32),
        f"{part}_y": records[:, label].astype(np.int64),
    }


def _records(file: Path, labels: int, highest: tuple[int, ...]) -> Array:
    content = np.frombuffer(file_content(file), dtype=np.uint8)
    size = labels + PIXELS
    if len(content) == 0 or len(content) % size:
        what = "label" if labels == 1 else "2 labels"
        raise DataError(f"{file} is truncated: {len(content):,} bytes are no multiple of {size} ({what} + 32×32×3)")
    records = content.reshape(-1, size)
    for column, most in enumerate(highest):
        if (found := int(records[:, column].max())) > most:
            data = "CIFAR-10" if labels == 1 else "CIFAR-100"
            raise DataError(f"{file}: label {found} is out of range; {data} labels are 0 … {most}")
    return records

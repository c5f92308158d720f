"""The original file formats: MNIST's IDX (plain or gzip) and CIFAR-10's binary batches."""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from overparam.data.types import Array, DataError

CIFAR_RECORD = 1 + 3 * 32 * 32
CIFAR_BATCH, CIFAR_BATCHES = 10_000, 5  # of the published files; smaller ones are taken as they are


def read_idx(file: Path) -> Array:
    """uint8 array of an IDX file: magic 0x00000800 + dimensions, big-endian sizes, then bytes."""
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be decompressed ({error}); it may be truncated: get it again") from None
    if len(content) < 8 or content[:3] != b"\x00\x00\x08":
        raise DataError(
            f"{file} is not an IDX file of bytes: its first four bytes are {content[:4].hex() or 'missing'}"
        )
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{file} is truncated: {len(content)} bytes, but its header alone has {header}")
    shape = tuple(np.frombuffer(content[4:header], dtype=">u4").tolist())
    if len(content) != header + math.prod(shape):
        raise DataError(
            f"{file} is truncated: {len(content):,} bytes, but its header promises {header + math.prod(shape):,}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def read_mnist(images: dict[str, Path], labels: dict[str, Path]) -> dict[str, Array]:
    """The four IDX files as images (N, 1, H, W) and labels."""
    raw: dict[str, Array] = {}
    for part in ("train", "test"):
        raw[f"{part}_x"] = read_idx(images[part])[:, None]
        raw[f"{part}_y"] = read_idx(labels[part]).astype(np.int64)
    return raw


def read_cifar10(parts: dict[str, Sequence[Path]]) -> dict[str, Array]:
    """The binary batches: records of one label byte and 3 × 32 × 32 pixel bytes."""
    raw: dict[str, Array] = {}
    for part, files in parts.items():
        batches = [_cifar_records(file) for file in files]
        if part == "train" and len(batches[0]) == CIFAR_BATCH and len(batches) != CIFAR_BATCHES:
            found = ", ".join(file.name for file in files)
            raise DataError(f"{files[0].parent} has only {found}; data_batch_1.bin to data_batch_5.bin are needed")
        records = np.concatenate(batches)
        raw[f"{part}_x"] = records[:, 1:].reshape(-1, 3, 32, 32)
        raw[f"{part}_y"] = records[:, 0].astype(np.int64)
    return raw


def _cifar_records(file: Path) -> Array:
    content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    if len(content) == 0 or len(content) % CIFAR_RECORD:
        raise DataError(
            f"{file} is truncated: {len(content):,} bytes are no multiple of {CIFAR_RECORD} (label + 32×32×3)"
        )
    records = content.reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise DataError(f"{file}: label {records[:, 0].max()} is out of range; CIFAR-10 labels are 0 … 9")
    return records

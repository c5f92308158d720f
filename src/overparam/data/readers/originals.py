"""The original file formats: MNIST's IDX (plain or gzip) and CIFAR-10's binary batches."""

import gzip
import math
import zlib
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from overparam.data.types import Array, DataError, unreadable

CIFAR_RECORD = 1 + 3 * 32 * 32
CIFAR_BATCH, CIFAR_BATCHES = 10_000, 5  # of the published files; smaller ones are taken as they are
MOST_DIMENSIONS = 4
PIECE = 2**24


def read_idx(file: Path) -> Array:
    """uint8 array of an IDX file: magic 0x00000800 + dimensions, big-endian sizes, then bytes.

    Raises:
        DataError: the file cannot be read, is no IDX file, or holds fewer or more bytes than its header promises.
    """
    try:
        with _opened(file) as stream:
            shape = _idx_shape(file, stream)
            return np.frombuffer(_idx_body(file, stream, shape), dtype=np.uint8).reshape(shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} cannot be decompressed ({error}); it may be truncated: get it again") from None
    except OSError as error:
        raise unreadable(file, error) from None


def _opened(file: Path) -> BufferedIOBase:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")


def _idx_shape(file: Path, stream: BufferedIOBase) -> tuple[int, ...]:
    """The sizes in the header."""
    start = stream.read(4)
    if len(start) < 4 or start[:3] != b"\x00\x00\x08" or not 1 <= start[3] <= MOST_DIMENSIONS:
        raise DataError(f"{file} is not an IDX file of bytes: its first four bytes are {start.hex() or 'missing'}")
    dimensions = stream.read(4 * start[3])
    if len(dimensions) < 4 * start[3]:
        raise DataError(
            f"{file} is truncated: {4 + len(dimensions)} bytes, but its header alone has {4 + 4 * start[3]}"
        )
    return tuple(np.frombuffer(dimensions, dtype=">u4").tolist())


def _idx_body(file: Path, stream: BufferedIOBase, shape: tuple[int, ...]) -> bytes:
    """The bytes that the header promises, and no others."""
    promised, header = math.prod(shape), 4 + 4 * len(shape)
    content = _at_most(stream, promised + 1)
    if len(content) > promised:
        raise DataError(f"{file} is too long: its header promises {header + promised:,} bytes; get it again")
    if len(content) < promised:
        raise DataError(
            f"{file} is truncated: {header + len(content):,} bytes, but its header promises {header + promised:,}"
        )
    return content


def _at_most(stream: BufferedIOBase, count: int) -> bytes:
    """Up to `count` bytes, read in pieces: a header's false promise takes no memory."""
    pieces: list[bytes] = []
    while count and (piece := stream.read(min(PIECE, count))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


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
    try:
        content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise unreadable(file, error) from None
    if len(content) == 0 or len(content) % CIFAR_RECORD:
        raise DataError(
            f"{file} is truncated: {len(content):,} bytes are no multiple of {CIFAR_RECORD} (label + 32×32×3)"
        )
    records = content.reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise DataError(f"{file}: label {records[:, 0].max()} is out of range; CIFAR-10 labels are 0 … 9")
    return records

"""IDX files, plain or gzip: the original format of MNIST, and of EMNIST."""

import gzip
import math
import re
import zlib
from collections.abc import Mapping
from functools import partial
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from overparam.data.reading import Reading
from overparam.data.types import Array, DataError, Say, Source, unreadable, unsaid

FILE_NAME = re.compile(r"(?P<set>|.+-)(?P<part>train|t10k|test)-(?P<kind>images|labels).*ubyte.*")
EMNIST = "emnist-"
MOST_DIMENSIONS = 4
PIECE = 2**24


def find_idx(name: str, home: Path, reading: Reading) -> Source | None:
    """The four files of a set, such as train-images-idx3-ubyte, or those of EMNIST with the set before their names.

    Raises:
        DataError: there are several sets, and none has the name of the data set.
    """
    sets = {prefix: files for prefix, files in _sets(home).items() if len(files) == 4}
    if not sets:
        return None
    prefix = f"{name}-" if f"{name}-" in sets else min(sets)
    if len(sets) > 1 and prefix != f"{name}-":
        named = ", ".join(sorted(each.removesuffix("-") or "one without a name" for each in sets))
        raise DataError(f"{home} holds several sets, {named}; name the data set as the one you mean, or copy its files")
    files = sets[prefix]
    return Source(name, "IDX", tuple(files.values()), partial(read_set, files, prefix.startswith(EMNIST)))


def _sets(home: Path) -> dict[str, dict[tuple[str, str], Path]]:
    """Files by the beginning of their names, then by part and kind.

    Of several alike the first counts; unpacked archives have folders called like the file that lies in them.
    """
    sets: dict[str, dict[tuple[str, str], Path]] = {}
    for file in sorted(home.iterdir()):
        match = FILE_NAME.fullmatch(file.name)
        if match and not file.name.startswith(".") and file.is_file():
            part = "train" if match["part"] == "train" else "test"
            sets.setdefault(match["set"], {}).setdefault((part, match["kind"]), file)
    return sets


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


def read_set(files: Mapping[tuple[str, str], Path], transposed: bool = False, say: Say = unsaid) -> dict[str, Array]:
    """The four IDX files as images (N, 1, H, W) and labels. EMNIST's images are stored column by column."""
    raw: dict[str, Array] = {}
    for part in ("train", "test"):
        images = read_idx(files[part, "images"])
        raw[f"{part}_x"] = (images.swapaxes(1, 2) if transposed and images.ndim == 3 else images)[:, None]
        raw[f"{part}_y"] = read_idx(files[part, "labels"]).astype(np.int64)
    if transposed:
        say("EMNIST stores its images column by column; they are turned upright.")
    return raw

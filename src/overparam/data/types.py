"""What a data set is, and what a run sees of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from overparam.identity import digest_arrays
from overparam.specs.data import DataSpec

Array = NDArray[np.generic]
Say = Callable[[str], None]  # takes a sentence that tells users of the data what a reader made of its files
LOSSY = "The images are compressed with loss (JPEG), so that their pixels are not exact."


def unsaid(note: str) -> None:
    """For callers that want no notes."""


class DataError(ValueError):
    """Something is wrong with a data set; the message says what and what to do."""


def unreadable(file: Path, error: OSError) -> DataError:
    """For a file that the system does not hand over: it may be sound."""
    reason = error.strerror or first_line(error)
    return DataError(f"{file} cannot be opened ({reason}); it must be a file that you are allowed to read")


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Embedded:
    """A data set that comes with the package, and how `data list` describes it.

    `sample` says what its content depends on, of a spec; `read` makes that content.
    """

    name: str
    described: str
    origin: Literal["embedded", "generated"]
    sample: Callable[[DataSpec], tuple[int, ...]]
    read: Callable[..., dict[str, Array]]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: its files and how to read them.

    `notes` say what the files' names leave open and was decided; `takes` names the fields of a `Reading` that the
    layout has a use for.
    """

    name: str
    layout: str
    files: tuple[Path, ...]
    read: Callable[[Say], dict[str, Array]]
    notes: tuple[str, ...] = ()
    takes: frozenset[str] = frozenset()

    def decode(self, say: Say = unsaid) -> dict[str, Array]:
        for note in self.notes:
            say(note)
        return self.read(say)


@dataclass(frozen=True)
class Dataset:
    """Decoded content: images as uint8 or float32 (N, C, H, W), or signals as float32 (N, L), labels as int64 (N,).

    `mean` and `std` are per channel; for uint8 images they refer to pixels scaled to [0, 1]. `notes` say what was
    decided where the files leave it open, or what was changed.
    """

    name: str
    train_x: Array
    train_y: NDArray[np.int64]
    test_x: Array
    test_y: NDArray[np.int64]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Digest of the decoded arrays, whatever file format they came from."""
        return digest_arrays(self.arrays())

    def arrays(self) -> dict[str, Array]:
        return {"train_x": self.train_x, "train_y": self.train_y, "test_x": self.test_x, "test_y": self.test_y}


@dataclass(frozen=True)
class Split:
    """Examples as a network gets them: float32 inputs and int64 labels."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """How many examples a `DataSpec` selects, and of what shape and how many classes they are."""

    train: int
    val: int
    test: int
    input_shape: tuple[int, ...]
    num_classes: int


@dataclass(frozen=True)
class Examples:
    """What a `DataSpec` selects. `flipped` lists the training examples whose labels are wrong."""

    train: Split
    val: Split
    test: Split
    clean_train_y: NDArray[np.int64]
    flipped: NDArray[np.int64]
    noise_digest: str
    digest: str
    num_classes: int
    input_shape: tuple[int, ...]

    @cached_property
    def test_digest(self) -> str:
        """Digest of the test examples as a network gets them: runs that share it were tested on the same ones."""
        return digest_arrays({"x": self.test.x, "y": self.test.y})

    @property
    def sizes(self) -> Sizes:
        return Sizes(len(self.train.y), len(self.val.y), len(self.test.y), self.input_shape, self.num_classes)

"""Arrays in an .npz file: x_train, y_train, x_test, y_test (or train_x, …; or train_images, … as in MedMNIST)."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from overparam.data.readers.classes import classes_of
from overparam.data.readers.pixels import images_of
from overparam.data.readers.splits import held_out
from overparam.data.reading import Reading
from overparam.data.types import Array, DataError, Say, Source, first_line, unreadable, unsaid

PARTS = ("train", "test")
LONG = {"x": "images", "y": "labels"}  # as MedMNIST names them


def find_npz(name: str, home: Path, reading: Reading) -> Source | None:
    files = tuple(file for file in home.glob("*.npz") if not file.name.startswith("."))
    if len(files) != 1:
        return None
    return Source(name, ".npz", files, partial(read_npz, files[0], reading), takes=frozenset({"channels"}))


def read_npz(file: Path, reading: Reading | None = None, say: Say = unsaid) -> dict[str, Array]:
    """Images as numbers (N, H, W), (N, H, W, C) or (N, C, H, W); signals as floats (N, L); labels as whole numbers.

    Images that can be bytes become bytes, and exact one-hot rows become classes.

    Raises:
        DataError: the file is damaged, holds objects, lacks an array, or leaves open which axis is that of channels.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = _arrays(file, content, say)
    except DataError:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise unreadable(file, error) from None
    except Exception as error:  # what numpy and zipfile raise on a damaged or encrypted archive is no closed list
        raise DataError(f"{file} cannot be read as .npz without pickled objects ({first_line(error)})") from None
    x, y = ({f"{part}_{axis}": arrays[part, axis] for part in PARTS} for axis in "xy")
    channels = (reading or Reading()).channels
    return _inputs(file, x, channels, say) | classes_of(file, y, say)


def _arrays(file: Path, content: Mapping[str, Array], say: Say) -> dict[tuple[str, str], tuple[str, Array]]:
    """The four arrays with their names; those that nothing asks for are never read."""
    held = held_out(lambda split: _name(content, split, "x"))
    split, notes = held or ("test", ())
    for note in notes:
        say(note)
    return {
        (part, axis): _array(file, content, split if part == "test" else part, axis) for part in PARTS for axis in "xy"
    }


def _name(content: Mapping[str, Array], split: str, axis: str) -> str | None:
    names = (f"{axis}_{split}", f"{split}_{axis}", f"{axis.upper()}_{split}", f"{split}_{LONG[axis]}")
    return next((name for name in names if name in content), None)


def _array(file: Path, content: Mapping[str, Array], split: str, axis: str) -> tuple[str, Array]:
    name = _name(content, split, axis)
    if name is None:
        have = ", ".join(sorted(content))
        raise DataError(f"{file} has the arrays {have}; it needs {axis}_{split} (or {split}_{axis})")
    array = content[name]
    if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is no array
        raise DataError(f"{file}: {name} is no numpy array; write the file with numpy.savez")
    return name, array


def _inputs(file: Path, named: dict[str, tuple[str, Array]], channels: str | None, say: Say) -> dict[str, Array]:
    """Images, or signals, which have two axes."""
    if all(x.ndim != 2 for _, x in named.values()):
        return images_of(file, named, channels, say)
    if channels is not None:
        raise DataError(f'{file}: channels="{channels}" is for images, and these are signals (N, L); leave it out')
    return {key: _signals(file, name, x) if x.ndim == 2 else x for key, (name, x) in named.items()}


def _signals(file: Path, name: str, x: Array) -> Array:
    """Signals as float32. Whole numbers are most likely the pixels of flattened images, which nothing would scale."""
    if not np.issubdtype(x.dtype, np.floating):
        raise DataError(
            f"{file}: {name} is {x.dtype} of shape {x.shape}, but signals (N, L) are floats; reshape flattened "
            "images to (N, H, W) or (N, C, H, W), or store signals as float32"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which the check of values refuses
        return x.astype(np.float32)

"""Adding data sets and listing them: a copy is read as its original is, and one broken data set hides no other."""

import errno
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from overparam.data.add import add
from overparam.data.load import dataset_of
from overparam.data.sources import available
from overparam.data.types import Array, DataError
from overparam.foundations.numpy_generators import numpy_generator
from overparam.specs import DataSpec

PIXELS = numpy_generator(0, "adding").integers(0, 256, (12, 6, 6), dtype=np.uint8)
LABELS = np.arange(12) % 3
SPEC = DataSpec(name="mine")


def png(pixels: Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def write_folder(home: Path, parts: tuple[str, ...] = ("train", "test")) -> None:
    for part in parts:
        for name, pixels in zip("ab", PIXELS, strict=False):
            (home / part / name).mkdir(parents=True)
            (home / part / name / "0.png").write_bytes(png(pixels))


def write_npz(home: Path) -> None:
    home.mkdir(parents=True)
    np.savez(home / "data.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS)


def write_parquet(home: Path) -> None:
    home.mkdir(parents=True)
    rows = [{"bytes": png(x), "path": ""} for x in PIXELS]
    for part in ("train", "test"):
        pl.DataFrame({"image": rows, "label": LABELS}).write_parquet(home / f"{part}-00000-of-00001.parquet")


def write_cifar(home: Path) -> None:
    home.mkdir(parents=True)
    records = np.zeros((10, 3073), dtype=np.uint8)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records.tofile(home / name)


def dangle(file: Path) -> None:
    file.unlink()
    file.symlink_to("gone")


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (write_folder, "train/a/0.png"),
        (write_npz, "data.npz"),
        (write_parquet, "test-00000-of-00001.parquet"),
        (write_cifar, "data_batch_1.bin"),
    ],
)
def test_a_link_to_nothing_is_named_and_hides_no_other_data_set(
    tmp_path: Path, write: Callable[[Path], None], file: str
) -> None:
    write(tmp_path / "mine")
    write_npz(tmp_path / "other")
    dangle(tmp_path / "mine" / file)
    message = rf"{Path(file).name} cannot be opened \(No such file or directory\)"
    with pytest.raises(DataError, match=message):
        dataset_of(SPEC, tmp_path)
    with pytest.raises(DataError, match=message):
        add("copy", tmp_path / "mine", tmp_path)
    broken, other = available(tmp_path)[2:]
    assert broken[:2] == ("mine", "cannot be read") and re.search(message, broken.place)
    assert other[:2] == ("other", ".npz")


def test_a_folder_that_cannot_be_looked_into_hides_no_other_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.scandir

    def guarded(place: Path) -> Any:
        if Path(place).name == "a":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return look(place)

    write_folder(tmp_path / "mine")
    monkeypatch.setattr(os, "scandir", guarded)
    (entry,) = available(tmp_path)[2:]
    assert entry.layout == "cannot be read" and "a cannot be opened (Permission denied)" in entry.place


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "test.parquet", "train.bin"])
def test_a_link_to_nothing_is_not_called_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).symlink_to("gone")
    with pytest.raises(DataError, match=rf'holds no data set this version reads; its link "{name}" leads nowhere;'):
        dataset_of(SPEC, tmp_path)

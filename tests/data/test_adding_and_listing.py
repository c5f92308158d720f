"""Adding data sets and listing them: a copy is read as its original is, and one broken data set hides no other."""

import errno
import io
import os
import re
from collections.abc import Callable
from functools import partial
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


def write_images_beside(home: Path) -> None:
    """Rows of Parquet that name their images, but one that holds it."""
    (home / "images").mkdir(parents=True)
    rows: list[dict[str, object]] = [{"bytes": None, "path": f"images/{row}.png"} for row in range(12)]
    for row, pixels in enumerate(PIXELS):
        (home / "images" / f"{row}.png").write_bytes(png(pixels))
    rows[5] = {"bytes": png(PIXELS[5]), "path": "elsewhere/5.png"}
    kinds = {"image": pl.Struct({"bytes": pl.Binary, "path": pl.String})}
    for part in ("train", "test"):
        pl.DataFrame({"image": rows, "label": LABELS}, schema_overrides=kinds).write_parquet(home / f"{part}.parquet")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_npz, ""),
        (write_parquet, ""),
        (write_images_beside, ""),
        (write_folder, ""),
        (partial(write_folder, parts=("train", "test", "val")), 'Its split "val" is left out'),
        (partial(write_folder, parts=("train", "val")), 'its split "val" is taken for it'),
    ],
)
def test_a_copy_is_decoded_as_its_original_also_without_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], said: str
) -> None:
    """A copy of the copy too; what was left out is still said."""
    write(tmp_path / "mine")
    first = dataset_of(SPEC, tmp_path)
    add("copy", tmp_path / "mine", tmp_path)
    add("again", tmp_path / "copy", tmp_path)
    monkeypatch.setenv("OVERPARAM_CACHE", str(tmp_path / "cache"))
    for name in ("copy", "again"):
        copy = dataset_of(DataSpec(name=name), tmp_path / "copy" / "..")  # which is not known in memory
        assert (copy.digest, copy.notes) == (first.digest, first.notes)
    assert said in " ".join(first.notes) and bool(said) == bool(first.notes)


def test_a_copy_that_would_be_read_otherwise_is_not_added(tmp_path: Path) -> None:
    """An empty class folder is not copied; without it the others are in the order of numbers."""
    for part in ("train", "test"):
        for name, pixels in zip(("10", "2"), PIXELS, strict=False):
            (tmp_path / "mine" / part / name).mkdir(parents=True)
            (tmp_path / "mine" / part / name / "0.png").write_bytes(png(pixels))
    (tmp_path / "mine" / "train" / "x").mkdir()
    with pytest.raises(DataError, match="is read in another way from a copy of its files, so that nothing was added"):
        add("copy", tmp_path / "mine", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_the_images_of_a_shard_are_in_it_or_beside_it(tmp_path: Path) -> None:
    """Not both: a change of an image beside it would not be seen."""
    write_parquet(tmp_path / "mine")
    rows = [{"bytes": png(x), "path": ""} for x in PIXELS[:5]] + [{"bytes": None, "path": "5.png"}]
    (tmp_path / "mine" / "5.png").write_bytes(png(PIXELS[5]))
    table = pl.DataFrame({"image": rows, "label": LABELS[:6]})
    table.write_parquet(tmp_path / "mine" / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r'row 5 holds no bytes, only the path "5\.png", but row 0 holds bytes; write'):
        dataset_of(SPEC, tmp_path)


@pytest.mark.parametrize(("name", "what"), [("mine/data.npz", "is a file"), ("gone", "does not exist")])
def test_a_data_set_is_added_from_a_folder(tmp_path: Path, name: str, what: str) -> None:
    write_npz(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no data set this version reads; expected .*one .npz file"):
        add("copy", tmp_path / "empty", tmp_path)
    with pytest.raises(DataError, match=f"{name} {what}; name the folder that holds the files of the data set"):
        add("copy", tmp_path / name, tmp_path)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "test.parquet", "train.bin"])
def test_a_link_to_nothing_is_not_called_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).symlink_to("gone")
    with pytest.raises(DataError, match=rf'holds no data set this version reads; its link "{name}" leads nowhere;'):
        dataset_of(SPEC, tmp_path)

"""Data sets as they are published: Parquet of the Hugging Face hub, CIFAR's binary versions, EMNIST's IDX files."""

import gzip
import io
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from overparam.data.add import add
from overparam.data.load import content_digest, dataset_of
from overparam.data.sources import remark
from overparam.data.types import Array, DataError
from overparam.foundations.numpy_generators import numpy_generator
from overparam.specs import DataSpec

GENERATOR = numpy_generator(0, "published files")
PIXELS = GENERATOR.integers(0, 256, (20, 6, 5), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
LABELS, FINE, COARSE = np.arange(20) % 4, np.arange(100), np.arange(100) % 20
SPEC = DataSpec(name="mine")


def png(pixels: Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def table(labels: Mapping[str, Array] | None = None, rows: list[dict[str, object]] | None = None) -> pl.DataFrame:
    images = rows or [{"bytes": png(x), "path": f"{row}.png"} for row, x in enumerate(PIXELS)]
    return pl.DataFrame({"image": images} | dict(labels or {"label": LABELS}))


def write_parquet(folder: Path, *names: str, content: pl.DataFrame | None = None) -> Path:
    for name in names:
        (folder / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (table() if content is None else content).write_parquet(folder / "mine" / name)
    return folder / "mine"


@pytest.mark.parametrize("test", ["test", "validation", "valid", "val"])
@pytest.mark.parametrize(
    "form", ["{}-00000-of-00001.parquet", "data/{}-00000-of-00001-0a1b.parquet", "{}.parquet", "{}/0000.parquet"]
)
def test_parquet_splits_have_one_of_the_usual_names(tmp_path: Path, form: str, test: str) -> None:
    """A copy that was added is read as well."""
    write_parquet(tmp_path, form.format("train"), form.format(test))
    add("copy", tmp_path / "mine", tmp_path)
    for name in ("mine", "copy"):
        found = dataset_of(DataSpec(name=name), tmp_path)
        assert (found.train_x[:, 0] == PIXELS).all() and (found.test_y == LABELS).all()
    assert (f'its split "{test}" is taken for it' in remark(SPEC, tmp_path)) == (test != "test")


def test_a_split_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train-0.parquet", "test-0.parquet", "train/0000.parquet")
    with pytest.raises(DataError, match=r"has the split train twice, as train-0\.parquet and as train/0000\.parquet; "):
        dataset_of(SPEC, tmp_path)


def test_files_that_archives_leave_are_no_shards(tmp_path: Path) -> None:
    home = write_parquet(tmp_path, "train/0000.parquet", "test/0000.parquet")
    (home / "train" / "._0000.parquet").write_bytes(b"none")
    assert len(dataset_of(SPEC, tmp_path).train_y) == 20


CIFAR100 = {"fine_label": FINE, "coarse_label": COARSE}


@pytest.mark.parametrize(
    ("columns", "asked", "expected", "said"),
    [
        ({"labels": COARSE}, None, COARSE, ""),
        (CIFAR100, None, FINE, 'labels are the column "fine_label", not "coarse_label"; labels="coarse_label" takes'),
        (CIFAR100, "coarse_label", COARSE, ""),
        ({"coarse_label": COARSE}, None, COARSE, 'labels are the column "coarse_label"'),
        ({"label": COARSE, "labels": FINE}, None, COARSE, 'the column "label", not "labels"'),
        ({"label": COARSE, "digit": FINE}, "digit", FINE, ""),
    ],
)
def test_the_column_of_labels_is_the_usual_one_or_the_one_asked_for(
    tmp_path: Path, columns: dict[str, Array], asked: str | None, expected: Array, said: str
) -> None:
    rows: list[dict[str, object]] = [{"bytes": png(PIXELS[0]), "path": ""}] * 100
    source = write_parquet(tmp_path, "train.parquet", "test.parquet", content=table(columns, rows))
    add("copy", source, tmp_path, labels=asked)
    spec = DataSpec(name="copy")
    assert (dataset_of(spec, tmp_path).train_y == expected).all()
    assert said in remark(spec, tmp_path) and bool(said) == bool(remark(spec, tmp_path))


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path, "train.parquet", "test.parquet")
    with pytest.raises(DataError, match=r'has the columns image, label; labels="digit" is none of them'):
        add("copy", source, tmp_path, labels="digit")


def test_other_columns_are_not_read(tmp_path: Path) -> None:
    """Not even if they cannot be: the bytes of one are damaged here."""
    bulky = table({"label": LABELS, "text": np.array([f"unread {row:04d}" for row in range(20)])})
    home = write_parquet(tmp_path, "test.parquet")
    bulky.write_parquet(home / "train.parquet", compression="uncompressed", statistics=False)
    content = (home / "train.parquet").read_bytes()
    (home / "train.parquet").write_bytes(content.replace(b"unread", b"\xff\xfe\xff\xff\xff\xff"))
    assert len(dataset_of(SPEC, tmp_path).train_y) == 20


def write_paths(folder: Path, paths: list[str | None]) -> Path:
    """Rows without bytes that name images; those that can be beside the file are there."""
    rows: list[dict[str, object]] = [{"bytes": None, "path": path} for path in paths]
    content = table({"label": LABELS[: len(rows)]}, rows).with_columns(
        pl.col("image").cast(pl.Struct({"bytes": pl.Binary, "path": pl.String}))
    )
    home = write_parquet(folder, "data/train.parquet", "data/test.parquet", content=content)
    (home / "data" / "images").mkdir()
    for row, x in enumerate(PIXELS):
        (home / "data" / "images" / f"{row}.png").write_bytes(png(x))
    (home / "outside.png").write_bytes(png(PIXELS[0]))
    return home


def test_rows_that_name_images_beside_their_file_are_read(tmp_path: Path) -> None:
    """The images are files of the data set: they are copied with it, and a change of one is seen."""
    paths: list[str | None] = [f"images/{row}.png" for row in range(20)]
    home = write_paths(tmp_path, paths)
    (home / "data" / "images").rename(tmp_path / "images")
    with pytest.raises(DataError, match="no such file is beside"):
        add("copy", home, tmp_path)
    (tmp_path / "images").rename(home / "data" / "images")
    add("copy", home, tmp_path)
    for name in ("mine", "copy"):
        assert (dataset_of(DataSpec(name=name), tmp_path).train_x[:, 0] == PIXELS).all()
    before = content_digest(SPEC, data_dir=tmp_path)
    (home / "data" / "images" / "3.png").write_bytes(png(255 - PIXELS[3]))
    assert content_digest(SPEC, data_dir=tmp_path) != before
    assert content_digest(DataSpec(name="copy"), data_dir=tmp_path) == before


@pytest.mark.parametrize("path", ["images/none.png", "../outside.png", "{home}/outside.png", "images", "a\0b"])
def test_a_path_that_is_not_beside_the_file_is_named(tmp_path: Path, path: str) -> None:
    """What lies outside the data set is never read."""
    path = path.format(home=tmp_path / "mine")
    write_paths(tmp_path, ["images/0.png", path, "images/1.png", "images/2.png"])
    with pytest.raises(DataError, match="train.parquet, row 1 holds no bytes, only the path .* put the images there"):
        dataset_of(SPEC, tmp_path)


def test_a_row_without_anything_is_refused(tmp_path: Path) -> None:
    write_paths(tmp_path, ["images/0.png", None])
    with pytest.raises(DataError, match=r"train\.parquet, row 1 holds no image: neither bytes nor a path"):
        dataset_of(SPEC, tmp_path)


def write_cifar100(folder: Path, fine: Array = FINE) -> Path:
    home = folder / "mine"
    home.mkdir()
    records = np.concatenate([COARSE[:, None], fine[:, None], COLOUR.reshape(100, -1)], axis=1).astype(np.uint8)
    for part in ("train", "test"):
        (home / f"{part}.bin").write_bytes(records.tobytes())
    return home


@pytest.mark.parametrize(("asked", "expected"), [(None, FINE), ("fine_label", FINE), ("coarse_label", COARSE)])
def test_the_binary_version_of_cifar100_is_read(tmp_path: Path, asked: str | None, expected: Array) -> None:
    add("copy", write_cifar100(tmp_path), tmp_path, labels=asked)
    found = dataset_of(DataSpec(name="copy"), tmp_path)
    assert (found.train_x == COLOUR).all() and (found.test_y == expected).all()
    assert ('the 100 of "fine_label"' in remark(DataSpec(name="copy"), tmp_path)) == (asked is None)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", r"train\.bin is truncated: 307,399 bytes are no multiple of 3074 \(2 labels \+ 32×32×3\)"),
        ("label", r"label 100 is out of range; CIFAR-100 labels are 0 … 99"),
        ("asked", 'labels="label" are none of CIFAR-100; it has coarse_label and fine_label'),
    ],
)
def test_what_is_not_cifar100_is_refused(tmp_path: Path, fault: str, message: str) -> None:
    home = write_cifar100(tmp_path, FINE + (fault == "label"))
    if fault == "truncated":
        (home / "train.bin").write_bytes((home / "train.bin").read_bytes()[:-1])
    with pytest.raises(DataError, match=message):
        add("copy", home, tmp_path, labels="label" if fault == "asked" else None)


@pytest.mark.parametrize(
    ("files", "binary"),
    [
        (["data_batch_1", "data_batch_2", "test_batch", "batches.meta"], r"CIFAR-10, .* data_batch_1\.bin to"),
        (["train", "test", "meta"], r"CIFAR-100, .* train\.bin and test\.bin"),
    ],
)
@pytest.mark.parametrize("copied", [False, True])
def test_pickles_of_cifar_are_never_opened(tmp_path: Path, files: list[str], binary: str, copied: bool) -> None:
    """These call `breakpoint` when they are."""
    (tmp_path / "mine").mkdir()
    for name in files:
        (tmp_path / "mine" / name).write_bytes(b"\x80\x02cbuiltins\nbreakpoint\nq\x00)Rq\x01.")
    with pytest.raises(DataError, match=rf"is of the Python version of {binary}"):
        add("copy", tmp_path / "mine", tmp_path) if copied else dataset_of(SPEC, tmp_path)


def idx(array: Array) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(home: Path, beginning: str, suffix: str, images: Array = PIXELS, labels: Array = LABELS) -> Path:
    home.mkdir(exist_ok=True)
    for part in ("train", "test"):
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = gzip.compress(idx(array)) if suffix else idx(array)
            (home / f"{beginning}{part}-{kind}{suffix}").write_bytes(content)
    return home


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_emnist_is_read_upright_with_its_letters_from_one(tmp_path: Path, suffix: str) -> None:
    write_idx(tmp_path / "mine", "emnist-letters-", suffix, PIXELS.transpose(0, 2, 1), LABELS + 1)
    found = dataset_of(SPEC, tmp_path)
    assert (found.train_x[:, 0] == PIXELS).all() and (found.test_y == LABELS).all()
    said = remark(SPEC, tmp_path)
    assert "they are turned upright" in said and "labels 1 … 4 of the files are counted from 0" in said


@pytest.mark.parametrize("beginning", ["", "kmnist-"])
def test_other_sets_are_upright(tmp_path: Path, beginning: str) -> None:
    write_idx(tmp_path / "mine", beginning, "")
    assert (dataset_of(SPEC, tmp_path).train_x[:, 0] == PIXELS).all()


def test_of_several_sets_the_one_of_the_name_is_taken(tmp_path: Path) -> None:
    source = write_idx(tmp_path / "gzip", "emnist-letters-", ".gz", PIXELS.transpose(0, 2, 1), LABELS + 1)
    write_idx(source, "emnist-digits-", ".gz", 255 - PIXELS)
    with pytest.raises(DataError, match=r"holds several sets, emnist-digits, emnist-letters; name the data set as"):
        add("mine", source, tmp_path)
    home = add("emnist-letters", source, tmp_path)
    assert len(list(home.iterdir())) == 4
    assert (dataset_of(DataSpec(name="emnist-letters"), tmp_path).train_x[:, 0] == PIXELS).all()


def test_a_set_without_a_name_is_not_taken_for_the_one_of_the_name(tmp_path: Path) -> None:
    """MNIST beside EMNIST, for instance."""
    source = write_idx(tmp_path / "both", "", "", 255 - PIXELS)
    write_idx(source, "kmnist-", "")
    with pytest.raises(DataError, match="holds several sets, kmnist, one without a name; name the data set as the one"):
        add("mine", source, tmp_path)
    add("kmnist", source, tmp_path)
    assert (dataset_of(DataSpec(name="kmnist"), tmp_path).train_x[:, 0] == PIXELS).all()


def test_a_folder_that_an_archive_was_unpacked_to_is_pointed_at(tmp_path: Path) -> None:
    write_idx(tmp_path / "mine", "", "")
    (tmp_path / "download" / "__MACOSX").mkdir(parents=True)
    shutil.move(tmp_path / "mine", tmp_path / "download" / "inner")
    with pytest.raises(DataError, match='holds no data set this version reads; its folder "inner" may be the one'):
        add("mine", tmp_path / "download", tmp_path)

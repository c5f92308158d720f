"""Every reader on files made here: the same pixels whatever the format, and one clear sentence for every fault."""

import errno
import gzip
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from overparam.data import cache
from overparam.data.add import add
from overparam.data.load import content_digest, dataset_of, prepare
from overparam.data.sources import available, remark
from overparam.data.types import DataError
from overparam.foundations.numpy_generators import numpy_generator
from overparam.specs import DataSpec

GENERATOR = numpy_generator(0, "images")
COUNTS = {"train": 40, "test": 20}
COLOUR = {part: GENERATOR.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8) for part, n in COUNTS.items()}
GREY = {part: x[:, :1, :28, :28] for part, x in COLOUR.items()}
LABELS = {part: np.arange(n) % 10 for part, n in COUNTS.items()}


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def write_parquet(home: Path, images: dict[str, np.ndarray], column: str = "image", shards: int = 1) -> None:
    home.mkdir(parents=True)
    for part, x in images.items():
        for shard, chosen in enumerate(np.array_split(np.arange(len(x)), shards)):
            rows = [{"bytes": png(x[i]), "path": f"{i}.png"} for i in chosen]
            table = pl.DataFrame({column: rows, "label": LABELS[part][chosen]})
            table.write_parquet(home / f"{part}-{shard:05d}-of-{shards:05d}.parquet")


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(home: Path, images: dict[str, np.ndarray]) -> None:
    home.mkdir(parents=True)
    for part, stem in (("train", "train"), ("test", "t10k")):
        (home / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(images[part][:, 0]))
        (home / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(LABELS[part])))


def write_cifar(home: Path, images: dict[str, np.ndarray]) -> None:
    home.mkdir(parents=True)
    records = {
        part: np.concatenate([LABELS[part].astype(np.uint8)[:, None], x.reshape(len(x), -1)], axis=1)
        for part, x in images.items()
    }
    (home / "data_batch_1.bin").write_bytes(records["train"][:20].tobytes())
    (home / "data_batch_2.bin").write_bytes(records["train"][20:].tobytes())
    (home / "test_batch.bin").write_bytes(records["test"].tobytes())


def write_npz(home: Path, images: dict[str, np.ndarray]) -> None:
    home.mkdir(parents=True)
    channels_last = {part: x.transpose(0, 2, 3, 1) for part, x in images.items()}
    np.savez(
        home / "data.npz",
        x_train=channels_last["train"],
        y_train=LABELS["train"],
        x_test=channels_last["test"],
        y_test=LABELS["test"],
    )


def write_folder(home: Path, images: dict[str, np.ndarray]) -> None:
    for part, x in images.items():
        for index, (image, label) in enumerate(zip(x, LABELS[part], strict=True)):
            folder = home / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index:03d}.png").write_bytes(png(image))


Writer = Callable[[Path, dict[str, np.ndarray]], None]


@pytest.mark.parametrize(
    ("write", "images"),
    [
        (write_parquet, GREY),
        (lambda home, x: write_parquet(home, x, "img", shards=3), COLOUR),
        (write_idx, GREY),
        (write_cifar, COLOUR),
        (write_npz, GREY),
        (write_npz, COLOUR),
        (write_folder, COLOUR),
    ],
    ids=["parquet", "parquet shards", "idx", "cifar", "npz grey", "npz colour", "folder"],
)
def test_every_format_gives_the_pixels_that_were_written(
    tmp_path: Path, write: Writer, images: dict[str, np.ndarray]
) -> None:
    write(tmp_path / "mine", images)
    found = dataset_of(DataSpec(name="mine"), tmp_path)
    for part, x in (("train", found.train_x), ("test", found.test_x)):
        order: np.ndarray = np.arange(COUNTS[part])
        if write is write_folder:  # its classes come one after the other, and are mixed
            mixed = numpy_generator(0, "folder", part).permutation(COUNTS[part])
            order = np.argsort(LABELS[part], kind="stable")[mixed]
        assert (x == images[part][order]).all()
        assert (found.arrays()[f"{part}_y"] == LABELS[part][order]).all()
    assert found.num_classes == 10


def test_one_content_has_one_digest_whatever_its_format(tmp_path: Path) -> None:
    writers: dict[str, Writer] = {"a": write_parquet, "b": write_npz, "c": write_cifar}
    for name, write in writers.items():
        write(tmp_path / name, COLOUR)
    digests = {content_digest(DataSpec(name=name), data_dir=tmp_path) for name in writers}
    assert len(digests) == 1
    changed = {part: x.copy() for part, x in COLOUR.items()}
    changed["test"][0, 0, 0, 0] ^= 1
    write_npz(tmp_path / "d", changed)
    assert content_digest(DataSpec(name="d"), data_dir=tmp_path) not in digests


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("train_x.npy", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        ("train_x.npy", lambda content: b""),
        ("train_x.npy", lambda content: content.replace(b"}", b"(", 1)),
        ("meta.json", lambda content: b"[]"),
    ],
    ids=["a bit", "empty", "header", "meta"],
)
def test_files_are_decoded_once_and_a_damaged_cache_is_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, damage: Callable[[bytes], bytes]
) -> None:
    """What was decoded is written to a new file. Another path to the same folder is not known in memory."""
    monkeypatch.setenv("OVERPARAM_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path / "mine", GREY)
    first = content_digest(DataSpec(name="mine"), data_dir=tmp_path)
    (stored,) = (tmp_path / "cache").glob(f"decoded/*/{part}")
    content, written = stored.read_bytes(), stored.stat()
    assert content_digest(DataSpec(name="mine"), data_dir=tmp_path / "mine" / "..") == first
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    stored.write_bytes(damage(content))
    assert content_digest(DataSpec(name="mine"), data_dir=tmp_path / "mine" / ".." / "mine" / "..") == first
    assert stored.read_bytes() == content


def test_an_unwritable_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OVERPARAM_CACHE", str(tmp_path / "file"))
    write_npz(tmp_path / "mine", GREY)
    assert dataset_of(DataSpec(name="mine"), tmp_path).num_classes == 10


def test_half_a_cache_entry_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("OVERPARAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", full)
    write_npz(tmp_path / "mine", GREY)
    assert dataset_of(DataSpec(name="mine"), tmp_path).num_classes == 10
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []


def truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 + 1])


def fault(home: Path, name: str) -> None:  # noqa: C901 - a list of faults
    """Write a data set with one fault."""
    match name:
        case "truncated parquet":
            write_parquet(home, GREY)
            truncate(home / "train-00000-of-00001.parquet")
        case "wrong column":
            write_parquet(home, GREY, column="picture")
        case "label out of range":
            write_npz(home, GREY)
            arrays = dict(np.load(home / "data.npz"))
            arrays["y_train"][3] = -1
            np.savez(home / "data.npz", **arrays)
        case "class without examples":
            write_npz(home, GREY)
            arrays = dict(np.load(home / "data.npz"))
            arrays["y_train"] = np.where(arrays["y_train"] == 4, 5, arrays["y_train"])
            np.savez(home / "data.npz", **arrays)
        case "mixed sizes":
            write_folder(home, GREY)
            (home / "train" / "class0" / "odd.png").write_bytes(png(np.zeros((1, 9, 9), dtype=np.uint8)))
        case "broken image":
            write_folder(home, GREY)
            (home / "train" / "class0" / "odd.png").write_bytes(b"no image")
        case "truncated idx":
            write_idx(home, GREY)
            truncate(home / "train-images-idx3-ubyte")
        case "truncated gzip":
            write_idx(home, GREY)
            truncate(home / "train-labels-idx1-ubyte.gz")
        case "truncated cifar":
            write_cifar(home, COLOUR)
            truncate(home / "data_batch_2.bin")
        case "missing cifar batch":
            home.mkdir()
            record = np.zeros((10_000, 3073), dtype=np.uint8)
            record[:, 0] = np.arange(10_000) % 10
            for name in ("data_batch_1.bin", "data_batch_3.bin", "test_batch.bin"):
                record.tofile(home / name)
        case "missing shard":
            write_parquet(home, GREY)
            (home / "train-00000-of-00001.parquet").rename(home / "train-00000-of-00005.parquet")
        case "idx header":
            write_idx(home, GREY)
            (home / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03\x00\x00\x00\x01")
        case "many-hot labels":
            write_npz(home, GREY)
            arrays = dict(np.load(home / "data.npz"))
            arrays["y_train"] = np.eye(10, dtype=np.int64)[arrays["y_train"]]
            arrays["y_train"][3] = 1
            np.savez(home / "data.npz", **arrays)
        case "missing array":
            home.mkdir()
            np.savez(home / "data.npz", x_train=GREY["train"])
        case "pickled objects":
            home.mkdir()
            np.savez(home / "data.npz", x_train=np.array([{}], dtype=object))
        case "no layout":
            home.mkdir()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated parquet", "cannot be read as Parquet .* get it again"),
        ("wrong column", "has the columns picture, label; it needs label and one of image, img"),
        ("label out of range", "train label -1 is out of range"),
        ("class without examples", r"class 4 of 0 … 9 has no training example"),
        ("mixed sizes", "mixes image sizes .*1 channels 9×9"),
        ("broken image", r"odd.png is not a readable image"),
        ("truncated idx", "is truncated: .* its header promises"),
        ("truncated gzip", "cannot be decompressed"),
        ("truncated cifar", "bytes are no multiple of 3073"),
        (
            "missing cifar batch",
            "has only data_batch_1.bin, data_batch_3.bin; data_batch_1.bin to data_batch_5.bin are",
        ),
        ("missing shard", "has 1 train shards, but their names promise 5"),
        ("idx header", "is truncated: 8 bytes, but its header alone has 16"),
        (
            "many-hot labels",
            r"y_train has shape \(40, 10\); labels are whole numbers of shape \(N,\), or .* exactly one-hot",
        ),
        ("missing array", "it needs y_train|it needs x_test"),
        ("pickled objects", "without pickled objects"),
        ("no layout", "holds no data set this version reads; expected"),
    ],
)
def test_faults_are_one_clear_sentence_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setenv("OVERPARAM_CACHE", str(tmp_path / "cache"))
    fault(tmp_path / "mine", name)
    with pytest.raises(DataError, match=message) as caught:
        dataset_of(DataSpec(name="mine"), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_missing_data_set_says_where_it_was_looked_for_and_what_is_near(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'"cifar" is not embedded .* does not exist.*OVERPARAM_DATA'):
        prepare(DataSpec(name="cifar"), data_dir=tmp_path)
    write_npz(tmp_path / "cifar10", COLOUR)
    with pytest.raises(DataError, match=r'Did you mean "cifar10"\?'):
        prepare(DataSpec(name="cifar"), data_dir=tmp_path)
    assert ("cifar10", ".npz", str(tmp_path / "cifar10"), ()) in available(tmp_path)


def test_a_data_set_is_checked_before_it_is_added(tmp_path: Path) -> None:
    write_parquet(tmp_path / "good", GREY)
    home = add("mine", tmp_path / "good", tmp_path / "data")
    assert home == tmp_path / "data" / "mine"
    assert dataset_of(DataSpec(name="mine"), tmp_path / "data").train_x.shape == GREY["train"].shape
    with pytest.raises(DataError, match='"mine" exists already'):
        add("mine", tmp_path / "good", tmp_path / "data")
    fault(tmp_path / "bad", "truncated parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        add("other", tmp_path / "bad", tmp_path / "data")
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["mine"]


def test_an_interrupted_add_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "good", GREY)
    copied: list[Path] = []

    def copy_one(source: Path, target: Path) -> None:
        if copied:
            raise KeyboardInterrupt
        copied.append(target)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", copy_one)
    with pytest.raises(KeyboardInterrupt):
        add("mine", tmp_path / "good", tmp_path / "data")
    assert copied and list((tmp_path / "data").iterdir()) == []


def test_an_added_data_set_is_on_the_disk_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there at each sync: all files in the draft, then the data set in its place."""
    write_folder(tmp_path / "good", GREY)
    data, sync, fsync = tmp_path / "data", os.sync, os.fsync
    seen: list[tuple[str, list[str]]] = []

    def noted(what: str) -> None:
        seen.append((what, sorted(entry.name for entry in data.iterdir())))

    def of_directory(descriptor: int) -> None:
        fsync(descriptor)
        if data.exists() and os.fstat(descriptor).st_ino == data.stat().st_ino:
            noted("names")

    def of_all() -> None:
        sync()
        noted("files")

    monkeypatch.setattr(os, "sync", of_all)
    monkeypatch.setattr(os, "fsync", of_directory)
    assert add("mine", tmp_path / "good", data).is_dir()
    (first, draft), (last, there) = seen
    assert (first, len(draft), draft[0].startswith(".mine-")) == ("files", 1, True)
    assert (last, there) == ("names", ["mine"])


@pytest.mark.skipif(not hasattr(os, "sync"), reason="without it every file is synced anyway")
def test_without_a_common_sync_every_file_of_an_added_data_set_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    monkeypatch.delattr(os, "sync")
    write_folder(tmp_path / "good", GREY)
    home = add("mine", tmp_path / "good", tmp_path / "data")
    assert {file.stat().st_ino for file in home.rglob("*") if file.is_file()} <= set(synced)


def test_a_draft_is_no_data_set(tmp_path: Path) -> None:
    """One that a killed `data add` left, with all its files."""
    write_npz(tmp_path / ".mine-0f", GREY)
    assert [each.name for each in available(tmp_path)] == ["digits", "mnist1d"]
    with pytest.raises(DataError) as caught:
        prepare(DataSpec(name="mine-0f"), data_dir=tmp_path)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["../mine", "a/b", "a\\b", "..", ".mine", "", "/mine"])
def test_a_data_set_is_added_in_the_data_directory_and_nowhere_else(tmp_path: Path, name: str) -> None:
    write_npz(tmp_path / "good", GREY)
    with pytest.raises(DataError, match=r"cannot name a data set; allowed: text without / and"):
        add(name, tmp_path / "good", tmp_path / "data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["good"]


def test_lossy_pixels_and_absent_data_are_remarked_on(tmp_path: Path) -> None:
    write_parquet(tmp_path / "exact", GREY)
    assert remark(DataSpec(name="exact"), tmp_path) == ""
    stream = io.BytesIO()
    Image.fromarray(COLOUR["train"][0].transpose(1, 2, 0)).save(stream, format="JPEG")
    (tmp_path / "lossy").mkdir()
    table = pl.DataFrame({"image": [{"bytes": stream.getvalue(), "path": ""}], "label": [0]})
    for part in ("train", "test"):
        table.write_parquet(tmp_path / "lossy" / f"{part}-0.parquet")
    assert "lossy (JPEG)" in remark(DataSpec(name="lossy"), tmp_path)
    assert "not at hand" in remark(DataSpec(name="gone"), tmp_path)
    assert remark(DataSpec(name="digits"), tmp_path) == ""


def test_cache_marks_change_with_the_files(tmp_path: Path) -> None:
    """Also if another file of the same size and time is moved to the place of the first."""
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("1")
    first, before = cache.fingerprint("x", [file]), file.stat()
    other.write_text("2")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, file)
    second = cache.fingerprint("x", [file])
    os.utime(file, ns=(0, 0))
    assert len({first, second, cache.fingerprint("x", [file])}) == 3

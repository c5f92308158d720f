"""Files as they come from elsewhere: damaged, promising too much, of other kinds than named, or replaced meanwhile."""

import gzip
import io
import os
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overparam.data import check, load
from overparam.data.load import content_digest, dataset_of, prepare, sizes
from overparam.data.readers.arrays import read_npz
from overparam.data.readers.depth import is_deep
from overparam.data.readers.folder import read_folder
from overparam.data.readers.idx import read_idx
from overparam.data.readers.images import decode_images
from overparam.data.types import Array, DataError, Dataset
from overparam.foundations.numpy_generators import numpy_generator
from overparam.specs import DataSpec

PIXELS = numpy_generator(0, "unsound").integers(0, 256, (30, 8, 8), dtype=np.uint8)
LABELS = np.arange(30) % 3
SPEC = DataSpec(name="mine")


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def write_npz(home: Path, **changed: Any) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS, "y_test": LABELS}
    np.savez(home / "data.npz", **(arrays | changed))
    return home / "data.npz"


def write_folder(home: Path) -> Path:
    for part in ("train", "test"):
        for index, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
            folder = home / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.png").write_bytes(png(pixels))
    return home


def idx(array: np.ndarray, promised: tuple[int, ...] | None = None) -> bytes:
    shape = promised or array.shape
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + array.astype("u1").tobytes()


def encrypted(content: bytes) -> bytes:
    """The archive with the flag of encryption on every entry of its directory."""
    changed = bytearray(content)
    start = changed.find(b"PK\x01\x02")
    while start >= 0:
        changed[start + 8] |= 1
        start = changed.find(b"PK\x01\x02", start + 1)
    return bytes(changed)


def test_the_first_images_of_a_folder_are_of_all_classes(tmp_path: Path) -> None:
    raw = read_folder(write_folder(tmp_path))
    for part in ("train", "test"):
        assert set(raw[f"{part}_y"][:15].tolist()) == {0, 1, 2}
        for pixels, label in zip(raw[f"{part}_x"], raw[f"{part}_y"], strict=True):
            assert (PIXELS[label == LABELS] == pixels).all(axis=(1, 2)).any(), "an image keeps its label"


def test_what_other_programs_leave_in_a_folder_is_no_data(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / ".ipynb_checkpoints" / "0.png").write_bytes(png(PIXELS[0]))
    for part in ("train", "test"):
        (tmp_path / part / "__MACOSX" / "class1").mkdir(parents=True)
        (tmp_path / part / "__MACOSX" / "class1" / "0.png").write_bytes(b"no image")
        (tmp_path / part / ".DS_Store").write_bytes(b"no image")
    for name in ("._0.png", ".0.tif", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / "train" / "class1" / name).write_bytes(b"no image")
    raw = read_folder(tmp_path)
    assert np.bincount(raw["train_y"].astype(np.int64)).tolist() == [10, 10, 10]
    assert len(raw["train_x"]) == len(raw["test_x"]) == 30


@pytest.mark.parametrize("name", ["odd.tif", "odd.GIF", "odd.txt", "odd.JPEG2"])
def test_images_that_are_not_read_are_not_dropped_in_silence(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "class1" / name).write_bytes(b"")
    message = rf'{name} cannot be read: its suffix is "{name[3:]}"; images end in \.bmp, \.jpeg, \.jpg, \.png, \.webp'
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_images_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    """Pillow would make every pixel above 255 white."""
    write_folder(tmp_path)
    (tmp_path / "train" / "class0" / "deep.png").write_bytes(png(PIXELS[0].astype(np.uint16) * 257))
    with pytest.raises(DataError, match=r'deep\.png has pixels of mode "I(;16)?"; allowed: 1, L, LA, P, RGB, '):
        read_folder(tmp_path)


DEEP = PIXELS[0].astype(np.uint16) * 257


def deep_png(pixels: Array, kind: int) -> bytes:
    """16 bits per channel, of which Pillow writes grey ones only."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, content) for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def deep_tiff(pixels: Array) -> bytes:
    height, width, data = *pixels.shape[:2], pixels.astype("<u2").tobytes()
    start = 8 + 2 + 12 * 9 + 4
    entries = [(256, width), (257, height), (258, start), (259, 1), (262, 2), (273, start + 6), (277, 3), (278, height)]
    fields = [(tag, 3, 3 if tag == 258 else 1, value) for tag, value in entries] + [(279, 4, 1, len(data))]
    table = b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0" + struct.pack("<IH", 8, 9) + table + bytes(4) + struct.pack("<3H", 16, 16, 16) + data


def colours(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.tile(PIXELS[:3].transpose(1, 2, 0), (2, 2, 1))).save(stream, format=kind)
    return stream.getvalue()


def raised(content: bytes, mark: bytes, distance: int, bits: int) -> bytes:
    """An image whose header says more than it holds."""
    place = content.index(mark) + len(mark) + distance
    return content[:place] + bytes([content[place] | bits]) + content[place + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        *(deep_png(np.dstack([DEEP] * channels), kind) for channels, kind in ((3, 2), (2, 4), (4, 6))),
        deep_tiff(np.dstack([DEEP] * 3)),
        b"P6 8 8 4095\n" + np.dstack([DEEP // 16] * 3).astype(">u2").tobytes(),
        raised(colours("JPEG2000"), b"\xff\x51", 38, 8),
    ],
    ids=["RGB", "LA", "RGBA", "TIFF", "PPM", "JPEG 2000"],
)
def test_colours_of_more_than_eight_bits_are_not_cut_in_silence(content: bytes) -> None:
    with pytest.raises(
        DataError, match=r'a has pixels of mode "RGBA?" and more than eight bits per channel; allowed: 1'
    ):
        decode_images([("a", content)], Path())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000", "AVIF", "SGI", "BMP", "GIF", "WEBP", "TGA"])
def test_eight_bits_are_not_too_many(kind: str) -> None:
    assert decode_images([("a", colours(kind))], Path()).shape == (1, 3, 16, 16)


def test_the_depth_of_avif_is_in_its_header() -> None:
    content = colours("AVIF")
    with Image.open(io.BytesIO(content)) as image:
        assert not is_deep(image, content) and is_deep(image, raised(content, b"av1C", 2, 0x40))


def test_an_image_that_is_too_large_to_be_honest_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"a\.png is not a readable image \(Image size \(64 pixels\) exceeds limit"):
        decode_images([("a.png", png(PIXELS[0]))], tmp_path)


def test_an_image_of_another_size_is_refused_before_its_pixels_are_decoded(tmp_path: Path) -> None:
    large = png(np.tile(PIXELS[0], (12, 12)))[:60]  # its header, and too little for any pixel
    with pytest.raises(DataError, match=r"mixes image sizes \(1 channels 8×8 and 1 channels 96×96: b\.png is not like"):
        decode_images([("a.png", png(PIXELS[0])), ("b.png", large)], tmp_path)


def test_flattened_images_are_not_taken_for_signals(tmp_path: Path) -> None:
    file = write_npz(tmp_path, x_train=PIXELS.reshape(30, 64))
    with pytest.raises(DataError, match=r"x_train is uint8 of shape \(30, 64\), .* reshape flattened images to \(N, H"):
        read_npz(file)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_inputs_that_are_not_finite_are_counted(tmp_path: Path, value: float) -> None:
    signals = np.cos(np.arange(120.0)).reshape(30, 4)
    spoilt = signals.copy()
    spoilt[3, :2] = value
    write_npz(tmp_path / "mine", x_train=signals, x_test=spoilt)
    with pytest.raises(DataError, match="mine: 2 values of the test inputs are NaN or infinite as float32"):
        dataset_of(SPEC, tmp_path)


def test_arrays_that_nothing_asks_for_are_not_read(tmp_path: Path) -> None:
    raw = read_npz(write_npz(tmp_path, notes=np.array([{}], dtype=object)))
    assert (raw["train_x"][:, 0] == PIXELS).all()


@pytest.mark.parametrize(
    "damage",
    [
        encrypted,
        lambda content: content.replace(b"(30,), }" + b" " * 14, b"(30" + b"0" * 14 + b",), }"),
        lambda content: content.replace(b"'descr': '", b"'descr': (("),
    ],
    ids=["encrypted", "petabytes", "no header"],
)
def test_a_damaged_archive_is_an_error_in_words(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """`damage` is done to the whole archive, or to the members before their checksums are made."""
    file = write_npz(tmp_path)
    if damage is encrypted:
        file.write_bytes(damage(file.read_bytes()))
    else:
        with zipfile.ZipFile(file) as archive:
            members = {name: damage(archive.read(name)) for name in archive.namelist()}
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with pytest.raises(DataError, match=r"data\.npz cannot be read as \.npz without pickled objects \(.+\)$") as caught:
        read_npz(file)
    assert "\n" not in str(caught.value)


def test_a_member_that_is_no_array_is_an_error_in_words(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x_train", b"text")
    with pytest.raises(DataError, match="x_train is no numpy array; write the file with numpy.savez"):
        read_npz(tmp_path / "data.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(PIXELS, (29, 8, 8)), "is too long: its header promises 1,872 bytes; get it again"),
        (idx(PIXELS, (2**32 - 1,) * 3), r"is truncated: 1,936 bytes, but its header promises 79,"),
        (bytes([0, 0, 8, 0, 1]), "is not an IDX file of bytes: its first four bytes are 00000800"),
    ],
    ids=["more", "fewer", "no dimension"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_holds_what_its_header_promises(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    file = tmp_path / f"train-images-idx3-ubyte{suffix}"
    file.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=message):
        read_idx(file)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_that_cannot_be_opened_is_not_called_truncated(tmp_path: Path, suffix: str) -> None:
    place = tmp_path / f"train-images-idx3-ubyte{suffix}"
    place.mkdir()
    with pytest.raises(DataError, match=r"cannot be opened \(.+\); it must be a file that you are allowed to read"):
        read_idx(place)


def test_folders_called_like_idx_files_are_passed_over(tmp_path: Path) -> None:
    """An archive may be unpacked to the files and to folders of nearly the same names."""
    home = tmp_path / "mine"
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS)):
            (home / f"{part}-{kind}-ubyte").mkdir(parents=True)
            (home / f"{part}-{kind.replace('-', '.')}-ubyte").write_bytes(idx(array))
    assert (dataset_of(SPEC, tmp_path).train_x[:, 0] == PIXELS).all()


def test_published_constants_are_those_of_images_with_these_channels() -> None:
    def named(name: str, x: Array) -> Dataset:
        return check.dataset(name, {"train_x": x, "train_y": LABELS, "test_x": x, "test_y": LABELS})

    grey = named("cifar10", PIXELS[:, None])
    assert grey.mean == pytest.approx((PIXELS.mean() / 255,))
    assert len(grey.std) == 1
    assert named("mnist", PIXELS[:, None]).mean == (0.1307,)
    assert named("mnist", np.zeros((30, 4), dtype=np.float32)).std == (1.0,)


def test_a_file_replaced_in_a_running_process_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_npz(tmp_path / "mine")
    first, before = prepare(SPEC, data_dir=tmp_path), file.stat()
    assert sizes(SPEC, data_dir=tmp_path).test == 30
    assert prepare(SPEC, data_dir=tmp_path) is first
    other = write_npz(tmp_path / "new", x_train=255 - PIXELS, x_test=PIXELS[:20], y_test=LABELS[:20])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, file)
    assert content_digest(SPEC, data_dir=tmp_path) != first.digest
    later = time.monotonic() + load.LOOK_AGAIN
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert prepare(SPEC, data_dir=tmp_path).digest != first.digest
    assert sizes(SPEC, data_dir=tmp_path).test == 20


def test_files_are_not_looked_at_again_for_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a large image folder that takes a second: that the files are gone is seen at the next look only."""
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    write_npz(tmp_path / "mine")
    specs = [SPEC.model_copy(update={"data_seed": seed}) for seed in range(2)]
    first = [(prepare(spec, data_dir=tmp_path).digest, sizes(spec, data_dir=tmp_path)) for spec in specs]
    shutil.rmtree(tmp_path / "mine")
    assert first == [(prepare(spec, data_dir=tmp_path).digest, sizes(spec, data_dir=tmp_path)) for spec in specs]
    clock[0] += load.LOOK_AGAIN
    for look in (prepare, sizes):
        with pytest.raises(DataError, match="mine does not exist"):
            look(SPEC, data_dir=tmp_path)


def test_the_same_relative_folder_is_another_one_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "a" / "data" / "mine")
    write_npz(tmp_path / "b" / "data" / "mine", x_train=255 - PIXELS)
    digests = []
    for place in ("a", "b"):
        monkeypatch.chdir(tmp_path / place)
        digests.append(prepare(SPEC, data_dir=Path("data")).digest)
    assert len(set(digests)) == 2

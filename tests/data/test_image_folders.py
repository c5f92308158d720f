"""Image folders as people have them: nothing is left out in silence, and what is changed is said."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from overparam.data.add import add
from overparam.data.load import dataset_of
from overparam.data.readers.images import decode_images
from overparam.data.sources import available, remark
from overparam.data.types import Array, DataError
from overparam.foundations.numpy_generators import numpy_generator
from overparam.specs import DataSpec

PIXELS = numpy_generator(0, "image folders").integers(0, 256, (24, 6, 6), dtype=np.uint8)
SPEC = DataSpec(name="mine")


def png(pixels: Array, mode: str | None = None, **settings: object) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, format="PNG", **settings)
    return stream.getvalue()


def put(file: Path, content: bytes = b"no image") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def write(folder: Path, classes: list[str], parts: tuple[str, str] = ("train", "test"), each: int = 2) -> Path:
    """Images of each class whose upper left pixel is the place of the class in the list."""
    for part in parts:
        for number, name in enumerate(classes):
            for index in range(each):
                pixels = PIXELS[index].copy()
                pixels[0, 0] = number
                put(folder / "mine" / part / name / f"{index}.png", png(pixels))
    return folder / "mine"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("train/a/inner/x.png", r"x\.png lies deeper than in its class folder .*a; move it up into that"),
        ("train/a/inner/more/x.png", r"x\.png lies deeper than in its class folder"),
        ("test/a/x", r"test/a/x cannot be read: its name has no suffix; images end in \.bmp, "),
        ("train/b/x.xyz", r'x\.xyz cannot be read: its suffix is "\.xyz"; images end in'),
        ("train/b/labels.csv", r'labels\.csv cannot be read: its suffix is "\.csv"; .*: convert it or take it out'),
        ("train/x.png", r"train/x\.png lies in no class folder; put it into .*train/CLASS, or take it out"),
        ("test/labels.csv", r"test/labels\.csv lies in no class folder"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(tmp_path: Path, place: str, message: str) -> None:
    """Also when it comes to a data set that was decoded before."""
    home = write(tmp_path, ["a", "b"])
    assert dataset_of(SPEC, tmp_path).num_classes == 2
    put(home / place, png(PIXELS[0]))
    with pytest.raises(DataError, match=message):
        dataset_of(SPEC, tmp_path)


def test_a_link_in_a_class_folder_is_not_passed_over(tmp_path: Path) -> None:
    home = write(tmp_path, ["a", "b"])
    (home / "train" / "a" / "more").symlink_to(home / "train" / "b")
    with pytest.raises(DataError, match=r"train/a/more cannot be read"):
        dataset_of(SPEC, tmp_path)


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    home = write(tmp_path, ["a", "b"])
    os.rename(home / "train" / "b", tmp_path / "elsewhere")
    (home / "train" / "b").symlink_to(tmp_path / "elsewhere")
    assert np.bincount(dataset_of(SPEC, tmp_path).train_y).tolist() == [2, 2]


def test_what_systems_and_archives_leave_is_no_data(tmp_path: Path) -> None:
    home = write(tmp_path, ["a", "b"])
    for place in (".DS_Store", "train/.DS_Store", "train/Thumbs.db", "train/a/.DS_Store", "train/a/Thumbs.db"):
        put(home / place)
    for folder in ("train/__MACOSX/a", "train/a/__MACOSX", "train/a/.ipynb_checkpoints", "__MACOSX/train/a"):
        put(home / folder / "x.png")
    put(tmp_path / "__MACOSX" / "train" / "a" / "x.png")
    assert np.bincount(dataset_of(SPEC, tmp_path).train_y).tolist() == [2, 2]
    assert [name for name, *_ in available(tmp_path)] == ["digits", "mnist1d", "mine"]


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    write(tmp_path, [str(number) for number in range(12)])
    found = dataset_of(SPEC, tmp_path)
    assert (found.train_x[:, 0, 0, 0] == found.train_y).all() and (found.test_x[:, 0, 0, 0] == found.test_y).all()
    assert "in the order of their numbers: 0, 1, 2 … 11" in remark(SPEC, tmp_path)


@pytest.mark.parametrize(
    ("classes", "order"),
    [
        (["1", "10", "2", "x"], [0, 1, 2, 3]),
        (["b", "a"], [1, 0]),
        (["07", "7", "10"], [0, 1, 2]),
        (["003", "1"], [1, 0]),
    ],
)
def test_other_classes_are_in_the_order_of_texts(tmp_path: Path, classes: list[str], order: list[int]) -> None:
    write(tmp_path, classes)
    found = dataset_of(SPEC, tmp_path)
    assert [int(found.train_x[found.train_y == label][0, 0, 0, 0]) for label in range(len(classes))] == order


def with_alpha(colour: int, alpha: int) -> Array:
    """A shape that only the alpha channel shows: 255 in the middle, `alpha` around it."""
    x = np.full((6, 6, 4), colour, dtype=np.uint8)
    x[..., 3] = alpha
    x[2:4, 2:4, 3] = 255
    return x


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_shape_in_the_alpha_channel_is_seen_on_white(tmp_path: Path, mode: str) -> None:
    """The colour of transparent pixels is black, as programs write it."""
    (tmp_path / "mine").mkdir()
    for part in ("train", "test"):
        put(tmp_path / "mine" / part / "a" / "0.png", png(with_alpha(0, 0), mode))
        put(tmp_path / "mine" / part / "b" / "0.png", png(np.zeros((6, 6, 3), dtype=np.uint8)))
    found = dataset_of(SPEC, tmp_path)
    (shape,) = found.train_x[found.train_y == 0]
    assert (shape[:, 2:4, 2:4] == 0).all() and (shape.sum() == 255 * 3 * 32)
    assert "2 of 4 images have transparent pixels; they are put on white" in remark(SPEC, tmp_path)


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    (x,) = decode_images([("a.png", png(with_alpha(100, 51)))], tmp_path)
    assert x[0, 0].tolist() == [round(100 * 0.2 + 255 * 0.8)] * 6 and (x[:, 2:4, 2:4] == 100).all()


def test_a_grey_image_with_a_transparent_grey_stays_grey(tmp_path: Path) -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 6)
    (x,) = decode_images([("a.png", png(pixels, transparency=7))], tmp_path)
    assert (x == np.where(pixels == 7, 255, pixels)).all() and len(x) == 1


BLACK_AND_WHITE = PIXELS[0] // 128 * 255


@pytest.mark.parametrize(
    ("content", "transparent"),
    [
        (png(BLACK_AND_WHITE, "1"), False),
        (png(BLACK_AND_WHITE, "P"), False),
        (png(np.dstack([BLACK_AND_WHITE, np.full((6, 6), 255, dtype=np.uint8)])), False),
        (png(BLACK_AND_WHITE, "1", transparency=0), True),
        (png(BLACK_AND_WHITE, "P", transparency=0), True),
        (png(np.dstack([BLACK_AND_WHITE, BLACK_AND_WHITE])), True),
    ],
    ids=["1", "P", "LA", "transparent 1", "transparent P", "transparent LA"],
)
def test_grey_images_have_one_channel_however_they_are_stored(
    tmp_path: Path, content: bytes, transparent: bool
) -> None:
    """Where they are transparent these are black, which becomes white."""
    notes: list[str] = []
    (x,) = decode_images([("a.png", content)], tmp_path, notes.append)
    assert x.shape == (1, 6, 6) and (x[0] == np.where(transparent, 255, BLACK_AND_WHITE)).all()
    assert len(notes) == transparent


def test_a_palette_of_colours_is_no_grey(tmp_path: Path) -> None:
    colours = PIXELS[:3].transpose(1, 2, 0) // 128 * 255
    (x,) = decode_images([("a.png", png(colours, "P"))], tmp_path)
    assert x.shape == (3, 6, 6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_opaque_pixels_are_as_they_were(tmp_path: Path, mode: str) -> None:
    """An alpha channel that hides nothing changes nothing, and is not spoken of."""
    notes: list[str] = []
    grey = np.repeat(PIXELS[0][:, :, None], 3, axis=2) // 64 * 64
    content = png(np.dstack([grey, np.full((6, 6), 255, dtype=np.uint8)]), mode)
    (x,) = decode_images([("a.png", content)], tmp_path, notes.append)
    assert (x == grey.transpose(2, 0, 1)).all() and notes == []


def test_grey_images_among_colour_ones_get_three_channels(tmp_path: Path) -> None:
    """Also if those of one part are all grey."""
    home = write(tmp_path, ["a", "b"])
    colour = PIXELS[:3].transpose(1, 2, 0).copy()
    put(home / "train" / "b" / "9.png", png(colour))
    found = dataset_of(SPEC, tmp_path)
    assert found.train_x.shape == (5, 3, 6, 6) and found.test_x.shape == (4, 3, 6, 6)
    assert (found.test_x == found.test_x[:, :1]).all()
    assert (found.train_x == PIXELS[:3]).all(axis=(1, 2, 3)).sum() == 1
    assert "8 of 9 images are grey; their one channel is taken three times" in remark(SPEC, tmp_path)


def test_sizes_are_still_not_mixed(tmp_path: Path) -> None:
    images = [("a.png", png(PIXELS[0])), ("b.png", png(np.zeros((7, 6, 3), dtype=np.uint8)))]
    with pytest.raises(DataError, match=r"mixes image sizes \(1 channels 6×6 and 3 channels 7×6: b\.png is not like"):
        decode_images(images, tmp_path)


@pytest.mark.parametrize("split", ["val", "valid", "validation"])
def test_a_validation_folder_stands_for_a_test_folder_that_is_not_there(tmp_path: Path, split: str) -> None:
    write(tmp_path, ["a", "b"], ("train", split))
    assert len(dataset_of(SPEC, tmp_path).test_y) == 4
    assert f'no test split; its split "{split}" is taken for it' in remark(SPEC, tmp_path)


def test_a_validation_folder_beside_a_test_folder_is_left_out_in_words(tmp_path: Path) -> None:
    home = write(tmp_path, ["a", "b"])
    put(home / "val" / "a" / "0.png", png(PIXELS[0]))
    assert len(dataset_of(SPEC, tmp_path).test_y) == 4
    assert 'split "val" is left out' in remark(SPEC, tmp_path)


CLASSES = ["n02", "n01", "n10"]


def write_tiny_imagenet(folder: Path) -> Path:
    """Three classes of two images, one of which is grey; validation images are labelled by their numbers."""
    home, lines = folder / "mine", []
    for number, name in enumerate(CLASSES):
        for index in range(2):
            pixels = np.stack([PIXELS[number]] * 3, axis=2)
            put(home / "train" / name / "images" / f"{name}_{index}.JPEG", png(pixels if index else PIXELS[number]))
            lines.append(f"val_{number}{index}.JPEG\t{name}\t0\t0\t5\t5\n")
            put(home / "val" / "images" / f"val_{number}{index}.JPEG", png(pixels))
        put(home / "train" / name / f"{name}_boxes.txt", b"n02_0.JPEG\t0\t0\t5\t5\n")
    put(home / "val" / "val_annotations.txt", "".join(lines).encode())
    put(home / "test" / "images" / "test_0.JPEG", png(PIXELS[5]))
    put(home / "wnids.txt", "\n".join(CLASSES).encode())
    return home


def test_tiny_imagenet_is_read_as_published(tmp_path: Path) -> None:
    add("copy", write_tiny_imagenet(tmp_path), tmp_path)
    for name in ("mine", "copy"):
        found = dataset_of(DataSpec(name=name), tmp_path)
        for x, y in ((found.train_x, found.train_y), (found.test_x, found.test_y)):
            expected = [PIXELS[CLASSES.index(sorted(CLASSES)[label])] for label in y]
            assert len(x) == 6 and (x == np.array(expected)[:, None]).all()
    said = remark(SPEC, tmp_path)
    assert "labelled by val_annotations.txt; those of test/ have no labels" in said and "2 of 12" not in said
    assert "3 of 12 images are grey" in said


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        ("train/n01/x.JPEG", b"", r"x\.JPEG is not of Tiny-ImageNet, whose images lie in .*train/CLASS/images"),
        ("train/n01/images/x.txt", b"", r'x\.txt cannot be read: its suffix is "\.txt"'),
        ("val/images/x.JPEG", b"", r"x\.JPEG has no annotation in .*val_annotations\.txt"),
        ("val/n01/x.JPEG", b"", r"x\.JPEG has no annotation in .*; its images lie in .*images"),
        (
            "val/val_annotations.txt",
            b"val_00.JPEG\n",
            r'has the line "val_00\.JPEG"; each names an image and its class',
        ),
        ("val/val_annotations.txt", b"val_00.JPEG\tn77\t0\n", r"class 'n77' of val_00\.JPEG has no training folder"),
    ],
)
def test_what_is_not_of_tiny_imagenet_is_refused(tmp_path: Path, place: str, content: bytes, message: str) -> None:
    put(write_tiny_imagenet(tmp_path) / place, content)
    with pytest.raises(DataError, match=message):
        dataset_of(SPEC, tmp_path)

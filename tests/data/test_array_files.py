"""Arrays in an .npz file as people have them: axes, types and labels of every usual form, or one true sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overparam.data.add import add
from overparam.data.load import dataset_of, prepare
from overparam.data.sources import remark
from overparam.data.types import Array, DataError, Dataset
from overparam.foundations.numpy_generators import numpy_generator
from overparam.specs import DataSpec

GENERATOR = numpy_generator(0, "array files")
GREY = GENERATOR.integers(0, 256, (12, 8, 8), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
GREY[0, 0, :2] = COLOUR[0, 0, 0, :2] = 0, 255
LABELS = np.arange(12) % 3
SPEC = DataSpec(name="mine")


def write(folder: Path, x: Array, y: Array = LABELS, names: str = "x_{0} y_{0}", **others: Any) -> Path:
    """One array of inputs and one of labels for both parts."""
    home = folder / "mine"
    home.mkdir(parents=True)
    inputs, labels = names.split()
    arrays = {name.format(part): array for part in ("train", "test") for name, array in ((inputs, x), (labels, y))}
    np.savez(home / "data.npz", **(arrays | others))
    return home


def read(folder: Path, x: Array, y: Array = LABELS, names: str = "x_{0} y_{0}", **others: Any) -> Dataset:
    write(folder, x, y, names, **others)
    return dataset_of(SPEC, folder)


AMBIGUOUS = [(12, 8, 8, 13), (12, 13, 8, 8), (12, 3, 8, 3), (12, 1, 8, 1), (12, 3, 3, 3)]


@pytest.mark.parametrize("shape", AMBIGUOUS)
def test_where_the_channels_are_is_never_guessed(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"may be \(N, C, H, W\) or \(N, H, W, C\); say which, with --channels first"):
        read(tmp_path, np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_where_the_channels_are_is_told_once(tmp_path: Path, channels: str, by_hand: bool) -> None:
    x = GENERATOR.integers(0, 256, (12, 8, 5, 13), dtype=np.uint8)
    source = write(tmp_path, x)
    if by_hand:
        (source / "overparam.json").write_text(json.dumps({"channels": channels}))
        found = dataset_of(SPEC, tmp_path)
    else:
        add("mine", source, tmp_path / "data", channels=channels)
        found = dataset_of(SPEC, tmp_path / "data")
    assert (found.train_x == (x if channels == "first" else x.transpose(0, 3, 1, 2))).all()


def test_an_added_data_set_may_be_added_from_its_copy(tmp_path: Path) -> None:
    x = GENERATOR.integers(0, 256, (12, 8, 5, 13), dtype=np.uint8)
    copy = add("first", write(tmp_path, x), tmp_path / "data", channels="last")
    add("second", copy, tmp_path / "data")
    add("third", copy, tmp_path / "data", channels="first")
    shapes = [dataset_of(DataSpec(name=name), tmp_path / "data").train_x.shape[1:] for name in ("second", "third")]
    assert shapes == [(13, 8, 5), (8, 5, 13)]


@pytest.mark.parametrize(
    ("said", "x", "message"),
    [
        ({"channels": "middle"}, COLOUR, 'channels="middle" is unknown; allowed: first for'),
        ({"channels": "last"}, GREY, r"x_train of shape \(12, 8, 8\) has no axis of channels"),
        ({"channels": "last"}, np.cos(LABELS)[:, None], 'channels="last" is for images, and these are signals'),
        ({"labels": "coarse_label"}, GREY, 'labels="coarse_label" says nothing about the layout .npz; leave it out'),
    ],
)
def test_nothing_that_is_said_is_ignored(tmp_path: Path, said: dict[str, str], x: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        add("other", write(tmp_path, x), tmp_path / "data", **said)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("content", ['{"chanels": "last"}', '{"channels": "middle"}', "[]", "{"])
def test_a_reading_that_is_not_understood_is_refused(tmp_path: Path, content: str) -> None:
    (write(tmp_path, COLOUR) / "overparam.json").write_text(content)
    with pytest.raises(DataError, match=r"overparam\.json is not understood .+ it may say") as caught:
        dataset_of(SPEC, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("kind", "divisor"),
    [("float64", 255), ("float32", 255), ("float64", 1), ("float32", 1), ("float16", 1), ("int64", 1), ("uint16", 1)],
)
def test_pixels_of_other_types_are_the_bytes_they_stand_for(
    tmp_path: Path, images: Array, last: bool, kind: str, divisor: int
) -> None:
    """One content has one digest, also as floats in [0, 1] or [0, 255] and with the channels last."""
    axes = (0, 2, 3, 1) if last and images.ndim == 4 else tuple(range(images.ndim))
    found = read(tmp_path, np.divide(images, divisor).astype(kind).transpose(axes))
    assert found.digest == read(tmp_path / "bytes", images).digest
    assert "kept as bytes" in remark(SPEC, tmp_path)


def test_floats_that_are_no_bytes_are_not_rounded(tmp_path: Path) -> None:
    """Standardized or resized images: their scale is theirs, and their channels are normalized by their own moments."""
    x = np.cos(np.arange(12.0 * 3 * 64)).reshape(12, 3, 8, 8) * np.array([1.0, 7.0, 300.0])[:, None, None]
    found = read(tmp_path, x)
    assert found.train_x.dtype == np.float32 and (found.train_x == x.astype(np.float32)).all()
    assert found.mean == pytest.approx(x.mean(axis=(0, 2, 3)), abs=1e-5)
    assert found.std == pytest.approx(x.std(axis=(0, 2, 3)), rel=1e-5)
    assert "kept as float32" in remark(SPEC, tmp_path)
    shown = prepare(SPEC, data_dir=tmp_path).train.x
    assert shown.std(axis=(0, 2, 3)) == pytest.approx([1, 1, 1], rel=1e-4)
    raw = prepare(SPEC.model_copy(update={"normalize": False}), data_dir=tmp_path).train.x
    assert (raw == found.train_x).all()


@pytest.mark.parametrize("scale", [1e-7, 5e-4, 0.998 / 255])
def test_small_floats_are_not_taken_for_zero(tmp_path: Path, scale: float) -> None:
    x = np.where(COLOUR > 127, scale, 0.0)
    assert (read(tmp_path, x).train_x == x.astype(np.float32)).all()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 255])
def test_only_rounding_is_taken_off_pixels(tmp_path: Path, kind: type[np.floating], scale: int) -> None:
    """Pixels that are computed in any usual way are bytes; those that are further from them than rounding are not."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(12, axis=0)
    ways = [levels.astype(kind) / kind(scale), levels.astype(kind) * (kind(1) / kind(scale))]
    for number, x in enumerate([*ways, ways[0].astype(np.float64) if kind == np.float32 else ways[0]]):
        found = read(tmp_path / str(number), x)
        assert found.train_x.dtype == np.uint8 and (found.train_x == levels).all()
    apart = ways[0] * kind(1 + 8 * max(float(np.finfo(kind).eps), 2**-23))
    assert read(tmp_path / "apart", apart).train_x.dtype == np.float32


def test_the_last_values_count_as_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large arrays are looked at in pieces."""
    monkeypatch.setattr("overparam.data.pieces.PIECE", 100)
    x = np.divide(GREY, 255)
    assert (read(tmp_path, x).train_x[:, 0] == GREY).all()
    x[-1, -1, -1] = 0.123
    assert read(tmp_path / "odd", x).train_x.dtype == np.float32


def test_both_parts_are_read_in_one_way(tmp_path: Path) -> None:
    """A test part that could be bytes is no bytes where the training part is none."""
    x = np.cos(np.arange(12.0 * 3 * 64)).reshape(12, 3, 8, 8)
    found = read(tmp_path, x, x_test=np.ones_like(x))
    assert found.test_x.dtype == np.float32 and found.test_x.max() == 1
    with pytest.raises(DataError, match="train inputs have type float32 but test inputs uint8; they must agree"):
        read(tmp_path / "other", x.astype(np.float32), x_test=COLOUR)


def test_published_constants_are_of_bytes_only(tmp_path: Path) -> None:
    write(tmp_path, np.cos(np.arange(12.0 * 64)).reshape(12, 1, 8, 8)).rename(tmp_path / "mnist")
    assert dataset_of(DataSpec(name="mnist"), tmp_path).mean != (0.1307,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_counted(tmp_path: Path, value: float) -> None:
    x = np.divide(COLOUR, 255)
    x[3, 0, 0, :2] = value
    with pytest.raises(DataError, match="2 values of the train inputs are NaN or infinite"):
        read(tmp_path, x)


def test_signals_of_several_channels_are_not_taken_for_images(tmp_path: Path) -> None:
    message = r"x_train of shape \(12, 8, 8\) has floats from -1\.0 to 1\.0; with three axes, floats from 0 to 1 and"
    with pytest.raises(DataError, match=message):
        read(tmp_path, np.divide(GREY, 127.5) - 1)


@pytest.mark.parametrize("most", [1 + 2**-52, 254.77])
def test_grey_images_on_a_scale_of_their_own_are_asked_for_a_fourth_axis(tmp_path: Path, most: float) -> None:
    """They are not called no pixels, and the bounds that are named are the true ones."""
    x = np.sqrt(np.divide(GREY, 255)) * most
    with pytest.raises(DataError, match=rf"from 0\.0 to {most}; .* reshape images to \(N, 1, H, W\)$"):
        read(tmp_path / "three", x)
    assert read(tmp_path / "four", x[:, None]).train_x.dtype == np.float32


@pytest.mark.parametrize("shape", [(12, 3, 64), (12, 64, 3), (12, 1, 64)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_three_axes_with_one_of_channels_are_not_taken_for_grey_images(
    tmp_path: Path, shape: tuple[int, ...], kind: type[np.generic]
) -> None:
    """Signals of three channels in [0, 1] would be images of 3×64."""
    with pytest.raises(DataError, match=r"may be grey images, .* or signals of several channels.* to \(N, 1, H, W\)"):
        read(tmp_path, np.zeros(shape, dtype=kind))
    assert read(tmp_path / "four", np.zeros((12, 1, *shape[1:]), dtype=kind)[..., :2]).train_x.shape[1] == 1


def test_how_axes_were_read_is_said_where_the_numbers_may_be_no_pixels(tmp_path: Path) -> None:
    x = np.cos(np.arange(12.0 * 64 * 5)).reshape(12, 64, 5, 1)
    for axes, shape in (("NHWC", (0, 1, 2, 3)), ("NCHW", (0, 3, 1, 2))):
        found = read(tmp_path / axes, x.transpose(shape))
        assert f"as ({', '.join(axes)}), images of 64×5 with C = 1" in " ".join(found.notes)
    assert "as (N, H, W), grey images of 8×8" in " ".join(read(tmp_path / "grey", np.divide(GREY, 255)).notes)
    assert read(tmp_path / "bytes", GREY).notes == ()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            GREY > 100,
            r"x_train is bool; images are floats, or whole numbers from 0 to 255: convert it with x\.astype\(",
        ),
        (GREY.astype(np.uint16) * 16, "x_train is uint16 with values from 0 to 4080; whole numbers must be from 0 to"),
        (GREY.astype(np.int64) - 1, "x_train is int64 with values from -1 to 254; whole numbers must be from 0 to 255"),
        (GREY.astype(complex), "x_train is complex128; images are floats, or whole numbers"),
    ],
    ids=["bool", "uint16", "int64", "complex"],
)
def test_numbers_that_are_no_bytes_are_refused_with_what_to_do(tmp_path: Path, x: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, x)


def test_whole_numbers_of_two_types_are_bytes_but_floats_and_whole_numbers_are_not_mixed(tmp_path: Path) -> None:
    """The scale of one part may not be that of the other."""
    assert read(tmp_path, GREY.astype(np.int64), x_test=GREY).digest == read(tmp_path / "bytes", GREY).digest
    with pytest.raises(DataError, match="train inputs have type float64 but test inputs int64; they must agree"):
        read(tmp_path / "other", np.divide(GREY, 255), x_test=GREY.astype(np.int64))


@pytest.mark.parametrize("names", ["X_{0} y_{0}", "train_x train_y", "{0}_images {0}_labels"])
def test_arrays_have_one_of_the_usual_names(tmp_path: Path, names: str) -> None:
    names = names.replace("train", "{0}")
    assert (read(tmp_path, GREY, names=names).test_x[:, 0] == GREY).all()


def test_medmnist_is_read_as_published(tmp_path: Path) -> None:
    """Labels are one column of bytes; the validation split is there beside the test split."""
    found = read(
        tmp_path,
        COLOUR.transpose(0, 2, 3, 1),
        LABELS[:, None].astype(np.uint8),
        "{0}_images {0}_labels",
        val_images=COLOUR.transpose(0, 2, 3, 1)[:5],
        val_labels=LABELS[:5, None],
    )
    assert (found.test_x == COLOUR).all() and (found.test_y == LABELS).all()
    assert 'split "val" is left out' in remark(SPEC, tmp_path)


def test_a_validation_split_stands_for_a_test_split_that_is_not_there(tmp_path: Path) -> None:
    home = write(tmp_path, GREY)
    np.savez(home / "data.npz", x_train=GREY, y_train=LABELS, x_val=GREY[:6], y_val=LABELS[:6])
    assert (dataset_of(SPEC, tmp_path).test_y == LABELS[:6]).all()
    assert 'no test split; its split "val" is taken for it' in remark(SPEC, tmp_path)


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "bool"])
def test_exact_one_hot_rows_are_classes(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, GREY, np.eye(3)[LABELS].astype(kind))
    assert (found.train_y == LABELS).all() and (found.test_y == LABELS).all() and found.num_classes == 3
    assert "one-hot rows of y_train are taken as classes" in remark(SPEC, tmp_path)


@pytest.mark.parametrize("spoilt", [0.5, 2.0, 1.0, np.nan])
def test_rows_that_are_not_exactly_one_hot_are_refused(tmp_path: Path, spoilt: float) -> None:
    rows = np.eye(3)[LABELS]
    rows[4, 0] = spoilt
    with pytest.raises(DataError, match="or rows that are exactly one-hot: a one, and zeros elsewhere"):
        read(tmp_path, GREY, rows)


def test_false_and_true_are_two_classes(tmp_path: Path) -> None:
    found = read(tmp_path, GREY, LABELS > 0)
    assert (found.train_y == (LABELS > 0)).all() and found.num_classes == 2


def test_labels_from_one_are_counted_from_zero(tmp_path: Path) -> None:
    found = read(tmp_path, GREY, LABELS + 1)
    assert (found.train_y == LABELS).all() and (found.test_y == LABELS).all() and found.num_classes == 3
    assert "labels 1 … 3 of the files are counted from 0" in remark(SPEC, tmp_path)
    assert found.notes == dataset_of(SPEC, tmp_path / "mine" / "..").notes, "also of the copy in the cache"


@pytest.mark.parametrize("labels", [LABELS + 2, np.where(LABELS == 1, 3, LABELS) + 1])
def test_labels_with_gaps_are_refused(tmp_path: Path, labels: Array) -> None:
    with pytest.raises(DataError, match="has no training example; check the labels"):
        read(tmp_path, GREY, labels)

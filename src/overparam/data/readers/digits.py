"""Data that ships with the package: the 8×8 digits."""

from pathlib import Path

import numpy as np

from overparam.data.types import Array, Embedded

DIGITS_FILE = Path(__file__).with_name("digits.npz")
TEST_PER_CLASS = 50


def read_digits() -> dict[str, Array]:
    """1,797 handwritten digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0) as uint8 (N, 1, 8, 8).

    Pixel values 0 … 16 are stored as 0 … 240. The last 50 examples of each class are the test set, 1,297 train.
    """
    with np.load(DIGITS_FILE, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"].astype(np.int64)
    x = (images * np.uint8(15))[:, None]
    test = np.sort(np.concatenate([np.flatnonzero(labels == k)[-TEST_PER_CLASS:] for k in range(10)]))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return {"train_x": x[train], "train_y": labels[train], "test_x": x[test], "test_y": labels[test]}


DIGITS = Embedded(
    name="digits",
    described="8×8 images, 1,297 + 500",
    origin="embedded",
    sample=lambda spec: (),
    read=read_digits,
)

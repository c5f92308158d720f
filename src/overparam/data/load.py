"""DataSpec → examples: find the source, decode once, choose, corrupt, normalize."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from overparam.data.cache import DECODER_VERSION, decoded, fingerprint
from overparam.data.corrupt import Indices, digest_noise, select_balanced, select_first, wrong_labels
from overparam.data.readers import mnist1d
from overparam.data.readers.arrays import read_npz
from overparam.data.readers.digits import DIGITS_FILE, read_digits
from overparam.data.readers.folder import image_files, read_folder
from overparam.data.readers.originals import read_cifar10, read_mnist
from overparam.data.readers.parquet import is_jpeg, read_parquet
from overparam.data.types import Array, DataError, Dataset, Examples, Sizes, Split
from overparam.foundations import paths
from overparam.identity import digest_text
from overparam.specs.explain import closest
from overparam.specs.run import DataSpec

EMBEDDED = ("digits", "mnist1d")
LOOK_AGAIN = 5.0  # seconds after which a process looks again whether files have changed
LAYOUTS = (
    "{train,test}-*.parquet (Hugging Face layout), the original *-ubyte(.gz) or data_batch_*.bin files, one .npz file, "
    "or train/<class>/ and test/<class>/ image folders"
)


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: its files and how to decode them."""

    name: str
    layout: str
    files: tuple[Path, ...]
    decode: Callable[[], dict[str, Array]]


def prepare(spec: DataSpec, *, data_dir: Path | None = None) -> Examples:
    """The examples that a spec selects, normalized, kept in memory for the next call.

    Raises:
        DataError: the data set is missing or damaged, or has too few examples.
    """
    folder = folder_of(data_dir)
    return _prepare(spec, folder, _recent_mark(spec, folder, _tick()))


def sizes(spec: DataSpec, *, data_dir: Path | None = None) -> Sizes:
    """Counts and shapes of the examples that a spec selects, without building any.

    Raises:
        DataError: as for `prepare`.
    """
    folder = folder_of(data_dir)
    return _sizes(spec, folder, _recent_mark(spec, folder, _tick()))


def content_digest(spec: DataSpec, *, data_dir: Path | None = None) -> str:
    """Digest of the decoded data set behind a spec, as it is found now."""
    return dataset_of(spec, data_dir).digest


def dataset_of(spec: DataSpec, data_dir: Path | None = None) -> Dataset:
    """The whole decoded data set behind a spec."""
    folder = folder_of(data_dir)
    return _dataset(spec, folder, _mark(spec, folder))


def _mark(spec: DataSpec, folder: Path) -> str:
    """Names the files of a data set as they are now, so that nothing kept in memory outlives them."""
    if spec.name == "mnist1d":
        return "generated"
    source = find(spec.name, folder)
    return fingerprint(source.name, source.files)


@lru_cache(maxsize=64)
def _recent_mark(spec: DataSpec, folder: Path, tick: int) -> str:
    """For callers that ask for every run: looking at the files of a large image folder takes a second."""
    return _mark(spec, folder)


def _tick() -> int:
    return int(time.monotonic() // LOOK_AGAIN)


def _dataset(spec: DataSpec, folder: Path, mark: str) -> Dataset:
    if spec.name == "mnist1d":
        num_train = mnist1d.NUM_TRAIN if spec.num_train is None else spec.num_train + spec.num_val
        return _generated(max(mnist1d.NUM_TRAIN, num_train), max(mnist1d.NUM_TEST, spec.num_test or 0), spec.data_seed)
    return _decoded(spec.name, mark, folder)


@lru_cache(maxsize=4)
def _generated(num_train: int, num_test: int, data_seed: int) -> Dataset:
    mark = digest_text(f"{DECODER_VERSION}|mnist1d|{num_train}|{num_test}|{data_seed}")
    return decoded("mnist1d", mark, lambda: mnist1d.generate(num_train, num_test, data_seed))


@lru_cache(maxsize=4)
def _decoded(name: str, mark: str, folder: Path) -> Dataset:
    return decoded(name, mark, find(name, folder).decode)


@lru_cache(maxsize=3)
def _prepare(spec: DataSpec, folder: Path, mark: str) -> Examples:
    data = _dataset(spec, folder, mark)
    train, val, test = _chosen(spec, data)
    clean = data.train_y[train]
    noisy, flipped = wrong_labels(clean, spec.label_noise, data.num_classes, spec.data_seed)
    return Examples(
        train=Split(_inputs(spec, data, data.train_x, train), noisy),
        val=Split(_inputs(spec, data, data.train_x, val), data.train_y[val]),
        test=Split(_inputs(spec, data, data.test_x, test), data.test_y[test]),
        clean_train_y=clean,
        flipped=flipped,
        noise_digest=digest_noise(noisy, flipped),
        digest=data.digest,
        num_classes=data.num_classes,
        input_shape=data.train_x.shape[1:],
    )


@lru_cache(maxsize=64)
def _sizes(spec: DataSpec, folder: Path, mark: str) -> Sizes:
    data = _dataset(spec, folder, mark)
    train, val, test = (len(chosen) for chosen in _chosen(spec, data))
    return Sizes(train, val, test, data.train_x.shape[1:], data.num_classes)


def _chosen(spec: DataSpec, data: Dataset) -> tuple[Indices, Indices, Indices]:
    """Which examples of a data set train, validate and test."""
    train, val = _choose_train(spec, data)
    (test,) = _choose(spec, data.test_y, (spec.num_test or len(data.test_y),), "test subset")
    return train, val, test


def _choose_train(spec: DataSpec, data: Dataset) -> tuple[Indices, Indices]:
    pool = len(data.train_y)
    num_train = pool - spec.num_val if spec.num_train is None else spec.num_train
    if num_train < 1 or num_train + spec.num_val > pool:
        raise DataError(
            f"{spec.name}: num_train={spec.num_train} and num_val={spec.num_val} do not fit into a training pool of "
            f"{pool} examples; ask for fewer"
        )
    train, val = _choose(spec, data.train_y, (num_train, spec.num_val), "subset")
    return train, val


def _choose(spec: DataSpec, labels: Indices, sizes: tuple[int, ...], purpose: str) -> tuple[Indices, ...]:
    if sizes[0] > len(labels):
        raise DataError(f"{spec.name}: num_test={sizes[0]}, but there are {len(labels)} test examples; ask for fewer")
    whole = sizes[0] == len(labels)
    if whole or spec.subset == "first":
        return select_first(labels, sizes)
    if len(sizes) == 2 and sum(sizes) == len(labels):
        return _rest_and_val(labels, sizes[1], spec.data_seed, purpose)
    return select_balanced(labels, sizes, spec.data_seed, purpose)


def _rest_and_val(labels: Indices, num_val: int, data_seed: int, purpose: str) -> tuple[Indices, Indices]:
    """A balanced validation set and all that is left, in stored order: the pool itself need not be balanced."""
    (val,) = select_balanced(labels, (num_val,), data_seed, purpose)
    return np.setdiff1d(np.arange(len(labels)), val), val


def _inputs(spec: DataSpec, data: Dataset, x: Array, chosen: Indices) -> np.ndarray:
    values = x[chosen].astype(np.float32)
    if x.dtype == np.uint8:
        values /= np.float32(255.0)
    if spec.normalize:
        shape = (1, -1) + (1,) * (values.ndim - 2)
        values -= np.array(data.mean, dtype=np.float32).reshape(shape)
        values /= np.array(data.std, dtype=np.float32).reshape(shape)
    return np.ascontiguousarray(values)


def folder_of(data_dir: Path | None) -> Path:
    """Where data sets lie, in full: the argument, else `OVERPARAM_DATA`, else the user's cache."""
    return (data_dir or Path(os.environ.get("OVERPARAM_DATA") or paths.user_cache() / "data")).absolute()


def find(name: str, folder: Path) -> Source:
    """The source of a named data set.

    Raises:
        DataError: nothing of that name is there, or its folder holds no known layout.
    """
    if name == "digits":
        return Source(name, "embedded", (DIGITS_FILE,), read_digits)
    home = folder / name
    if not home.is_dir():
        near = closest(name, [*EMBEDDED, *_names(folder)])
        hint = f' Did you mean "{near}"?' if near else ""
        raise DataError(
            f'data set "{name}" is not embedded ({", ".join(EMBEDDED)}) and {home} does not exist.{hint} Nothing is '
            f"downloaded: get its files, as {LAYOUTS}, and put them there, or copy them with "
            f"`overparam data add {name} --from DIR`; --data-dir or OVERPARAM_DATA names another place than {folder}"
        )
    source = detect(name, home)
    if source is None:
        raise DataError(f"{home} holds no data set this version reads; expected {LAYOUTS}")
    return source


def is_at_hand(spec: DataSpec, data_dir: Path | None = None) -> bool:
    """Whether the data set behind a spec is embedded or has a folder here."""
    return spec.name in EMBEDDED or (folder_of(data_dir) / spec.name).is_dir()


def remark(spec: DataSpec, data_dir: Path | None = None) -> str:
    """What a reader of results on this data must know: its pixels are not exact, or it is absent."""
    if not is_at_hand(spec, data_dir):
        return f"The {spec.name} data is not at hand, so the data of the stored runs could not be compared with it."
    if spec.name in EMBEDDED or not any(map(is_jpeg, find(spec.name, folder_of(data_dir)).files[:1])):
        return ""
    return f"These are {spec.name} (JPEG) images: compressed with loss, so that their pixels are not exact."


def detect(name: str, home: Path) -> Source | None:
    """The source in a folder by what files are there; `None` if there is none that can be read."""
    shards = {part: tuple(sorted(home.glob(f"{part}-*.parquet"))) for part in ("train", "test")}
    if all(shards.values()):
        return Source(name, "Parquet", shards["train"] + shards["test"], lambda: read_parquet(dict(shards)))
    idx = {(part, kind): _idx_file(home, part, kind) for part in ("train", "t10k") for kind in ("images", "labels")}
    if all(idx.values()):
        files = {key: file for key, file in idx.items() if file is not None}
        images, labels = ({"train": files["train", k], "test": files["t10k", k]} for k in ("images", "labels"))
        return Source(name, "IDX", tuple(files.values()), lambda: read_mnist(images, labels))
    batches = {"train": tuple(sorted(home.glob("data_batch_*.bin"))), "test": tuple(home.glob("test_batch.bin"))}
    if all(batches.values()):
        return Source(name, "CIFAR-10 binary", batches["train"] + batches["test"], lambda: read_cifar10(dict(batches)))
    npz = tuple(file for file in home.glob("*.npz") if not file.name.startswith("."))
    if len(npz) == 1:
        return Source(name, ".npz", npz, lambda: read_npz(npz[0]))
    if (home / "train").is_dir() and (home / "test").is_dir():
        return Source(name, "image folder", tuple(image_files(home)), lambda: read_folder(home))
    return None


def _idx_file(home: Path, part: str, kind: str) -> Path | None:
    """The first file of that name; unpacked archives have folders called like the file that lies in them."""
    return next((file for file in sorted(home.glob(f"{part}-{kind}*ubyte*")) if file.is_file()), None)


def _names(folder: Path) -> list[str]:
    """Folders that may hold a data set; one whose name starts with a dot is a draft."""
    folders = (entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else ()
    return sorted(entry.name for entry in folders if not entry.name.startswith("."))


def available(data_dir: Path | None = None) -> list[tuple[str, str, str]]:
    """Name, layout and place of every data set that can be used now."""
    folder = folder_of(data_dir)
    embedded = [("digits", "8×8 images, 1,297 + 500", "embedded"), ("mnist1d", "signals, any size", "generated")]
    detected = [(name, detect(name, folder / name)) for name in _names(folder)]
    return embedded + [(name, source.layout, str(folder / name)) for name, source in detected if source]

"""Where data sets lie and in which layout."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from overparam.data.readers.arrays import read_npz
from overparam.data.readers.every import EMBEDDED
from overparam.data.readers.folder import image_files, read_folder
from overparam.data.readers.originals import read_cifar10, read_mnist
from overparam.data.readers.parquet import is_jpeg, read_parquet
from overparam.data.types import Array, DataError
from overparam.foundations import paths
from overparam.foundations.words import closest
from overparam.specs.data import DataSpec

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


def folder_of(data_dir: Path | None) -> Path:
    """Where data sets lie, in full: the argument, else `OVERPARAM_DATA`, else the user's cache."""
    return (data_dir or Path(os.environ.get("OVERPARAM_DATA") or paths.user_cache() / "data")).absolute()


def find(name: str, folder: Path) -> Source:
    """The source of a named data set that does not come with the package.

    Raises:
        DataError: nothing of that name is there, or its folder holds no known layout.
    """
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
    embedded = [(each.name, each.described, each.origin) for each in EMBEDDED.values()]
    detected = [(name, detect(name, folder / name)) for name in _names(folder)]
    return [*embedded, *((name, source.layout, str(folder / name)) for name, source in detected if source)]

"""The data sets that come with the package, and the layouts of others. A new one is a reader and an entry."""

from collections.abc import Callable
from pathlib import Path

from overparam.data.readers.arrays import find_npz
from overparam.data.readers.cifar import find_cifar10, find_cifar100, refuse_python_version
from overparam.data.readers.digits import DIGITS
from overparam.data.readers.folder import find_folder
from overparam.data.readers.idx import find_idx
from overparam.data.readers.mnist1d import MNIST1D
from overparam.data.readers.parquet import find_parquet
from overparam.data.readers.tiny_imagenet import find_tiny_imagenet
from overparam.data.reading import Reading
from overparam.data.types import Embedded, Source

EMBEDDED: dict[str, Embedded] = {each.name: each for each in (DIGITS, MNIST1D)}

# Each gives the source in a folder if it is of its layout; the first one counts.
LAYOUTS: tuple[Callable[[str, Path, Reading], Source | None], ...] = (
    find_parquet,
    find_idx,
    find_cifar10,
    find_cifar100,
    find_npz,
    find_tiny_imagenet,
    find_folder,
    refuse_python_version,
)

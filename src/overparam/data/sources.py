"""Which data sets can be used, and what there is to know about them."""

from pathlib import Path
from typing import NamedTuple

from overparam.data.cache import cached_notes, fingerprint
from overparam.data.find import detect, folder_of, names
from overparam.data.load import dataset_of
from overparam.data.readers.every import EMBEDDED
from overparam.data.types import LOSSY, DataError
from overparam.specs.data import DataSpec


def is_at_hand(spec: DataSpec, data_dir: Path | None = None) -> bool:
    """Whether the data set behind a spec is embedded or has a folder here."""
    return spec.name in EMBEDDED or (folder_of(data_dir) / spec.name).is_dir()


def remark(spec: DataSpec, data_dir: Path | None = None) -> str:
    """What a reader of results on this data must know: what was made of its files, or that it is absent."""
    if not is_at_hand(spec, data_dir):
        return f"The {spec.name} data is not at hand, so the data of the stored runs could not be compared with it."
    return "" if spec.name in EMBEDDED else " ".join(_sentence(spec.name, note) for note in notes(spec.name, data_dir))


def notes(name: str, data_dir: Path | None = None) -> tuple[str, ...]:
    """What was decided or changed in reading a data set.

    Raises:
        DataError: as for `prepare`.
    """
    return dataset_of(DataSpec(name=name), data_dir).notes


def _sentence(name: str, note: str) -> str:
    if note == LOSSY:
        return f"These are {name} (JPEG) images: compressed with loss, so that their pixels are not exact."
    return f"{name}: {note}"


class Available(NamedTuple):
    """A data set that can be used, or the reason why it cannot in the place of where it lies.

    `notes` are those of one that was decoded before; decoding takes long.
    """

    name: str
    layout: str
    place: str
    notes: tuple[str, ...] = ()


def available(data_dir: Path | None = None) -> list[Available]:
    """Every data set that can be used now; what cannot be is there with the reason, and hides no other."""
    folder = folder_of(data_dir)
    embedded = [Available(each.name, each.described, each.origin) for each in EMBEDDED.values()]
    return [*embedded, *(entry for name in names(folder) if (entry := _entry(name, folder / name)))]


def _entry(name: str, home: Path) -> Available | None:
    try:
        source = detect(name, home)
        if source is None:
            return None
        return Available(name, source.layout, str(home), cached_notes(fingerprint(name, source.files)))
    except DataError as error:
        return Available(name, "cannot be read", str(error))

"""Where data sets lie: the folder of a name, and the layout of what is in it."""

import os
from dataclasses import replace
from pathlib import Path

from overparam.data.readers.every import EMBEDDED, LAYOUTS
from overparam.data.reading import Reading, reading_file, stored_reading
from overparam.data.types import DataError, Source, unreadable
from overparam.foundations import paths
from overparam.foundations.words import closest

EXPECTED = (
    "{train,test}-*.parquet (Hugging Face layout), the original *-ubyte(.gz), data_batch_*.bin or train.bin files, one "
    ".npz file, or train/<class>/ and test/<class>/ image folders"
)
MOST_INNER = 20  # folders that are looked into where a folder itself holds nothing


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
        near = closest(name, [*EMBEDDED, *names(folder)])
        hint = f' Did you mean "{near}"?' if near else ""
        raise DataError(
            f'data set "{name}" is not embedded ({", ".join(EMBEDDED)}) and {home} does not exist.{hint} Nothing is '
            f"downloaded: get its files, as {EXPECTED}, and put them there, or copy them with "
            f"`overparam data add {name} --from DIR`; --data-dir or OVERPARAM_DATA names another place than {folder}"
        )
    source = detect(name, home)
    if source is None:
        raise no_data_set(home)
    return source


def no_data_set(home: Path) -> DataError:
    """For a folder in which nothing is found; an archive may have been unpacked to a folder in it."""
    inner = next((entry for entry in names(home)[:MOST_INNER] if _may_hold(home / entry)), None)
    hint = f'; its folder "{inner}" may be the one you mean' if inner else ""
    if home.is_dir() and (broken := next((each for each in sorted(home.iterdir()) if _leads_nowhere(each)), None)):
        hint = f'; its link "{broken.name}" leads nowhere'
    return DataError(f"{home} holds no data set this version reads{hint}; expected {EXPECTED}")


def _leads_nowhere(entry: Path) -> bool:
    return entry.is_symlink() and not entry.exists()


def _may_hold(home: Path) -> bool:
    try:
        return detect(home.name, home) is not None
    except DataError:
        return True


def detect(name: str, home: Path, said: Reading | None = None) -> Source | None:
    """The source in a folder by what files are there; `None` if there is none that can be read.

    What is `said` about reading them goes before what is kept in the folder.

    Raises:
        DataError: the files can be read in two ways or not be looked at, or something is said that their layout has no
            use for.
    """
    reading = (said or Reading()).over(stored_reading(home))
    try:
        source = next((found for layout in LAYOUTS if (found := layout(name, home, reading))), None)
    except OSError as error:
        raise unreadable(Path(error.filename or home), error) from None
    if source is None:
        return None
    for field, value in reading.said().items():
        if field not in source.takes:
            raise DataError(
                f'{home}: {field}="{value}" says nothing about the layout {source.layout}; leave it out. channels is '
                "for .npz files, labels for Parquet and CIFAR-100"
            )
    notes = tuple(dict.fromkeys((*reading.notes, *source.notes)))
    return replace(source, files=source.files + reading_file(home), notes=notes)


def names(folder: Path) -> list[str]:
    """Folders that may hold a data set; one whose name starts with a dot is a draft, __MACOSX is of an archive."""
    folders = (entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else ()
    return sorted(entry.name for entry in folders if not entry.name.startswith(".") and entry.name != "__MACOSX")

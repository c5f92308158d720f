"""Adding a data set to the user's data directory: checked first, then copied in one rename."""

import shutil
import uuid
from pathlib import Path

from overparam.data.check import dataset
from overparam.data.load import EMBEDDED, detect, folder_of
from overparam.data.types import DataError


def add(name: str, source: Path, data_dir: Path | None = None) -> Path:
    """Decode what is in `source`, and if it is a sound data set copy its files to `<data_dir>/<name>`.

    Raises:
        DataError: the name is taken, or `source` holds no data set that can be read.
    """
    home = folder_of(data_dir) / name
    if name in EMBEDDED or home.exists():
        raise DataError(f'a data set "{name}" exists already; choose another name')
    found = detect(name, source) if source.is_dir() else None
    if found is None:
        raise DataError(f"{source} holds no data set this version reads")
    dataset(name, found.decode())
    draft = home.with_name(f".{name}-{uuid.uuid4().hex}")
    for file in found.files:
        target = draft / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    draft.rename(home)
    return home

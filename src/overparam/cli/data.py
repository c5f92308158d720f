"""Commands about the data sets of this machine."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from overparam.cli.errors import plain_errors
from overparam.cli.options import DataDir, Debug
from overparam.cli.tables import say


def data_list(data_dir: DataDir = None, debug: Debug = False) -> None:
    """Name the data sets that can be used now."""
    from overparam.data.sources import available

    with plain_errors(debug):
        entries = available(data_dir)
    for entry in entries:
        say(f"{entry.name} · {entry.layout} · {entry.place}")
        _show(entry.notes)


def data_add(
    name: Annotated[str, Argument(help="Name to use it by.")],
    source: Annotated[Path, Option("--from", help="Directory that holds its files.")],
    channels: Annotated[
        str | None, Option(help="Where the channels of images in an .npz file are: first or last.")
    ] = None,
    labels: Annotated[str | None, Option(help="Column of labels, where there are several.")] = None,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Check a data set and copy its files to where overparam looks."""
    from overparam.data.add import add
    from overparam.data.sources import notes

    with plain_errors(debug):
        home = add(name, source, data_dir, channels=channels, labels=labels)
        made = notes(name, data_dir)
    say(f"Added {name}: {home}")
    _show(made)


def _show(notes: tuple[str, ...]) -> None:
    for note in notes:
        say(f"  {note}")

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
        say(" · ".join(str(part) for part in entry))


def data_add(
    name: Annotated[str, Argument(help="Name to use it by.")],
    source: Annotated[Path, Option("--from", help="Directory that holds its files.")],
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Check a data set and copy its files to where overparam looks."""
    from overparam.data.add import add

    with plain_errors(debug):
        home = add(name, source, data_dir)
    say(f"Added {name}: {home}")

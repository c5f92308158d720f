"""Known errors as sentences."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.markup import escape

from overparam.cli.tables import errors


@contextmanager
def plain_errors(debug: bool) -> Iterator[None]:
    """Known errors become one sentence on stderr and exit code 2."""
    from overparam.runs.store import StoreError

    try:
        yield
    except (ValueError, StoreError, OSError) as error:
        if debug:
            raise
        errors.print(f"[bold red]error:[/] {escape(_sentence(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return ": ".join([*([str(error.filename)] if error.filename else []), error.strerror.lower()])
    return str(error)

"""The backends that there are. A new one is a file of its own and an entry of this table."""

from collections.abc import Callable

from overparam.foundations.words import nearest
from overparam.lab.backends.jobs import Backend
from overparam.lab.backends.local import LocalBackend
from overparam.runs.execution import Execution

# Name on the command line → what opens it with a number of workers.
BACKENDS: dict[str, Callable[[int, Execution], Backend]] = {
    "local": LocalBackend,
}


def open_backend(on: str, workers: int, execution: Execution) -> Backend:
    """Backend by its name on the command line.

    Raises:
        ValueError: there is no such backend.
    """
    refuse_unknown(on)
    return BACKENDS[on](workers, execution)


def refuse_unknown(on: str) -> None:
    """Only the backends of this version can be named."""
    if on not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise ValueError(f'unknown backend "{on}" for --on (on="…"); this version has: {known}{nearest(on, BACKENDS)}')

"""A backend by its name."""

from overparam.lab.backends.jobs import Backend
from overparam.runs.execution import Execution


def open_backend(on: str, workers: int, execution: Execution) -> Backend:
    """Backend by its name on the command line.

    Raises:
        ValueError: there is no such backend.
    """
    from overparam.lab.backends.local import LocalBackend

    refuse_unknown(on)
    return LocalBackend(workers, execution)


def refuse_unknown(on: str) -> None:
    """Only the backends of this version can be named."""
    if on != "local":
        raise ValueError(f'unknown backend "{on}" for --on (on="…"); this version has: local')

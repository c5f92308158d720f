"""What was asked for: studies, preset, seeds, overrides. Kept in the store, so that later commands read the same."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from overparam.foundations import paths
from overparam.foundations.files import replace_bytes
from overparam.runs.store import StoreError


class Request(BaseModel):
    """One call of `run`. `command` is how it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    studies: tuple[str, ...]
    preset: str = "smoke"
    seeds: int | None = None
    overrides: tuple[str, ...] = ()
    data_dir: str | None = None
    command: str = ""

    def save(self, store: Path) -> None:
        """Make this the request that the store's report is about."""
        replace_bytes(paths.request_file(store), self.model_dump_json(indent=1).encode())

    @classmethod
    def load(cls, store: Path) -> Self:
        """The last request that was run in a store.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        file = paths.request_file(store)
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"no study was run in {store} yet; name it with --store, or run one first") from None
        except ValidationError:
            raise StoreError(f"{file} is damaged; name studies and preset on the command line") from None


def run_command(request: Request) -> str:
    """The command that asks for this, in a store that it does not name."""
    words = [*request.studies, "--preset", request.preset]
    words += [] if request.seeds is None else ["--seeds", str(request.seeds)]
    words += [word for text in request.overrides for word in ("--set", text)]
    words += [] if request.data_dir is None else ["--data-dir", request.data_dir]
    return shlex.join(["overparam", "run", *words])


def without_store(command: str) -> str:
    """A command as a report shows it: where the runs lie on this machine is nothing to its readers.

    >>> without_store("overparam run batch_size --store 'my runs' --set data.subset=first")
    'overparam run batch_size --set data.subset=first'
    """
    if "--store" not in command:
        return command  # a call of Python, too, is left as it is
    words = shlex.split(command)
    named = [i for i, word in enumerate(words) if word == "--store"]
    left_out = {*named, *(i + 1 for i in named)}
    return shlex.join(w for i, w in enumerate(words) if i not in left_out and not w.startswith("--store="))


def python_call(studies: Sequence[str], preset: str, overrides: Sequence[str]) -> str:
    """The call of `overparam.run` that asks for this."""
    what = repr(studies[0]) if len(studies) == 1 else repr(list(studies))
    changed = f", overrides={list(overrides)!r}" if overrides else ""
    return f"overparam.run({what}, preset={preset!r}{changed})"

"""The options that several commands share, each said once: alone, or as a group of those that belong together."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

DataDir = Annotated[Path | None, Option(help="Directory of data sets; default: OVERPARAM_DATA.")]
Debug = Annotated[bool, Option("--debug", help="Show tracebacks.")]


@dataclass(frozen=True)
class Selection:
    """Which runs a command is about: those that were last run in the store, unless others are named."""

    names: Annotated[
        list[str] | None,
        Argument(help="Studies; none means what was last run in the store.", metavar="[STUDY]..."),
    ] = None
    preset: Annotated[str | None, Option(help="Default: as last run in the store.")] = None
    sets: Annotated[
        list[str] | None,
        Option("--set", help="Change a field of every run that has it: train.epochs=5. Repeat for more."),
    ] = None
    config: Annotated[Path | None, Option(help="YAML file of fields to change; --set wins over it.")] = None
    seeds: Annotated[int | None, Option(min=1, help="Number of seeds instead of the preset's.")] = None
    store: Annotated[Path, Option(help="Directory of runs.")] = Path("runs")


@dataclass(frozen=True)
class Stored(Selection):
    """Runs that a command reads from the store."""

    data_dir: DataDir = None


@dataclass(frozen=True)
class Asked(Selection):
    """Runs that are wanted, whatever was run before, and how to carry them out."""

    names: Annotated[list[str] | None, Argument(help="Studies; none means all.", metavar="[STUDY]...")] = None
    preset: Annotated[str, Option(help="smoke, laptop, overnight or paper.")] = "smoke"
    workers: Annotated[int | None, Option(min=1, help="Worker processes; default: one per core.")] = None
    on: Annotated[str, Option(help="Where to compute: local.")] = "local"
    device: Annotated[str, Option(help="auto, cpu or cuda.")] = "auto"
    data_dir: DataDir = None
    allow_mixed: Annotated[bool, Option("--allow-mixed", help="Resume work begun in another environment.")] = False


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """A command as Typer reads it: each field of a group of options that it takes is a parameter of its own."""
    given = inspect.signature(command).parameters
    groups = {name: each.annotation for name, each in given.items() if _is_group(each.annotation)}

    @wraps(command)
    def called(**values: Any) -> None:
        grouped = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**grouped, **values)

    parameters = [each for parameter in given.values() for each in _parts(parameter)]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def _parts(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """A parameter, or those that a group of options stands for."""
    if _is_group(parameter.annotation):
        yield from inspect.signature(parameter.annotation).parameters.values()
    else:
        yield parameter


def _is_group(annotation: object) -> bool:
    return is_dataclass(annotation)

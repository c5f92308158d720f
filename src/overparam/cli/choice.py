"""Options of the command line → a request → experiments and how to carry them out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from overparam.cli.options import Asked, Stored
from overparam.cli.tables import command_line
from overparam.lab.experiment import Experiment, experiment
from overparam.lab.plan import Plan, plan_of
from overparam.lab.request import Request, run_command, without_store
from overparam.lab.schedule import default_workers
from overparam.runs.execution import Execution
from overparam.runs.store import StoreError
from overparam.specs.assignments import parse_assignments
from overparam.specs.overrides import yaml_overrides
from overparam.studies.catalogue import STUDIES

if TYPE_CHECKING:
    from overparam.lab.results import Results


@dataclass(frozen=True)
class Chosen:
    """What the options of a command say."""

    request: Request
    experiments: tuple[Experiment, ...]
    execution: Execution
    workers: int

    def plan(self) -> Plan:
        """What is missing for it, by what the store holds now."""
        return plan_of(self.experiments, self.execution)

    @property
    def results(self) -> "Results":
        """What the store holds of it now."""
        from overparam.lab.results import Results  # draws figures, which no plan needs

        return Results(self.experiments, self.execution, without_store(self.request.command))


def chosen_of(asked: Asked) -> Chosen:
    """What `run` and `plan` are asked for."""
    return _choose(_request(asked), asked.store, asked.workers, asked.device, asked.allow_mixed)


def remembered(stored: Stored) -> Chosen:
    """What was last run in the store, with what the options name instead.

    A study or a preset that is named comes without the overrides and seeds of what was last run.
    """
    if not stored.store.is_dir():
        raise ValueError(f"there are no runs in {stored.store}; name their directory with --store")
    given, named = _request(replace(stored, preset=stored.preset or None)), bool(stored.names or stored.preset)
    try:
        last = Request.load(stored.store)
    except StoreError:
        if not named:
            raise
        last = given
    kept = {
        "studies": given.studies if stored.names else last.studies,
        "preset": stored.preset or last.preset,
        "overrides": given.overrides if named else given.overrides or last.overrides,
        "seeds": given.seeds if named else given.seeds or last.seeds,
        "data_dir": given.data_dir or last.data_dir,
    }
    request = last.model_copy(update=kept)
    changed = request != last or last is given
    return _choose(request.model_copy(update={"command": run_command(request)}) if changed else request, stored.store)


def _request(options: Asked | Stored) -> Request:
    """The request that options describe; a field given by --set overrides the same field of the file."""
    given = tuple(options.sets or ())
    ours = {path for path, _ in parse_assignments(given)}
    fields = yaml_overrides(options.config) if options.config else ()
    theirs = [text for text in fields if text.partition("=")[0] not in ours]
    return Request(
        studies=tuple(dict.fromkeys(options.names or STUDIES)),
        preset="smoke" if options.preset is None else options.preset,
        seeds=options.seeds,
        overrides=(*theirs, *given),
        data_dir=str(options.data_dir.resolve()) if options.data_dir else None,
        command=command_line(),
    )


def _choose(
    request: Request, store: Path, workers: int | None = None, device: str = "auto", allow_mixed: bool = False
) -> Chosen:
    """Request → experiments and how to carry them out; nothing is computed and nothing is written."""
    if store.exists() and not store.is_dir():
        raise ValueError(f"--store {store} is a file; name a directory")
    data_dir = Path(request.data_dir) if request.data_dir else None
    execution = Execution(store=store, device=device, data_dir=data_dir, allow_mixed=allow_mixed)
    items = tuple(
        experiment(name, request.preset, num_seeds=request.seeds, overrides=request.overrides)
        for name in request.studies
    )
    return Chosen(request, items, execution, workers or default_workers())

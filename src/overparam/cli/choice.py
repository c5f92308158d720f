"""Options of the command line → a request → experiments and how to carry them out."""

from dataclasses import dataclass
from pathlib import Path

from overparam.cli.tables import command_line
from overparam.lab.experiment import Experiment, experiment
from overparam.lab.laboratory import default_workers
from overparam.lab.plan import Plan, plan_of
from overparam.lab.request import Request, run_command, without_store
from overparam.lab.results import Results
from overparam.runs.execution import Execution
from overparam.runs.store import StoreError
from overparam.specs.assignments import parse_assignments
from overparam.specs.overrides import yaml_overrides
from overparam.studies.catalogue import STUDIES


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
    def results(self) -> Results:
        return Results(self.experiments, self.execution, without_store(self.request.command))


def choose(
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


def asked(
    names: list[str] | None,
    preset: str,
    sets: list[str] | None,
    config: Path | None,
    seeds: int | None,
    data_dir: Path | None,
) -> Request:
    """The request that options describe; a field given by --set overrides the same field of the file."""
    given = tuple(sets or ())
    ours = {path for path, _ in parse_assignments(given)}
    theirs = [text for text in (yaml_overrides(config) if config else ()) if text.partition("=")[0] not in ours]
    chosen = tuple(dict.fromkeys(names or STUDIES))
    folder = str(data_dir.resolve()) if data_dir else None
    return Request(
        studies=chosen,
        preset=preset,
        seeds=seeds,
        overrides=(*theirs, *given),
        data_dir=folder,
        command=command_line(),
    )


def remembered(
    names: list[str] | None,
    preset: str | None,
    sets: list[str] | None,
    config: Path | None,
    seeds: int | None,
    store: Path,
    data_dir: Path | None,
) -> Chosen:
    """What was last run in the store, with what the options name instead.

    A study or a preset that is named comes without the overrides and seeds of what was last run.
    """
    if not store.is_dir():
        raise ValueError(f"there are no runs in {store}; name their directory with --store")
    given = asked(names, preset or "smoke", sets, config, seeds, data_dir)
    try:
        last = Request.load(store)
    except StoreError:
        if not (names or preset):
            raise
        last = given
    kept = {
        "studies": given.studies if names else last.studies,
        "preset": preset or last.preset,
        "overrides": given.overrides if names or preset else given.overrides or last.overrides,
        "seeds": seeds if names or preset else seeds or last.seeds,
        "data_dir": given.data_dir or last.data_dir,
    }
    request = last.model_copy(update=kept)
    changed = request != last or last is given
    return choose(request.model_copy(update={"command": run_command(request)}) if changed else request, store)

"""The command line: joins plan and power, prints, and turns every known error into one sentence and exit code 2."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from overparam.studies import STUDIES
from overparam.version import __version__

if TYPE_CHECKING:
    from overparam.execution import Execution
    from overparam.laboratory import Experiment, Results
    from overparam.sweep import Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Why do overparameterized networks generalize?",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets this machine has.")
app.add_typer(data_app, name="data")
console = Console()
errors = Console(stderr=True)

Names = Annotated[list[str] | None, typer.Argument(help="Studies; none means all.", metavar="[STUDY]...")]
PresetOption = Annotated[str, typer.Option(help="smoke, laptop, overnight or paper.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a field of every run: train.epochs=5.")]
SeedsOption = Annotated[int | None, typer.Option(min=1, help="Number of seeds instead of the preset's.")]
ConfigOption = Annotated[Path | None, typer.Option(help="YAML file of fields to change, applied before --set.")]
StoreOption = Annotated[Path, typer.Option(help="Directory of runs.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")]
OnOption = Annotated[str, typer.Option(help="Where to compute: local.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
DataOption = Annotated[Path | None, typer.Option(help="Directory of data sets; default: OVERPARAM_DATA.")]
MixedOption = Annotated[bool, typer.Option("--allow-mixed", help="Resume work begun in another environment.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@contextmanager
def plain_errors(debug: bool) -> Iterator[None]:
    """Known errors become one sentence on stderr and exit code 2."""
    from overparam.store.store import StoreError

    try:
        yield
    except (ValueError, StoreError, FileNotFoundError) as error:
        if debug:
            raise
        errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


@dataclass(frozen=True)
class Request:
    """What the options of run, plan, status and report say."""

    experiments: "tuple[Experiment, ...]"
    execution: "Execution"
    workers: int
    on: str

    @property
    def plan(self) -> "Plan":
        from overparam.store.store import Store
        from overparam.sweep import make_plan

        return make_plan((s for item in self.experiments for s in item.specs), Store(self.execution.store))


def resolve(
    names: list[str] | None,
    preset: str,
    sets: list[str] | None,
    seeds: int | None,
    store: Path,
    workers: int | None,
    config: Path | None = None,
    on: str = "local",
    device: str = "auto",
    data_dir: Path | None = None,
    allow_mixed: bool = False,
) -> Request:
    """Options → request; nothing is computed and nothing is written."""
    from overparam.execution import Execution
    from overparam.laboratory import default_workers, experiment
    from overparam.overrides import yaml_overrides

    chosen = names or list(STUDIES)
    overrides = [*(yaml_overrides(config) if config else ()), *(sets or ())]
    items = tuple(experiment(name, preset, num_seeds=seeds, overrides=overrides) for name in chosen)  # type: ignore[arg-type]
    execution = Execution(store=store, device=_device(device), data_dir=data_dir, allow_mixed=allow_mixed)
    return Request(items, execution, workers or default_workers(), on)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(f'unknown device "{name}" for --device; allowed: auto, cpu, cuda')
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda, but this torch sees no CUDA device; use --device cpu")
    return name


@app.command()
def run(
    names: Names = None,
    preset: PresetOption = "smoke",
    sets: SetOption = None,
    config: ConfigOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    workers: WorkersOption = None,
    on: OnOption = "local",
    device: DeviceOption = "auto",
    data_dir: DataOption = None,
    allow_mixed: MixedOption = False,
    debug: DebugOption = False,
) -> None:
    """Run studies, or resume them, and write the report."""
    from overparam import progress
    from overparam.costs import CostModel
    from overparam.laboratory import Results, carry_out, cost_of

    with plain_errors(debug):
        request = resolve(names, preset, sets, seeds, store, workers, config, on, device, data_dir, allow_mixed)
        plan = request.plan
        model = CostModel(request.execution, request.workers)
        costs = cost_of(plan, request.experiments, model)
        if plan.missing:
            model.save()
        with _resumable(), progress.shown(console) as show:
            swept = carry_out(plan, costs, request.execution, workers=request.workers, on=on, on_progress=show)
        for identity, sentence in swept.failures.items():
            errors.print(f"[bold red]failed:[/] run {identity}: {escape(sentence)}", highlight=False, soft_wrap=True)
        if swept.interrupted:
            errors.print(
                f"Interrupted; finished runs and checkpoints are kept. Resume with:\n  {_command()}", highlight=False
            )
            raise typer.Exit(130)
        page = Results(request.experiments, request.execution, swept, _command()).report()
    cached = len(plan.runs) - len(plan.missing)
    console.print(f"{swept.finished} runs done, {cached} cached, {len(swept.failures)} failed.", highlight=False)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    if swept.failures:
        raise typer.Exit(1)


@contextmanager
def _resumable() -> Iterator[None]:
    """A second Ctrl-C, or one at an odd moment, still ends with the command that resumes."""
    try:
        yield
    except KeyboardInterrupt:
        _say_how_to_resume()


def _say_how_to_resume() -> None:
    sentence = "Interrupted; finished runs and checkpoints are kept. Resume with:"
    errors.print(f"{sentence}\n  {escape(_command())}", highlight=False, soft_wrap=True)
    raise typer.Exit(130)


def _command() -> str:
    return shlex.join(["overparam", *sys.argv[1:]])


@app.command()
def plan(
    names: Names = None,
    preset: PresetOption = "smoke",
    sets: SetOption = None,
    config: ConfigOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    data_dir: DataOption = None,
    debug: DebugOption = False,
) -> None:
    """Say what would run: cached and missing runs, cost, disk, and the power of each claim."""
    from overparam import progress
    from overparam.analyse.power import power as claim_power
    from overparam.costs import CostModel, disk_bytes
    from overparam.laboratory import cost_of

    with plain_errors(debug):
        request = resolve(names, preset, sets, seeds, store, workers, config, device=device, data_dir=data_dir)
        todo, model = request.plan, CostModel(request.execution, request.workers)
        costs = cost_of(todo, request.experiments, model)
        disk = sum(disk_bytes(run.job.spec, request.execution) for run in todo.missing)
    total = sum(costs.values())
    table = Table("study", "preset", "runs", "seeds", "budget core-s", title="Plan")
    for item in request.experiments:
        budget = item.design.budget_core_seconds
        count = len(set(item.specs))
        table.add_row(
            item.study.name, item.preset, str(count), str(len(item.design.seeds)), f"{budget:,.0f}" if budget else "-"
        )
    console.print(table)
    wall = total / request.workers
    console.print(
        f"cached {len(todo.runs) - len(todo.missing)}, missing {len(todo.missing)}: about {total:,.0f} core-seconds, "
        f"{progress.duration(wall)} with {request.workers} workers, {disk / 1e6:,.1f} MB",
        highlight=False,
        soft_wrap=True,
    )
    power = Table("claim", "test", "margin", "power", title="Power of each claim to be settled at this n")
    for item in request.experiments:
        for claim in item.design.claims:
            value = claim_power(claim, len(item.design.seeds))
            power.add_row(claim.name, claim.test, f"{claim.margin:g}", f"{value:.2f}")
    console.print(power)


@app.command()
def status(
    names: Names = None,
    preset: PresetOption = "smoke",
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    debug: DebugOption = False,
) -> None:
    """Count the runs of each study by status."""
    from overparam.laboratory import frame_of

    with plain_errors(debug):
        request = resolve(names, preset, None, seeds, store, None)
        for item in request.experiments:
            counts = frame_of(item, request.execution).group_by("status").len().sort("status")
            text = ", ".join(f"{count} {name}" for name, count in counts.iter_rows())
            console.print(f"{item.study.name} ({item.preset}): {text}", highlight=False)


@app.command()
def report(
    names: Names = None,
    preset: PresetOption = "smoke",
    sets: SetOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    data_dir: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Directory; default: <store>/report.")] = None,
    debug: DebugOption = False,
) -> None:
    """Write the report from what is in the store; nothing is run."""
    with plain_errors(debug):
        page = _results(names, preset, sets, seeds, store, data_dir).report(out)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


def _results(
    names: list[str] | None, preset: str, sets: list[str] | None, seeds: int | None, store: Path, data_dir: Path | None
) -> "Results":
    from overparam.laboratory import Results
    from overparam.sweep import Swept

    request = resolve(names, preset, sets, seeds, store, None, data_dir=data_dir)
    command = " ".join(["overparam run", *(names or []), "--preset", preset])
    return Results(request.experiments, request.execution, Swept(0, {}, False, 0.0), command)


@app.command()
def claims(
    names: Names = None,
    preset: PresetOption = "smoke",
    sets: SetOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    data_dir: DataOption = None,
    debug: DebugOption = False,
) -> None:
    """Print the verdict of every claim."""
    with plain_errors(debug):
        verdicts = _results(names, preset, sets, seeds, store, data_dir).claims()
    table = Table("claim", "verdict", "estimate", "95 % interval", "n")
    for verdict in verdicts:
        interval = verdict.interval
        bounds = f"[{interval.lower:.4f}, {interval.upper:.4f}]"
        table.add_row(verdict.claim.name, verdict.verdict, f"{interval.estimate:.4f}", bounds, str(verdict.n))
    console.print(table)


@app.command()
def export(
    names: Names = None,
    preset: PresetOption = "smoke",
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    out: Annotated[Path, typer.Option(help="A .csv or .parquet file.")] = Path("runs.csv"),
    debug: DebugOption = False,
) -> None:
    """Write one row per run to a CSV or Parquet file."""
    with plain_errors(debug):
        frame = _results(names, preset, None, seeds, store, None).frame()
        if out.suffix not in (".csv", ".parquet"):
            raise ValueError(f"cannot export to {out}; allowed endings: .csv, .parquet")
        frame.write_parquet(out) if out.suffix == ".parquet" else frame.write_csv(out)
    console.print(f"{len(frame)} rows: {out}", highlight=False, soft_wrap=True)


@app.command("list")
def list_studies() -> None:
    """Name the studies, their questions and presets."""
    for study in STUDIES.values():
        console.print(f"[bold]{study.name}[/]: {study.question} (presets: {', '.join(study.designs)})", highlight=False)


@app.command()
def doctor() -> None:
    """Say what overparam runs on here."""
    import os

    from overparam import paths
    from overparam.laboratory import default_workers
    from overparam.store.provenance import environment

    device = _device("auto")
    for name, value in environment(device, 1).items():
        console.print(f"{name}: {value}", highlight=False)
    console.print(f"workers by default: {default_workers()}", highlight=False)
    console.print(
        f"data: {os.environ.get('OVERPARAM_DATA') or paths.user_cache() / 'data'}", highlight=False, soft_wrap=True
    )
    console.print(f"cache: {paths.user_cache()}", highlight=False, soft_wrap=True)
    if device == "cpu" and "+cpu" not in environment(device, 1)["torch"] and sys.platform == "linux":
        console.print("This torch may be a CUDA build without a GPU; the README names the small CPU build.")


@data_app.command("list")
def data_list(data_dir: DataOption = None) -> None:
    """Name the data sets that can be used now."""
    from overparam.data.load import available

    for entry in available(data_dir):
        console.print(" · ".join(str(part) for part in entry), highlight=False, soft_wrap=True)


@data_app.command("add")
def data_add(
    name: Annotated[str, typer.Argument(help="Name to use it by.")],
    source: Annotated[Path, typer.Option("--from", help="Directory that holds its files.")],
    data_dir: DataOption = None,
    debug: DebugOption = False,
) -> None:
    """Check a data set and copy its files to where overparam looks."""
    from overparam.data.add import add

    with plain_errors(debug):
        home = add(name, source, data_dir)
    console.print(f"Added {name}: {home}", highlight=False, soft_wrap=True)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Why do neural networks with more parameters than data generalize?"""
    if version:
        console.print(__version__, highlight=False)
        raise typer.Exit


if __name__ == "__main__":
    app()

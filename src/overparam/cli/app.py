"""The command line: joins plan and power, prints, and turns every known error into one sentence and exit code 2."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from overparam.cli.tables import command_line, console, errors, say
from overparam.foundations.version import __version__
from overparam.studies.catalogue import STUDIES

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Why do overparameterized networks generalize?",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets this machine has.")
app.add_typer(data_app, name="data")

Names = Annotated[list[str] | None, typer.Argument(help="Studies; none means all.", metavar="[STUDY]...")]
PresetOption = Annotated[str, typer.Option(help="smoke, laptop, overnight or paper.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field of every run that has it: train.epochs=5. Repeat for more."),
]
SeedsOption = Annotated[int | None, typer.Option(min=1, help="Number of seeds instead of the preset's.")]
ConfigOption = Annotated[Path | None, typer.Option(help="YAML file of fields to change; --set wins over it.")]
StoreOption = Annotated[Path, typer.Option(help="Directory of runs.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")]
OnOption = Annotated[str, typer.Option(help="Where to compute: local.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
DataOption = Annotated[Path | None, typer.Option(help="Directory of data sets; default: OVERPARAM_DATA.")]
MixedOption = Annotated[bool, typer.Option("--allow-mixed", help="Resume work begun in another environment.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
StoredNames = Annotated[
    list[str] | None, typer.Argument(help="Studies; none means what was last run in the store.", metavar="[STUDY]...")
]
StoredPreset = Annotated[str | None, typer.Option(help="Default: as last run in the store.")]


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
    from overparam.cli import progress
    from overparam.cli.choice import asked, choose
    from overparam.cli.tables import verdict_table
    from overparam.lab.backends.choose import refuse_unknown
    from overparam.lab.costs import CostModel
    from overparam.lab.laboratory import carry_out
    from overparam.lab.plan import cost_of

    with _resumable(), plain_errors(debug):
        chosen = choose(asked(names, preset, sets, config, seeds, data_dir), store, workers, device, allow_mixed)
        refuse_unknown(on)
        plan = chosen.plan()
        costs = cost_of(plan, chosen.experiments, CostModel(chosen.execution, chosen.workers))
        chosen.request.save(store)  # nothing that is refused is remembered
        with progress.shown(console) as show:
            swept = carry_out(plan, costs, chosen.execution, workers=chosen.workers, on=on, on_progress=show)
        for identity, sentence in swept.failures.items():
            errors.print(f"[bold red]failed:[/] run {identity}: {escape(sentence)}", highlight=False, soft_wrap=True)
        if swept.interrupted:
            _say_how_to_resume()
        results = chosen.results
        page = results.report()
        console.print(verdict_table(results.claims()))
        spent = results.core_seconds()
    cached = len(plan.runs) - len(plan.missing)
    say(f"{swept.finished} runs done, {cached} cached, {len(swept.failures)} failed; {spent:,.0f} core-seconds in all.")
    say(f"Report: {page}")
    if swept.failures:
        raise typer.Exit(1)


@contextmanager
def _resumable() -> Iterator[None]:
    """Ctrl-C at any moment ends with the command that resumes."""
    try:
        yield
    except KeyboardInterrupt:
        _say_how_to_resume()


def _say_how_to_resume() -> None:
    sentence = "Interrupted; finished runs and checkpoints are kept. Resume with:"
    errors.print(f"{sentence}\n  {escape(command_line())}", highlight=False, soft_wrap=True)
    raise typer.Exit(130)


@app.command()
def plan(
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
    """Say what would run: cached and missing runs, cost, disk, and the power of each claim."""
    from overparam.cli import progress
    from overparam.cli.choice import asked, choose
    from overparam.cli.tables import plan_table, power_table
    from overparam.lab.backends.choose import refuse_unknown
    from overparam.lab.costs import CostModel, disk_bytes
    from overparam.lab.plan import cost_of
    from overparam.lab.throughput import measured_throughput

    with plain_errors(debug):
        refuse_unknown(on)
        chosen = choose(asked(names, preset, sets, config, seeds, data_dir), store, workers, device, allow_mixed)
        todo, model = chosen.plan(), CostModel(chosen.execution, chosen.workers, measured_throughput)
        costs = cost_of(todo, chosen.experiments, model)
        model.save()
        disk = sum(disk_bytes(run.job.spec, chosen.execution) for run in todo.missing)
    total = sum(costs.values())
    console.print(plan_table(chosen.experiments))
    say(
        f"cached {len(todo.runs) - len(todo.missing)}, missing {len(todo.missing)}: about {total:,.0f} core-seconds, "
        f"{progress.duration(total / chosen.workers)} with {chosen.workers} workers, {disk / 1e6:,.1f} MB"
    )
    console.print(power_table(chosen.experiments))


@app.command()
def status(
    names: StoredNames = None,
    preset: StoredPreset = None,
    sets: SetOption = None,
    config: ConfigOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    data_dir: DataOption = None,
    debug: DebugOption = False,
) -> None:
    """Count the runs of each study by status."""
    from overparam.cli.choice import remembered
    from overparam.lab.table import frame_of

    with plain_errors(debug):
        chosen = remembered(names, preset, sets, config, seeds, store, data_dir)
        for item in chosen.experiments:
            counts = frame_of(item, chosen.execution).unique("run_id").group_by("status").len().sort("status")
            text = ", ".join(f"{count} {name}" for name, count in counts.iter_rows())
            say(f"{item.study.name} ({item.preset}): {text}")


@app.command()
def report(
    names: StoredNames = None,
    preset: StoredPreset = None,
    sets: SetOption = None,
    config: ConfigOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    data_dir: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Directory; default: <store>/report.")] = None,
    debug: DebugOption = False,
) -> None:
    """Write the report from what is in the store; nothing is run."""
    from overparam.cli.choice import remembered

    with plain_errors(debug):
        page = remembered(names, preset, sets, config, seeds, store, data_dir).results.report(out)
    say(f"Report: {page}")


@app.command()
def claims(
    names: StoredNames = None,
    preset: StoredPreset = None,
    sets: SetOption = None,
    config: ConfigOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    data_dir: DataOption = None,
    debug: DebugOption = False,
) -> None:
    """Print the verdict of every claim and its reason."""
    from overparam.cli.choice import remembered
    from overparam.cli.tables import verdict_table

    with plain_errors(debug):
        verdicts = remembered(names, preset, sets, config, seeds, store, data_dir).results.claims()
    console.print(verdict_table(verdicts))
    for verdict in verdicts:
        say(f"{verdict.claim.name}: {verdict.verdict}; {verdict.reason}.")


@app.command()
def export(
    names: StoredNames = None,
    preset: StoredPreset = None,
    sets: SetOption = None,
    config: ConfigOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = Path("runs"),
    data_dir: DataOption = None,
    out: Annotated[Path, typer.Option(help="A .csv or .parquet file.")] = Path("runs.csv"),
    debug: DebugOption = False,
) -> None:
    """Write one row per arm, level and seed to a CSV or Parquet file."""
    from overparam.cli.choice import remembered

    with plain_errors(debug):
        if out.suffix not in (".csv", ".parquet"):
            raise ValueError(f"cannot export to {out}; allowed endings: .csv, .parquet")
        frame = remembered(names, preset, sets, config, seeds, store, data_dir).results.frame()
        frame.write_parquet(out) if out.suffix == ".parquet" else frame.write_csv(out)
    say(f"{len(frame)} rows: {out}")


@app.command()
def measure(
    reference: Annotated[str, typer.Argument(help="FILE.py:factory, which returns a module or (module, (x, y)).")],
    weights: Annotated[Path | None, typer.Option(help="A safetensors file for the module.")] = None,
    data: Annotated[str | None, typer.Option(help="A data set by its name, instead of the factory's data.")] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Only the first ones; default: 1000 of --data, all of the factory's own.")
    ] = None,
    loss: Annotated[str, typer.Option(help="cross_entropy or mse.")] = "cross_entropy",
    out: Annotated[Path | None, typer.Option(help="Also write a page, card.html.")] = None,
    data_dir: DataOption = None,
    debug: DebugOption = False,
) -> None:
    """Measure how sharp a model of your own is, and which measures its scale alone can move."""
    from overparam.cli.user_model import report_on
    from overparam.foundations.files import replace_bytes
    from overparam.report.card import card_page

    with plain_errors(debug):
        card = report_on(reference, weights, data, data_dir, examples, loss)
        console.print(escape(card.to_text()), highlight=False, soft_wrap=True)
        if out is not None:
            replace_bytes(out, card_page(card.to_json(), reference).encode())
            say(f"Card: {out}")


@app.command("list")
def list_studies() -> None:
    """Name the studies, their questions and presets."""
    for study in STUDIES.values():
        console.print(f"[bold]{study.name}[/]: {study.question} (presets: {', '.join(study.designs)})", highlight=False)


@app.command()
def doctor() -> None:
    """Say what overparam runs on here."""
    import os

    from overparam.foundations import paths
    from overparam.foundations.environment import environment
    from overparam.lab.laboratory import default_workers
    from overparam.runs.execution import device_named

    device = device_named("auto")
    for name, value in environment(device, 1).items():
        say(f"{name}: {value}")
    say(f"workers by default: {default_workers()}")
    say(f"data: {os.environ.get('OVERPARAM_DATA') or paths.user_cache() / 'data'}")
    say(f"cache: {paths.user_cache()}")
    if device == "cpu" and "+cpu" not in environment(device, 1)["torch"] and sys.platform == "linux":
        say("This torch may be a CUDA build without a GPU; the README names the small CPU build.")


@app.command()
def selftest() -> None:
    """Check this installation against known answers, in seconds."""
    from overparam.cli.selftest import selftest as checks

    failed = 0
    for check in checks():
        mark = "[green]ok[/]" if check.passed else "[bold red]failed[/]"
        figures = f"{check.error:.1e}, allowed {check.allowed:g}"
        console.print(f"{mark} {escape(check.name)}: {figures}", highlight=False, soft_wrap=True)
        failed += not check.passed
    if failed:
        say(f"checks that failed: {failed}. Do not trust this installation; `overparam doctor` says what it is.")
        raise typer.Exit(1)


@data_app.command("list")
def data_list(data_dir: DataOption = None, debug: DebugOption = False) -> None:
    """Name the data sets that can be used now."""
    from overparam.data.sources import available

    with plain_errors(debug):
        entries = available(data_dir)
    for entry in entries:
        say(" · ".join(str(part) for part in entry))


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
    say(f"Added {name}: {home}")


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Why do neural networks with more parameters than data generalize?"""
    if version:
        console.print(__version__, highlight=False)
        raise typer.Exit


if __name__ == "__main__":
    app()

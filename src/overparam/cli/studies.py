"""Commands about studies: plan and run them, and read what was run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from overparam.cli.errors import plain_errors
from overparam.cli.options import Asked, Debug, Stored
from overparam.cli.tables import command_line, console, errors, say


def run(asked: Asked, debug: Debug = False) -> None:
    """Run studies, or resume them, and write the report."""
    from overparam.cli import progress
    from overparam.cli.choice import chosen_of
    from overparam.cli.tables import verdict_table
    from overparam.lab.backends.choose import refuse_unknown
    from overparam.lab.costs import CostModel
    from overparam.lab.laboratory import carry_out
    from overparam.lab.plan import cost_of

    with _resumable(), plain_errors(debug):
        chosen = chosen_of(asked)
        refuse_unknown(asked.on)
        plan = chosen.plan()
        costs = cost_of(plan, chosen.experiments, CostModel(chosen.execution, chosen.workers))
        chosen.request.save(asked.store)  # nothing that is refused is remembered
        with progress.shown(console) as show:
            swept = carry_out(plan, costs, chosen.execution, workers=chosen.workers, on=asked.on, on_progress=show)
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


def plan(asked: Asked, debug: Debug = False) -> None:
    """Say what would run: cached and missing runs, cost, disk, and the power of each claim."""
    from overparam.cli import progress
    from overparam.cli.choice import chosen_of
    from overparam.cli.tables import plan_table, power_table
    from overparam.lab.backends.choose import refuse_unknown
    from overparam.lab.costs import CostModel, disk_bytes
    from overparam.lab.plan import cost_of, timed

    with plain_errors(debug):
        refuse_unknown(asked.on)
        chosen = chosen_of(asked)
        todo, model = chosen.plan(), CostModel(chosen.execution, chosen.workers, timed)
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


def status(stored: Stored, debug: Debug = False) -> None:
    """Count the runs of each study by status."""
    from overparam.cli.choice import remembered
    from overparam.lab.table import frame_of

    with plain_errors(debug):
        chosen = remembered(stored)
        for item in chosen.experiments:
            counts = frame_of(item, chosen.execution, {}).unique("run_id").group_by("status").len().sort("status")
            text = ", ".join(f"{count} {name}" for name, count in counts.iter_rows())
            say(f"{item.study.name} ({item.preset}): {text}")


def report(
    stored: Stored,
    out: Annotated[Path | None, typer.Option(help="Directory; default: <store>/report.")] = None,
    debug: Debug = False,
) -> None:
    """Write the report from what is in the store; nothing is run."""
    from overparam.cli.choice import remembered

    with plain_errors(debug):
        page = remembered(stored).results.report(out)
    say(f"Report: {page}")


def claims(stored: Stored, debug: Debug = False) -> None:
    """Print the verdict of every claim and its reason."""
    from overparam.cli.choice import remembered
    from overparam.cli.tables import verdict_table

    with plain_errors(debug):
        verdicts = remembered(stored).results.claims()
    console.print(verdict_table(verdicts))
    for verdict in verdicts:
        say(f"{verdict.claim.name}: {verdict.verdict}; {verdict.reason}.")


def export(
    stored: Stored,
    out: Annotated[Path, typer.Option(help="A .csv or .parquet file.")] = Path("runs.csv"),
    debug: Debug = False,
) -> None:
    """Write one row per arm, level and seed to a CSV or Parquet file."""
    from overparam.cli.choice import remembered

    with plain_errors(debug):
        if out.suffix not in (".csv", ".parquet"):
            raise ValueError(f"cannot export to {out}; allowed endings: .csv, .parquet")
        frame = remembered(stored).results.frame()
        frame.write_parquet(out) if out.suffix == ".parquet" else frame.write_csv(out)
    say(f"{len(frame)} rows: {out}")


def list_studies() -> None:
    """Name the studies, their questions and presets."""
    from overparam.studies.catalogue import STUDIES

    for study in STUDIES.values():
        console.print(f"[bold]{study.name}[/]: {study.question} (presets: {', '.join(study.designs)})", highlight=False)

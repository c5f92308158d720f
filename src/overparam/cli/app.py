"""The command line: which commands there are, in the order of the help. Each loads what it needs when it is called."""

from collections.abc import Callable
from typing import Annotated

import typer

from overparam.cli.data import data_add, data_list
from overparam.cli.machine import doctor, selftest
from overparam.cli.measure import measure
from overparam.cli.options import flat
from overparam.cli.studies import claims, export, list_studies, plan, report, run, status
from overparam.cli.tables import console
from overparam.foundations.version import __version__

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "plan": plan,
    "status": status,
    "report": report,
    "claims": claims,
    "export": export,
    "measure": measure,
    "list": list_studies,
    "doctor": doctor,
    "selftest": selftest,
}
DATA_COMMANDS: dict[str, Callable[..., None]] = {"list": data_list, "add": data_add}


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Why do overparameterized networks generalize?",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets this machine has.")
app.add_typer(data_app, name="data")
for menu, commands in ((app, COMMANDS), (data_app, DATA_COMMANDS)):
    for name, command in commands.items():
        menu.command(name)(flat(command))


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Why do neural networks with more parameters than data generalize?"""
    if version:
        console.print(__version__, highlight=False)
        raise typer.Exit


if __name__ == "__main__":
    app()

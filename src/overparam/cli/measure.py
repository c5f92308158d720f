"""The command that measures a model of one's own."""

from pathlib import Path
from typing import Annotated

from rich.markup import escape
from typer import Argument, Option

from overparam.cli.errors import plain_errors
from overparam.cli.options import DataDir, Debug
from overparam.cli.tables import console, errors, say


def measure(
    reference: Annotated[str, Argument(help="FILE.py:factory, which returns a module or (module, (x, y)).")],
    weights: Annotated[Path | None, Option(help="A safetensors file for the module.")] = None,
    data: Annotated[str | None, Option(help="A data set by its name, instead of the factory's data.")] = None,
    examples: Annotated[
        int | None, Option(min=1, help="Only the first ones; default: 1000 of --data, all of the factory's own.")
    ] = None,
    loss: Annotated[str, Option(help="cross_entropy or mse.")] = "cross_entropy",
    out: Annotated[Path | None, Option(help="Also write a page, card.html.")] = None,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Measure how sharp a model of your own is, and which measures its scale alone can move."""
    from overparam.cli.user_model import report_on
    from overparam.foundations.files import replace_bytes
    from overparam.report.card import card_page

    with plain_errors(debug):
        card = report_on(reference, weights, data, data_dir, examples, loss, say=_note)
        console.print(escape(card.to_text()), highlight=False, soft_wrap=True)
        if out is not None:
            replace_bytes(out, card_page(card.to_json(), reference).encode())
            say(f"Card: {out}")


def _note(text: str) -> None:
    """Beside the report, which may be sent elsewhere."""
    errors.print(escape(text), highlight=False, soft_wrap=True)

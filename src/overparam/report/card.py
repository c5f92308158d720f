"""A sharpness report as one self-contained page."""

from collections.abc import Mapping
from typing import Any

from overparam.foundations.version import __version__
from overparam.report.templates import template


def card_page(record: Mapping[str, Any], title: str) -> str:
    """HTML of `SharpnessReport.to_json()`."""
    found = [row["name"] for row in record["rows"] if lower_bound(row)]
    return template("card.html.j2").render(card=record, title=title, version=__version__, lower_bounds=found)


def lower_bound(row: Mapping[str, Any]) -> bool:
    """Whether a row's value is the best that a search found. JSON has no infinity, but the row's note says so."""
    note = str(row["note"])
    return row["value"] is not None and (note.startswith("lower bound") or note.endswith("not reached"))

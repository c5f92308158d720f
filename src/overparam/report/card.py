"""A sharpness report as one self-contained page."""

from collections.abc import Mapping
from typing import Any

from overparam.report import numbers
from overparam.report.templates import environment
from overparam.version import __version__


def card_page(record: Mapping[str, Any], title: str) -> str:
    """HTML of `SharpnessReport.to_json()`."""
    pages = environment()
    pages.filters["plain"] = lambda value: numbers.plain(value, 4)
    return pages.get_template("card.html.j2").render(card=record, title=title, version=__version__)

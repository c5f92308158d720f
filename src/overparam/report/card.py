"""A sharpness report as one self-contained page."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from overparam.report import numbers
from overparam.version import __version__


def card_page(record: Mapping[str, Any], title: str) -> str:
    """HTML of `SharpnessReport.to_json()`."""
    environment = Environment(
        loader=PackageLoader("overparam.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = lambda value: numbers.plain(value, 4)
    return environment.get_template("card.html.j2").render(card=record, title=title, version=__version__)

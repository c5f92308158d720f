"""Figures as SVG and PNG, the same bytes for the same figure."""

from __future__ import annotations  # matplotlib is loaded where something is drawn

import io
import re
from typing import TYPE_CHECKING

from overparam.report.figures.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_svg(figure: Figure) -> str:
    """SVG element without XML head, the same bytes for the same figure."""
    stream = io.StringIO()
    with styled():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def inline(svg: str, name: str) -> str:
    """The SVG as part of a page that holds several: ids of its own, no style for the whole page, no metadata."""
    bare = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", bare)


def to_png(figure: Figure) -> bytes:
    """PNG bytes without a date."""
    stream = io.BytesIO()
    with styled():
        figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()

"""Figures are drawn once: what was drawn before from the same inputs, and lies there unchanged, is taken over.

A figure's key is a digest of what it is drawn from: its inputs, the source of this package, and the versions of the
libraries that draw or compute what is drawn. A figure function therefore gets no more than the inputs that are in its
key. A manifest in the report's folder has the key of each figure, its texts and the digests of its files; nothing of it
is believed that does not match.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, TypeAdapter

from overparam.foundations.files import replace_if_changed
from overparam.foundations.paths import drawn_figures_file
from overparam.foundations.version import __version__
from overparam.identity import Spec, digest_text, run_id
from overparam.report.figures.drawing import Drawing
from overparam.report.figures.style import styled
from overparam.report.figures.svg import inline, to_png, to_svg

DRAWN_WITH = ("matplotlib", "contourpy", "kiwisolver", "numpy", "pillow", "polars", "scipy")


@dataclass(frozen=True)
class Shown:
    """A figure as the page has it."""

    alt: str
    caption: str
    art: Markup


class Entry(BaseModel):
    """A figure in the manifest; without files if there was nothing to draw. `seal` is the digest of all the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    key: str
    name: str = ""
    alt: str = ""
    caption: str = ""
    svg: str | None = None
    png: str | None = None
    seal: str = ""

    def sealed(self) -> "Entry":
        """The same with its seal."""
        return self.model_copy(update={"seal": digest_text(self.model_dump_json(exclude={"seal"}))})


ENTRIES = TypeAdapter(dict[str, Entry])


class FigureCache:
    """The figures of one report, drawn or taken over; `save` writes the manifest once all are shown."""

    def __init__(self, folder: Path, drawn_by: Sequence[str]) -> None:
        self._folder, self._drawn_by = folder, drawn_by
        self._entries = _read(drawn_figures_file(folder))

    def shown(self, stem: str, inputs: object, draw: Callable[[], Drawing | None]) -> Shown | None:
        """The figure with files of that stem; None if there is nothing to draw. `draw` reads nothing but `inputs`."""
        key = digest_text(json.dumps([self._drawn_by, inputs], default=_plain))
        entry = self._entries.get(stem)
        svg = None if entry is None or entry.key != key else self._taken_over(stem, entry)
        if entry is None or svg is None:
            entry, svg = self._drawn(stem, key, draw)
            self._entries[stem] = entry
        return Shown(entry.alt, entry.caption, Markup(inline(svg.decode(), stem))) if svg else None

    def save(self) -> None:
        """Write down which figures lie in the folder."""
        records = {stem: entry.model_dump() for stem, entry in self._entries.items()}
        text = json.dumps(records, indent=1, sort_keys=True, ensure_ascii=False)
        replace_if_changed(drawn_figures_file(self._folder), text.encode())

    def _file(self, stem: str, kind: str) -> Path:
        return self._folder / "figures" / f"{stem}.{kind}"

    def _taken_over(self, stem: str, entry: Entry) -> bytes | None:
        """The SVG of an entry, empty if there was nothing to draw; None if a file is not as it was written."""
        svg, png = (_bytes_of(self._file(stem, kind)) for kind in ("svg", "png"))
        if entry.svg is None:
            return b""
        same = svg is not None and png is not None and (_digest(svg), _digest(png)) == (entry.svg, entry.png)
        return svg if same else None

    def _drawn(self, stem: str, key: str, draw: Callable[[], Drawing | None]) -> tuple[Entry, bytes]:
        with styled():
            drawing = draw()
        if drawing is None:
            return Entry(key=key).sealed(), b""
        svg = to_svg(drawing.figure).encode()
        drawing.figure.set_layout_engine(None)  # laid out by now: without an engine nothing is drawn twice
        png = to_png(drawing.figure)
        for kind, content in (("svg", svg), ("png", png)):
            replace_if_changed(self._file(stem, kind), content)
        texts = {"name": drawing.name, "alt": drawing.alt, "caption": drawing.caption}
        return Entry(key=key, **texts, svg=_digest(svg), png=_digest(png)).sealed(), svg


def _read(manifest: Path) -> dict[str, Entry]:
    """What the manifest says; nothing if it is not there or damaged, and no entry that is not as it was written."""
    try:
        entries = ENTRIES.validate_json(manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    return {stem: entry for stem, entry in entries.items() if entry == entry.sealed()}


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _bytes_of(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _plain(value: Any) -> Any:
    """What JSON has no form for, as what it has one for: all digits are kept, NaN is not null, a run enters by its id.

    A figure's inputs are tables, specs, dataclasses, arrays and plain values.
    """
    if isinstance(value, Spec):
        return run_id(value) if value.is_run else value.canonical_text
    if isinstance(value, pl.DataFrame):
        return value.to_dict(as_series=False)
    if is_dataclass(value):
        return [type(value).__name__, {field.name: getattr(value, field.name) for field in fields(value)}]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a figure cannot be drawn from a {type(value).__name__}: {value!r}")


@cache
def code_that_draws() -> tuple[str, ...]:
    """This version with a digest of its source, and the versions of the libraries that draw.

    All of the source is read, in about 5 ms: figures take numbers from many rooms.
    """
    state, root = hashlib.blake2b(digest_size=16), Path(__file__).parents[2]
    for file in sorted(root.rglob("*.py")):
        state.update(f"{file.relative_to(root).as_posix()}|{file.stat().st_size}|".encode() + file.read_bytes())
    return (__version__, state.hexdigest(), *(f"{name} {version(name)}" for name in DRAWN_WITH))

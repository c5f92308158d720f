"""Studies' results → one self-contained page, with figures, tables and JSON beside it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup
from matplotlib.figure import Figure

from overparam.claims.verdict import Verdict
from overparam.foundations.files import replace_bytes
from overparam.foundations.json_values import finite
from overparam.foundations.version import __version__
from overparam.probes.reading import Reading
from overparam.report import protocol, tables, written
from overparam.report.figures import exponents
from overparam.report.figures.drawing import Material
from overparam.report.figures.effects import drawable, effects_figure
from overparam.report.figures.every import landscape_drawings
from overparam.report.figures.least_squares import least_squares
from overparam.report.figures.scaling import scaling, scalings
from overparam.report.figures.svg import inline, to_png, to_svg
from overparam.report.figures.sweep import sweep_figure
from overparam.report.figures.sweep_remarks import remarks
from overparam.report.latex import arms_latex, verdicts_latex
from overparam.report.readings import readings_json
from overparam.report.templates import template
from overparam.studies.study import Preset, Study

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StudyResult:
    """All that a report needs to know about one study."""

    study: Study
    preset: Preset
    frame: pl.DataFrame
    verdicts: tuple[Verdict, ...]
    command: str
    notes: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    data_notes: tuple[str, ...] = ()


def render(results: Sequence[StudyResult], out_dir: Path) -> Path:
    """Write `report.html`, `report.json`, figures and tables into `out_dir`; return the page's path.

    The same results give the same bytes.
    """
    sections = [_section(result, out_dir) for result in results]
    page = template("page.html.j2").render(sections=sections, version=__version__)
    studies = [_json(result, section) for result, section in zip(results, sections, strict=True)]
    record = {"schema_version": SCHEMA_VERSION, "overparam": __version__, "studies": studies}
    _write(out_dir / "report.json", json.dumps(finite(record), indent=1, sort_keys=True, ensure_ascii=False))
    _write(out_dir / "report.html", page)
    return out_dir / "report.html"


def _json(result: StudyResult, section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "study": result.study.name,
        "question": result.study.question,
        "preset": result.preset,
        "command": result.command,
        "environments": tables.texts(result.frame["environment"]),
        "data_digests": tables.texts(result.frame["data_digest"]),
        "core_seconds": core_seconds(result.frame),
        "notes": [*result.notes, *result.data_notes],
        "claims": [tables.verdict_row(verdict) for verdict in result.verdicts],
        "cells": section["rows"],
        "correlations": [asdict(each) for each in section["correlations"]],
        "scaling": exponents.records(section["scalings"]),
    }


def _section(result: StudyResult, out_dir: Path) -> dict[str, Any]:
    """Template variables of one study; its figure and tables are written on the way."""
    design, name = result.study.designs[result.preset], written.stem(result.study.name)
    rows = tables.cell_rows(design, result.frame)
    runs = result.frame.unique("run_id")
    finished = int((runs["status"] != "missing").sum())
    sweep, effects = _figures(result, rows, out_dir) if finished else (None, None)
    _tables(result, rows, out_dir)
    confirmatory = [v for v in result.verdicts if v.claim.confirmatory]
    shared, found = protocol.shared(design), scalings(_material(result))
    return {
        "study": result.study,
        "preset": result.preset,
        "design": design,
        "name": name,
        "sweep": sweep,
        "effects": effects,
        "scaling": _scaling(result, found, out_dir) if finished else None,
        "scalings": found,
        "drawings": _drawings(result, out_dir),
        "correlations": tables.correlated(design, result.frame),
        "rows": rows,
        "confirmatory": confirmatory,
        "descriptive": [v for v in result.verdicts if not v.claim.confirmatory],
        "seeds": sorted(result.frame["seed"].unique()),
        "counts": {
            word: sum(v.verdict == word for v in confirmatory) for word in ("supported", "refuted", "inconclusive")
        },
        "caption": _caption(result, rows),
        "remarks": remarks(rows, result.frame),
        "titles": {arm.name: arm.title for arm in design.arms},
        "shared": shared,
        "arms": [(arm, protocol.by_arm(arm, [key for key, _ in shared])) for arm in design.arms],
        "caveats": [*result.notes, *_caveats(rows)],
        "provenance": _provenance(result.frame),
        "command": result.command,
        "finished": finished,
        "total": len(runs),
    }


def core_seconds(frame: pl.DataFrame) -> float:
    """CPU time that the finished runs and their probes took, each run once."""
    return math.fsum(frame.unique("run_id")["seconds"].drop_nulls()) + probe_seconds(frame)


def probe_seconds(frame: pl.DataFrame) -> float:
    """CPU time of the probes. A run that stands in several arms counts with the arm that asks most of it."""
    return math.fsum(frame.group_by("run_id").agg(pl.col("probe_seconds").max())["probe_seconds"].drop_nulls())


def _provenance(frame: pl.DataFrame) -> list[tuple[str, str]]:
    return [
        ("training examples", _counts(frame["num_train"])),
        ("test examples", _counts(frame["num_test"])),
        ("data digest", ", ".join(tables.texts(frame["data_digest"]))),
        ("numeric environment", " | ".join(tables.texts(frame["environment"]))),
        ("core-seconds", f"{core_seconds(frame):,.0f}, of which probes {probe_seconds(frame):,.0f}"),
    ]


def _figures(result: StudyResult, rows: list[tables.Row], out_dir: Path) -> tuple[Markup, Markup | None]:
    """The sweep, and the effects of the claims if any can be drawn; SVG and PNG files beside the page."""
    name = written.stem(result.study.name)
    sweep = _drawn(sweep_figure(rows, result.frame, result.study.factor), f"{name}_sweep", out_dir)
    if not drawable(result.verdicts):
        return sweep, None
    return sweep, _drawn(effects_figure(result.verdicts), f"{name}_effects", out_dir)


def _material(result: StudyResult) -> Material:
    design = result.study.designs[result.preset]
    return Material(result.study.factor, design, result.frame, result.readings)


def _scaling(result: StudyResult, found: Sequence[exponents.Scaling], out_dir: Path) -> dict[str, Any] | None:
    """The scaling figure and its tables, if the design declares panels."""
    material, name = _material(result), written.stem(result.study.name)
    drawing = scaling(material, found)
    if drawing is None:
        return None
    _write(out_dir / "data" / f"{name}_scaling.csv", exponents.means_csv(found))
    return {
        "alt": drawing.alt,
        "caption": drawing.caption,
        "art": _drawn(drawing.figure, f"{name}_scaling", out_dir),
        "tables": exponents.arm_tables(found, material.titles),
    }


def _drawings(result: StudyResult, out_dir: Path) -> list[dict[str, Any]]:
    """What theory says, and figures of the measurements, if there are any."""
    design, name = result.study.designs[result.preset], written.stem(result.study.name)
    measured = landscape_drawings(result.study.factor, design, result.frame, result.readings)
    if measured:
        _write(out_dir / "data" / f"{name}_measurements.json", readings_json(result.readings))
    theory = [least_squares()] if result.study.theory else []
    return [
        {
            "alt": each.alt,
            "caption": each.caption,
            "art": _drawn(each.figure, f"{name}_{each.name}", out_dir),
            "measured": each not in theory,  # only then there are data to link
        }
        for each in (*theory, *measured)
    ]


def _drawn(figure: Figure, stem: str, out_dir: Path) -> Markup:
    svg = to_svg(figure)
    figure.set_layout_engine(None)  # laid out by now: without an engine nothing is drawn twice
    _write(out_dir / "figures" / f"{stem}.svg", svg)
    _write(out_dir / "figures" / f"{stem}.png", to_png(figure))
    return Markup(inline(svg, stem))


def _tables(result: StudyResult, rows: list[tables.Row], out_dir: Path) -> None:
    name, data = written.stem(result.study.name), out_dir / "data"
    verdicts = [{k: v for k, v in tables.verdict_row(each).items() if k != "caveats"} for each in result.verdicts]
    _write(data / f"{name}_sweep.csv", pl.DataFrame(rows, infer_schema_length=None).write_csv())
    _write(data / f"{name}_verdicts.csv", pl.DataFrame(verdicts, infer_schema_length=None).write_csv())
    _write(data / f"{name}_runs.csv", result.frame.write_csv())
    _write(data / f"{name}_arms.tex", arms_latex(rows))
    _write(data / f"{name}_verdicts.tex", verdicts_latex(result.verdicts))


def _caption(result: StudyResult, rows: Iterable[tables.Row]) -> str:
    """n, interval, method, what varied, failures: the five facts a caption owes."""
    sizes = sorted({row["n_ok"] for row in rows})
    n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    failed = {word: sum(row[word] for row in rows) for word in tables.STATUSES}
    said = ", ".join(f"{count} {word}" for word, count in failed.items() if count)
    return (
        f"Means over n = {n} seeds with 95 % Student t intervals over seeds; faint dots are single runs that ended ok. "
        f"{' '.join([result.study.designs[result.preset].caption, *result.data_notes])} {_sizes(result.frame)}"
        f"{f'Runs left out: {said}.' if said else 'No run failed.'}"
    )


def _sizes(frame: pl.DataFrame) -> str:
    train, test = (_counts(frame[column]) for column in ("num_train", "num_test"))
    return f"Trained on {train} examples, tested on {test}. " if train else ""


def _counts(column: pl.Series) -> str:
    return " or ".join(f"{n:,}" for n in sorted(set(column.drop_nulls())))


def _caveats(rows: Iterable[tables.Row]) -> list[str]:
    return [
        f"{row['title']}, {row['level']}: {row[word]} of {row['n_all']} runs {word}"
        for row in rows
        for word in tables.STATUSES
        if row[word]
    ]


def _write(file: Path, content: str | bytes) -> None:
    replace_bytes(file, content.encode() if isinstance(content, str) else content)

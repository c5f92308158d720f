"""Studies' results → one self-contained page, with figures, tables and JSON beside it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from overparam.claims.verdict import Verdict
from overparam.foundations.files import replace_if_changed
from overparam.foundations.json_values import finite
from overparam.foundations.version import __version__
from overparam.probes.reading import Reading
from overparam.report import protocol, tables, written
from overparam.report.correct import correct_npz
from overparam.report.figures import exponents
from overparam.report.figures.cache import FigureCache, Shown, code_that_draws
from overparam.report.figures.drawing import Drawing, Material
from overparam.report.figures.effects import drawable, effects_figure
from overparam.report.figures.every import MEASURED_FIGURES
from overparam.report.figures.least_squares import least_squares
from overparam.report.figures.scaling import scaling, scalings
from overparam.report.figures.sweep import grouped, panels_of, sweep_figure
from overparam.report.figures.sweep_remarks import remarks
from overparam.report.latex import arms_latex, verdicts_latex
from overparam.report.readings import readings_json
from overparam.report.templates import template
from overparam.studies.study import Preset, Study

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StudyResult:
    """All that a report needs to know about one study.

    `correct` has, row by row as `frame`, the test examples that were classified correctly, in packed bits.
    """

    study: Study
    preset: Preset
    frame: pl.DataFrame
    verdicts: tuple[Verdict, ...]
    command: str
    notes: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    data_notes: tuple[str, ...] = ()
    correct: pl.DataFrame | None = None


def render(results: Sequence[StudyResult], out_dir: Path) -> Path:
    """Write `report.html`, `report.json`, figures and tables into `out_dir`; return the page's path.

    The same results give the same bytes, whether figures are drawn or were there already.
    """
    figures = FigureCache(out_dir, code_that_draws())
    sections = [_section(result, figures, out_dir) for result in results]
    figures.save()
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


def _section(result: StudyResult, figures: FigureCache, out_dir: Path) -> dict[str, Any]:
    """Template variables of one study; its figure and tables are written on the way."""
    design, name = result.study.designs[result.preset], written.stem(result.study.name)
    rows = tables.cell_rows(design, result.frame)
    runs = result.frame.unique("run_id")
    finished = int((runs["status"] != "missing").sum())
    _tables(result, rows, out_dir)
    confirmatory = [v for v in result.verdicts if v.claim.confirmatory]
    shared, found = protocol.shared(design), scalings(_material(result))
    return {
        "study": result.study,
        "preset": result.preset,
        "design": design,
        "name": name,
        "sweep": _sweep(result, rows, figures) if finished else None,
        "effects": _effects(result, figures) if finished else None,
        "scaling": _scaling(result, found, figures, out_dir) if finished else None,
        "scalings": found,
        "theory": _theory(result, figures),
        "measured": _measured(result, figures, out_dir),
        "correlations": tables.correlated(design, result.frame),
        "rows": rows,
        "correct": _correct(result, out_dir),
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
        "bits": bits(tables.texts(result.frame["environment"]), tables.texts(result.frame["mixed"])),
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


def bits(environments: list[str], mixed: list[str]) -> str:
    """What is promised to whoever repeats the runs of these numeric environments; nothing where none is recorded."""
    if not environments:
        return ""
    again = "The same command gives the same bits again with the machine and the installation that made these runs"
    again += ", but for runs that went on in another numeric environment" if mixed else ""
    if any("device cuda" in each for each in environments):
        again += "; on CUDA where every operation has a deterministic form, and the model of the GPU is not recorded"
    if all(", cpu " in each for each in environments):
        others = "Another machine of the same numeric environment should give them too, which is not promised."
    else:
        others = "The processor was not recorded, and one of another kind gives other bits."
    return (
        f"{again}. {others} In another numeric environment expect other bits, and compare numbers by their intervals."
    )


def _sweep(result: StudyResult, rows: list[tables.Row], figures: FigureCache) -> Shown | None:
    factor, metrics = result.study.factor, {metric for group in grouped(rows) for metric, _ in panels_of(group)}
    seen = result.frame.select("arm", "level", "status", *sorted(metrics))
    stem = f"{written.stem(result.study.name)}_sweep"
    return figures.shown(stem, [rows, seen, factor], lambda: Drawing("sweep", "", "", sweep_figure(rows, seen, factor)))


def _effects(result: StudyResult, figures: FigureCache) -> Shown | None:
    """Nothing if no claim's effect can be drawn."""
    seen, stem = drawable(result.verdicts), f"{written.stem(result.study.name)}_effects"
    if not seen:
        return None
    return figures.shown(stem, seen, lambda: Drawing("effects", "", "", effects_figure(seen)))


def _material(result: StudyResult) -> Material:
    design = result.study.designs[result.preset]
    return Material(result.study.factor, design, result.frame, result.readings)


def _scaling(
    result: StudyResult, found: Sequence[exponents.Scaling], figures: FigureCache, out_dir: Path
) -> dict[str, Any] | None:
    """The scaling figure and its tables, if the design declares panels."""
    material, name = _material(result), written.stem(result.study.name)
    seen = replace(material.with_columns([each.panel.metric for each in found]), readings=())
    shown = figures.shown(f"{name}_scaling", [seen, found], lambda: scaling(seen, found))
    if shown is None:
        return None
    _write(out_dir / "data" / f"{name}_scaling.csv", exponents.means_csv(found))
    return {"figure": shown, "tables": exponents.arm_tables(found, material.titles)}


def _theory(result: StudyResult, figures: FigureCache) -> Shown | None:
    """The figure of what theory says, of studies that have one; it is the same for all of them."""
    if not result.study.theory:
        return None
    return figures.shown(f"{written.stem(result.study.name)}_closed_form", None, least_squares)


def _measured(result: StudyResult, figures: FigureCache, out_dir: Path) -> list[Shown]:
    """Every figure for which there are measurements."""
    material, name = _material(result), written.stem(result.study.name)
    shown = []
    for each in MEASURED_FIGURES:
        seen = material.measured_by(each.wanted)
        shown.append(figures.shown(f"{name}_{each.name}", seen, partial(each.draw, seen)))
    found = [each for each in shown if each is not None]
    if found:
        _write(out_dir / "data" / f"{name}_measurements.json", readings_json(result.readings))
    return found


def _tables(result: StudyResult, rows: list[tables.Row], out_dir: Path) -> None:
    name, data = written.stem(result.study.name), out_dir / "data"
    verdicts = [{k: v for k, v in tables.verdict_row(each).items() if k != "caveats"} for each in result.verdicts]
    _write(data / f"{name}_sweep.csv", pl.DataFrame(rows, infer_schema_length=None).write_csv())
    _write(data / f"{name}_verdicts.csv", pl.DataFrame(verdicts, infer_schema_length=None).write_csv())
    _write(data / f"{name}_runs.csv", result.frame.write_csv())
    _write(data / f"{name}_arms.tex", arms_latex(rows))
    _write(data / f"{name}_verdicts.tex", verdicts_latex(result.verdicts))


def _correct(result: StudyResult, out_dir: Path) -> bool:
    """Whether there is a file of the test examples that runs classify correctly, which is written."""
    varies = result.study.designs[result.preset].data_varies
    found = None if result.correct is None else correct_npz(result.frame, result.correct, data_varies=varies)
    if found is not None:
        replace_if_changed(out_dir / "data" / f"{written.stem(result.study.name)}_test_correct.npz", found)
    return found is not None


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


def _write(file: Path, content: str) -> None:
    replace_if_changed(file, content.encode())

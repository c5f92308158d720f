"""A store that an earlier version wrote: its names are still those of its study, and it is read as it was.

Nothing here trains or measures, so all of it must hold on any machine.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from safetensors.numpy import load_file

import overparam
from overparam.identity import digest_arrays, run_id
from overparam.probes import AnyProbe
from overparam.probes.probe import Probe, probe_id
from overparam.specs import RunSpec
from tests.golden.old_study import DESIGN, REPORT, STORE, STUDY

PROBE: TypeAdapter[Probe] = TypeAdapter(AnyProbe)
CHANGING = {"overparam", "command"}  # the version that reports, and how it was asked


@dataclass(frozen=True)
class Reread:
    """A copy of the store, its files' digests before the study was asked for again and after, and the new report."""

    store: Path
    before: dict[str, str]
    after: dict[str, str]
    report: dict[str, Any]


@pytest.fixture(scope="module")
def reread(tmp_path_factory: pytest.TempPathFactory) -> Reread:
    store, out = tmp_path_factory.mktemp("old") / "store", tmp_path_factory.mktemp("report")
    shutil.copytree(STORE, store)
    before = digests(store)
    page = overparam.run(STUDY, preset="smoke", store=store, workers=1).report(out)
    return Reread(store, before, digests(store), json.loads(page.with_name("report.json").read_text()))


def digests(store: Path) -> dict[str, str]:
    files = (file for file in sorted(store.rglob("*")) if file.is_file())
    return {file.relative_to(store).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def named() -> tuple[dict[str, RunSpec], dict[str, set[str]]]:
    """What the study asks for: its runs, those behind them and those that probes compare with; probes by run."""
    specs: dict[str, RunSpec] = {}
    probes: dict[str, set[str]] = {}
    for cell in DESIGN.cells():
        asked = DESIGN.probes_of(cell)
        compared = (other for probe in asked for other in probe.siblings(cell.spec))
        specs |= {run_id(each): each for spec in (cell.spec, *compared) for each in spec.ancestry()}
        probes.setdefault(run_id(cell.spec), set()).update(probe_id(probe) for probe in asked)
    return specs, probes


def folder(identity: str) -> Path:
    return STORE / "runs" / identity[:2] / identity


def sealed(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())["content"]
    return content


def test_runs_and_probes_have_the_names_they_had() -> None:
    specs, probes = named()
    assert {each.name for each in STORE.glob("runs/*/*")} == specs.keys()
    for identity in specs:
        found = {file.stem for file in folder(identity).glob("measurements/*")}
        assert found == probes.get(identity, set()), identity


def test_what_is_stored_of_a_spec_is_the_spec() -> None:
    specs, _ = named()
    for identity, spec in specs.items():
        assert RunSpec.model_validate_json(sealed(folder(identity) / "spec.json")["spec"]) == spec
        for file in folder(identity).glob("measurements/*"):
            assert probe_id(PROBE.validate_python(sealed(file)["probe"])) == file.stem


def test_nothing_is_run_again(reread: Reread) -> None:
    assert reread.after == reread.before


def test_the_report_says_what_it_said(reread: Reread) -> None:
    pinned = json.loads(REPORT.read_text())
    assert list(differences(pinned, reread.report, "report")) == []


def test_a_number_that_moves_is_seen() -> None:
    assert list(differences({"a": [1.0, None]}, {"a": [1.0 + 1e-12, None]}, "")) == []
    assert len(list(differences({"a": [1.0, None], "b": 1}, {"a": [1.0 + 1e-6, 0.0], "b": 2}, ""))) == 3


def differences(then: Any, now: Any, place: str) -> Iterator[str]:
    """Places where two records differ, but for the last digits of what is computed when reporting."""
    if isinstance(then, dict) and isinstance(now, dict) and then.keys() == now.keys():
        for key in then.keys() - CHANGING:
            yield from differences(then[key], now[key], f"{place}.{key}")
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (old, new) in enumerate(zip(then, now, strict=True)):
            yield from differences(old, new, f"{place}[{index}]")
    elif isinstance(then, float) and isinstance(now, float):
        if not math.isclose(then, now, rel_tol=1e-9, abs_tol=1e-12):
            yield f"{place}: {then} → {now}"
    elif type(then) is not type(now) or then != now:
        yield f"{place}: {then!r} → {now!r}"


def test_states_are_loaded(reread: Reread) -> None:
    specs, _ = named()
    for identity, spec in specs.items():
        result = sealed(folder(identity) / "result.json")
        for step, digest in result["states"].items():
            assert digest_arrays(arrays(identity, int(step))) == digest, (identity, step)
        last = arrays(identity, result["steps"])
        weights = overparam.train(spec, store=reread.store).weights("final")
        assert {f"weights/{name}" for name in weights} == {name for name in last if name.startswith("weights/")}
        assert all(np.array_equal(value.numpy(), last[f"weights/{name}"]) for name, value in weights.items())
    assert digests(reread.store) == reread.before


def arrays(identity: str, step: int) -> dict[str, np.ndarray]:
    return load_file(folder(identity) / "states" / f"{step:09d}.safetensors")

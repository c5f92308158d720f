"""Rules about importing: what loads torch, and that no submodule hides a public function.

They are checked in one process of their own, because this one has loaded everything. What must not load torch comes
first there, one module after the other, so that the first one that does can be named.
"""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import overparam

TORCH_FREE = [  # each with all modules below it
    "overparam.identity",
    "overparam.foundations.keys",
    "overparam.foundations.numpy_generators",
    "overparam.specs",
    "overparam.claims",
    "overparam.data",
    "overparam.probes.measurement",  # and with it every probe
    "overparam.studies",
    "overparam.report",
    "overparam.lab.costs",
    "overparam.lab.plan",
    "overparam.lab.results",
    "overparam.lab.backends.local",
    "overparam.lab.laboratory",
    "overparam.cli.choice",
    "overparam.cli.app",
]

CODE = """
import importlib, json, pkgutil, sys

def load(name, visit):
    module = importlib.import_module(name)
    visit(name)
    for below in pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}."):
        if not below.name.endswith("__main__"):
            load(below.name, visit)

free, loading = [], []
import overparam
for name in json.loads(sys.argv[1]):
    load(name, lambda name: (loading if "torch" in sys.modules else free).append(name))

before = {name: getattr(overparam, name) for name in overparam.__all__}
load("overparam", lambda name: None)
hidden = [name for name, value in before.items() if getattr(overparam, name) is not value]
print(json.dumps({"free": free, "loading": loading, "public": len(before), "hidden": hidden}))
"""


def python(code: str, *arguments: str) -> str:
    """What a fresh process prints. A warning is an error there."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What a fresh process found as it imported everything."""
    loaded: dict[str, Any] = json.loads(python(CODE, json.dumps(TORCH_FREE)))
    return loaded


def test_torch_is_not_loaded(found: dict[str, Any]) -> None:
    assert found["loading"][:1] == []
    assert set(TORCH_FREE) <= set(found["free"])


def test_submodules_hide_no_public_name(found: dict[str, Any]) -> None:
    """Importing a submodule binds its name in the package: it must not overwrite something public."""
    assert found["public"] > 20
    assert found["hidden"] == []


def test_no_submodule_shares_a_name_with_a_public_function() -> None:
    modules = {module.name for module in pkgutil.iter_modules([str(Path(overparam.__file__).parent)])}
    public = set(getattr(overparam, "__all__", ()))
    functions = {name for name in public if not isinstance(getattr(overparam, name), type(sys))}
    assert modules & functions == set()


def test_help_loads_nothing_that_computes() -> None:
    code = """
import sys
from typer.testing import CliRunner
from overparam.cli.app import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
heavy = "numpy", "polars", "matplotlib", "scipy", "torch", "overparam.studies", "overparam.lab"
print(*(name for name in heavy if name in sys.modules))
"""
    assert python(code) == ""


def test_listing_studies_makes_no_design() -> None:
    code = """
import gc
from overparam.cli.studies import list_studies
from overparam.studies.catalogue import STUDIES
from overparam.studies.study import Design
list_studies()
print(sum(isinstance(each, Design) for each in gc.get_objects()))
STUDIES["ntk_regime"].designs["smoke"]
print(sum(isinstance(each, Design) for each in gc.get_objects()))
"""
    listed = python(code).splitlines()
    assert listed[-2:] == ["0", "1"] and sum("(presets: smoke, laptop, overnight, paper)" in x for x in listed) == 5

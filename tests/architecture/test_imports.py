"""Rules about importing: what loads torch, and that no submodule hides a public function.

Each rule is checked in a process of its own, because this one has loaded everything.
"""

import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import overparam

TORCH_FREE = [
    "overparam",
    "overparam.claims",
    "overparam.lab.backends.local",
    "overparam.cli.choice",
    "overparam.lab.costs",
    "overparam.data",
    "overparam.identity",
    "overparam.lab.laboratory",
    "overparam.specs.overrides",
    "overparam.report",
    "overparam.foundations.keys",
    "overparam.foundations.numpy_generators",
    "overparam.specs",
    "overparam.studies.catalogue",
]


def submodules(package: str) -> list[str]:
    """The names of a package's modules, found without importing what is below it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    folders = list(spec.submodule_search_locations or []) if package != "overparam" else []
    below = [name for m in pkgutil.iter_modules(folders, f"{package}.") for name in submodules(m.name)]
    return [package, *below]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", [name for name in TORCH_FREE if importlib.util.find_spec(name)])
def test_torch_is_not_loaded(package: str) -> None:
    imports = "; ".join(f"import {name}" for name in submodules(package) if not name.endswith("__main__"))
    assert python(f"import sys; {imports}; print('torch' in sys.modules)") == "False"


def test_submodules_hide_no_public_name() -> None:
    """Importing a submodule binds its name in the package: it must not overwrite something public."""
    code = """
import importlib, pkgutil, types
import overparam
public = getattr(overparam, "__all__", [])
before = {name: getattr(overparam, name) for name in public}
for module in pkgutil.walk_packages(overparam.__path__, "overparam."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name, value in before.items():
    assert getattr(overparam, name) is value, f"overparam.{name} changed"
    if isinstance(value, types.FunctionType):
        assert callable(getattr(overparam, name)), name
print("ok")
"""
    assert python(code) == "ok"


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

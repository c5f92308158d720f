"""The numeric environment: what it names, what differs, and what reading it costs."""

import json
import os
import subprocess
import sys

import pytest
import torch

from overparam.foundations.environment import NUMERIC, differences, environment, numeric, settings
from overparam.foundations.processor import vector_capability

NO_SETTINGS: dict[str, str] = {}


def test_differences_name_only_what_bits_depend_on() -> None:
    ours = environment("cpu", 1)
    assert differences(ours, ours | {"python": "other"}) == ""
    assert differences(ours, ours | {"threads": "4"}) == "threads 4 → 1"
    assert (
        differences(ours | {"cpu": "Intel 6/143/8"}, ours | {"cpu": "AMD 25/1/1"}) == "cpu AMD 25/1/1 → Intel 6/143/8"
    )


@pytest.mark.parametrize("name", ["vector", "cpu", "settings"])
def test_what_an_old_record_lacks_counts_as_equal(name: str) -> None:
    """Else stores of earlier versions would ask for leave to mix environments."""
    ours = environment("cpu", 1) | {name: "one"}
    old = {key: value for key, value in ours.items() if key != name}
    assert differences(ours, old) == differences(old, ours) == ""
    assert f", {name} one" in numeric(ours) and f", {name} " not in numeric(old)
    assert differences(ours, ours | {name: "other"}) == f"{name} other → one"


def test_the_text_is_short() -> None:
    text = numeric(environment("cpu", 1))
    assert len(text) < 300 and text.isprintable()


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        (NO_SETTINGS, "default"),
        ({"MKL_CBWR": ""}, "default"),
        ({"OMP_NUM_THREADS": "2", "MKL_VERBOSE": "1"}, "default"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2,STRICT"}, "ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2,STRICT"),
        ({"OPENBLAS_CORETYPE": " Haswell\nevil"}, "OPENBLAS_CORETYPE=Haswell evil"),
        ({"GLIBC_TUNABLES": "glibc.malloc.top_pad=1"}, "default"),
        ({"GLIBC_TUNABLES": "glibc.malloc.top_pad=1:glibc.cpu.hwcaps=-FMA"}, "glibc.cpu.hwcaps=-FMA"),
    ],
)
def test_settings_are_those_that_choose_kernels(variables: dict[str, str], text: str) -> None:
    assert settings(variables) == text


def test_onednn_switched_off_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert settings(NO_SETTINGS) == "mkldnn=off"


FLAGS_ARE_LISTED = pytest.mark.skipif(vector_capability() is None, reason="no flags of the processor are listed here")


@FLAGS_ARE_LISTED
def test_torch_takes_the_kernels_that_the_flags_allow() -> None:
    asked = os.environ.get("ATEN_CPU_CAPABILITY", "")
    assert vector_capability(asked) == torch.backends.cpu.get_cpu_capability().lower()


@FLAGS_ARE_LISTED
def test_what_is_said_before_torch_is_loaded_is_said_after() -> None:
    """Else what is recorded would depend on who asks, and a run be parted from its own checkpoint."""
    code = "import json, sys; from overparam.foundations.environment import environment as e; before = e('cpu', 1);"
    code += "early = 'torch' in sys.modules; import torch; print(json.dumps([early, before, e('cpu', 1)]))"
    variables = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    early, before, after = json.loads(printed)
    assert not early
    assert before == after and set(NUMERIC) <= before.keys()
    assert before["vector"] == "default"

"""How runs are carried out: what may be given, and what is refused before anything starts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from overparam.lab.backends.jobs import execution_from_json, execution_to_json
from overparam.runs import execution as module
from overparam.runs.execution import Execution, device_named


def test_paths_may_be_text_and_survive_the_way_to_a_worker() -> None:
    execution = Execution(store="runs", data_dir="data", device="auto")  # type: ignore[arg-type]
    assert (execution.store, execution.data_dir) == (Path("runs"), Path("data"))
    for each in (execution, Execution(checkpoint_seconds=0.0)):
        assert execution_from_json(json.loads(json.dumps(execution_to_json(each)))) == each


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "threads = 0; allowed: an integer ≥ 1"),
        ({"threads": 1.5}, "threads = 1.5; allowed: an integer ≥ 1"),
        ({"evaluations": 0}, "evaluations = 0; allowed: an integer ≥ 1"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds = -1.0; allowed: a number ≥ 0"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds = nan; allowed"),
        ({"device": "gpu"}, 'unknown device "gpu" for --device .device="…".; allowed: auto, cpu, cuda'),
        ({"device": "cuda:x"}, 'unknown device "cuda:x"'),
    ],
)
def test_what_is_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Execution(**settings)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_device_must_be_there(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(module, "version", lambda name: "2.13.0")  # may have CUDA
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert device_named("auto") == ("cuda" if count else "cpu")
    for name in ["cuda", "cuda:0", "cuda:1"][: count + (count > 0)]:
        assert device_named(name) == name
    with pytest.raises(ValueError, match=f"this torch sees {('no CUDA', 'only 1 CUDA', 'only 2 CUDA')[count]} device"):
        device_named(f"cuda:{count}")


def test_an_execution_on_the_cpu_loads_no_torch() -> None:
    code = "import sys; from overparam.runs.execution import Execution; Execution(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

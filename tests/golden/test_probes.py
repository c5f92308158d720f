"""Golden measurements: what each probe finds of two small networks, and its id.

They guard refactors of the measures and of their random streams. If a number moves for a good reason, raise the
`semantics` of the probe, so that no stored measurement is taken for the new one, and write the file again:
`python -m tests.golden.test_probes` from the root of the repository.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from overparam.execution import Execution
from overparam.identity import run_id
from overparam.probing import execute_and_measure
from overparam.specs import CNN, MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.specs.probe import probe_id
from overparam.store.store import Store
from tests.support.probes import ALL

FILE = Path(__file__).with_name("probes.json")
DATA = DataSpec(name="digits", num_train=100, num_test=50)
TRAIN = TrainSpec(optimizer=SGD(lr=0.05), batch_size=32, epochs=5)
SPECS = {
    "mlp": RunSpec(data=DATA, model=MLP(width=8), train=TRAIN),
    "cnn": RunSpec(data=DATA, model=CNN(channels=2), train=TRAIN),
}


def measured(name: str) -> dict[str, dict[str, Any]]:
    """Numbers of the last look of each probe by the probe's id: its metrics, or the sums that stand for an array."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        execute_and_measure(SPECS[name], Execution(store=Path(folder)), frozenset(), ALL, lambda: False)
        for probe in ALL:
            row = Store(Path(folder)).measurement(run_id(SPECS[name]), probe_id(probe))["rows"][-1]
            sums = {key: total(row[key]) for key in ("nodes", "losses", "increase_lower") if key in row}
            found[probe_id(probe)] = {"kind": type(probe).__name__, **{key: row[key] for key in probe.metrics}, **sums}
    return found


def total(values: Any) -> float:
    return sum(map(total, values)) if isinstance(values, list) else float(values)


@pytest.mark.parametrize("name", SPECS)
def test_measurements_are_the_pinned_ones(name: str) -> None:
    pinned, found = json.loads(FILE.read_text())[name], measured(name)
    assert found.keys() == pinned.keys(), "a probe's settings or semantics changed"
    for identity, numbers in pinned.items():
        top = max(abs(value) for value in numbers.values() if isinstance(value, float))
        kind = numbers.pop("kind")
        assert {key: found[identity][key] for key in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-4 * top), kind


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: measured(name) for name in SPECS}, indent=1) + "\n")

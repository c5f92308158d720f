"""Golden measurements: what each probe finds of a small network that it is defined for, and its id.

They guard refactors of the measures and of their random streams. If a number moves for a good reason, raise the
`semantics` of the probe, so that no stored measurement is taken for the new one, and write the file again:
`python -m tests.golden.test_probes` from the root of the repository.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest

from overparam.identity import run_id
from overparam.probes import AnyProbe
from overparam.probes.probe import Probe, probe_id
from overparam.probes.taking import execute_and_measure
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.specs import CNN, MLP, SGD, DataSpec, Magnitude, Rewind, RunSpec, TrainSpec
from tests.support.probes import ALL, ALONG, KERNEL, MASKED

FILE = Path(__file__).with_name("probes.json")
DATA = DataSpec(name="digits", num_train=100, num_test=50)
TRAIN = TrainSpec(optimizer=SGD(lr=0.05), batch_size=32, epochs=5)
STEEP = TrainSpec(optimizer=SGD(lr=0.1), batch_size=20, epochs=10)
DENSE = RunSpec(data=DATA, model=MLP(width=12, depth=3), train=STEEP, seed=1)
PLAIN = TrainSpec(
    optimizer=SGD(lr=0.2, momentum=0.0), batch_size="full", steps=20, schedule="constant", loss="mse", lazy_scale=1.0
)
PROBED: dict[str, tuple[RunSpec, tuple[Probe, ...]]] = {
    "mlp": (RunSpec(data=DATA, model=MLP(width=8), train=TRAIN), ALL),
    "cnn": (RunSpec(data=DATA, model=CNN(channels=2), train=TRAIN), ALL),
    "lazy": (
        RunSpec(
            data=DataSpec(name="digits", num_train=40, num_test=50),
            model=MLP(width=32, depth=3, parameterization="ntk", bias=False),
            train=PLAIN,
        ),
        KERNEL,
    ),
    "wrong labels": (
        RunSpec(data=DATA.model_copy(update={"num_val": 50, "label_noise": 0.2}), model=MLP(width=24), train=STEEP),
        ALONG,
    ),
    "ticket": (
        DENSE.model_copy(update={"init": Rewind(of=DENSE), "mask": Magnitude(of=DENSE, fraction=0.7)}),
        MASKED,
    ),
}
ARRAYS = ("nodes", "losses", "increase_lower", "errors", "val_losses", "densities", "dead_outputs", "dead_inputs")


def measured(name: str) -> dict[str, dict[str, Any]]:
    """Numbers of the last look of each probe by the probe's id: its metrics, or the sums that stand for an array."""
    found, (spec, probes) = {}, PROBED[name]
    with tempfile.TemporaryDirectory() as folder:
        execute_and_measure(Setting(spec, Execution(store=Path(folder))), frozenset(), probes, lambda: False)
        for probe in probes:
            row = Store(Path(folder)).measurement(run_id(spec), probe_id(probe))["rows"][-1]
            sums = {key: total(row[key]) for key in ARRAYS if key in row}
            found[probe_id(probe)] = {"kind": probe.kind, **{key: row[key] for key in probe.metrics}, **sums}
    return found


def total(values: Any) -> float:
    return sum(map(total, values)) if isinstance(values, list) else float(values)


def smallest(name: str, numbers: dict[str, Any]) -> float:
    """What may differ however small a number is: curvature's smaller numbers are found beside its largest one."""
    top = max((abs(value) for value in numbers.values() if isinstance(value, float)), default=0.0)
    return 1e-4 * top if PROBED[name][1] is ALL else 2e-5


@pytest.mark.parametrize("name", PROBED)
def test_measurements_are_the_pinned_ones(name: str) -> None:
    pinned, found = json.loads(FILE.read_text())[name], measured(name)
    assert found.keys() == pinned.keys(), "a probe's settings or semantics changed"
    for identity, numbers in pinned.items():
        kind, near = numbers["kind"], smallest(name, numbers)
        assert found[identity].keys() == numbers.keys(), kind
        for key, value in numbers.items():
            exact = value is None or isinstance(value, str)  # a number that is not there, a name
            assert found[identity][key] == (value if exact else pytest.approx(value, rel=1e-3, abs=near)), (kind, key)


def test_every_kind_of_probe_is_pinned() -> None:
    """Else its id or its numbers could move unseen."""
    union, _ = get_args(AnyProbe)
    pinned = {numbers["kind"] for probes in json.loads(FILE.read_text()).values() for numbers in probes.values()}
    assert pinned == {each.model_fields["kind"].default for each in get_args(union)}


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: measured(name) for name in PROBED}, indent=1) + "\n")

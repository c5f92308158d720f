"""Golden trajectories: the numbers of short runs, dense and pruned, pinned.

They guard refactors of data, initialization, order, loop, optimizers, masks and rewinding. If one moves for a good
reason, raise the `semantics` of the component that moved and write the file again:
`python tests/golden/test_trajectories.py`.
Other processors and torch versions round differently, so values are compared with a tolerance that any real
change of the algorithm breaks within these few steps.
"""

import json
import tempfile
from pathlib import Path

import pytest

from overparam.runs.execute import train
from overparam.specs import CNN, MLP, SGD, Adam, DataSpec, RunSpec, TrainSpec
from overparam.specs.pruning import controls, iterative_pruning

FILE = Path(__file__).with_name("trajectories.json")
DIGITS = DataSpec(name="digits", num_train=200, num_test=100, label_noise=0.1)


def train_spec(optimizer: SGD | Adam, batch_size: int | str, **fields: object) -> TrainSpec:
    return TrainSpec.model_validate({"optimizer": optimizer, "batch_size": batch_size, "epochs": 10} | fields)


SPECS = {
    "mlp": RunSpec(data=DIGITS, model=MLP(width=16), train=train_spec(SGD(lr=0.05), 32)),
    "cnn": RunSpec(data=DIGITS, model=CNN(channels=2), train=train_spec(SGD(lr=0.05, weight_decay=0.001), 64), seed=1),
    "adam": RunSpec(
        data=DataSpec(name="mnist1d", num_train=300),
        model=MLP(width=(20, 10), activation="gelu", parameterization="ntk"),
        train=train_spec(Adam(lr=0.01), 50, schedule="constant"),
    ),
    "full": RunSpec(
        data=DIGITS, model=MLP(width=8, activation="erf"), train=train_spec(SGD(lr=0.2), "full", loss="mse")
    ),
}
DENSE = SPECS["mlp"].model_copy(update={"train": train_spec(Adam(lr=0.005), 32)})
TICKET = iterative_pruning(DENSE, [{"rest": 0.5, "last": 0.2}] * 2, scope="layer", step=14)[-1]
SIZES = {"1.weight": 64 * 16, "3.weight": 256, "5.weight": 256, "7.weight": 160}
SPECS |= {"ticket": TICKET} | controls(TICKET, SIZES)


def trajectory(spec: RunSpec) -> dict[str, list[float]]:
    """Losses at every evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        curves = train(spec, store=folder).curves
    return {name: curves[name].to_list() for name in ("train_loss", "test_loss")}


@pytest.mark.parametrize("name", SPECS)
def test_trajectory_is_the_pinned_one(name: str) -> None:
    pinned = json.loads(FILE.read_text())[name]
    found = trajectory(SPECS[name])
    for split, losses in pinned.items():
        assert found[split] == pytest.approx(losses, rel=2e-4), split


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: trajectory(spec) for name, spec in SPECS.items()}, indent=1) + "\n")

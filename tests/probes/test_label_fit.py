"""Right and wrong labels: how a network fits each, and how designs draw them."""

import math
from pathlib import Path

import pytest
import torch

from overparam.data.load import prepare
from overparam.foundations.torch_generators import torch_generator
from overparam.lab.experiment import experiment, of_design
from overparam.lab.table import frame_of, taken_of
from overparam.models.risk import risk
from overparam.probes.label_fit import LabelFit, fit_by_label, selected
from overparam.probes.taking import execute_and_measure
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.studies.double_descent.claims import claims
from overparam.studies.double_descent.grid import MNIST1D_THRESHOLD, around
from overparam.studies.study import Arm, Design, Level, Probing, Study


def design(noise: float = 0.2, num_val: int = 40) -> Design:
    data = DataSpec(name="digits", num_train=200, num_val=num_val, num_test=100, label_noise=noise)
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=50, epochs=6)
    levels = tuple(Level(value=w, spec=RunSpec(data=data, model=MLP(width=w), train=train)) for w in (4, 16))
    arm = Arm(name="arm", title="Arm", note="", levels=levels)
    probings = (Probing(probe=LabelFit()),)
    return Design(seeds=(0, 1), arms=(arm,), claims=(), caption="", probings=probings, data_varies=True)


def test_a_seed_draws_its_own_wrong_labels_the_same_at_every_width() -> None:
    drawn: dict[int, set[str]] = {}
    for cell in design().cells():
        examples = prepare(cell.spec.data)
        assert len(examples.flipped) == 40
        assert (examples.train.y != examples.clean_train_y).sum() == 40
        drawn.setdefault(cell.seed, set()).add(examples.noise_digest)
    assert [len(digests) for digests in drawn.values()] == [1, 1]
    assert drawn[0] != drawn[1]


def test_accuracies_by_label_make_up_the_train_accuracy(tmp_path: Path) -> None:
    item = of_design(
        Study(name="s", title="", question="", background="", factor="width", designs={}), "smoke", design()
    )
    execution = Execution(store=tmp_path)
    for cell in item.cells:
        execute_and_measure(Setting(cell.spec, execution), frozenset(), item.design.probes_of(cell), lambda: False)
    frame = frame_of(item, execution, taken_of(item, execution))
    for row in frame.iter_rows(named=True):
        whole = 0.8 * row["clean_accuracy"] + 0.2 * row["flipped_accuracy"]
        assert whole == pytest.approx(row["train_accuracy"])
        assert 0.8 * row["clean_loss"] + 0.2 * row["flipped_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
        assert row["best_test_accuracy"] >= max(row["test_accuracy"], row["early_stopped_test_accuracy"])
        assert 0.0 <= row["recovered_accuracy"] <= 1.0 - row["flipped_accuracy"]


def test_wrong_labels_are_counted_against_their_true_ones() -> None:
    generator = torch_generator(0, "fit")
    model, x = torch.nn.Linear(3, 4), torch.randn(30, 3, generator=generator)
    true_y = model(x).argmax(1)  # the network is right about every example
    wrong = torch.arange(30) < 10
    y = torch.where(wrong, (true_y + 1) % 4, true_y)
    found = fit_by_label(model, x, y, true_y, wrong, "cross_entropy")
    assert (found["clean_accuracy"], found["flipped_accuracy"], found["recovered_accuracy"]) == (1.0, 0.0, 1.0)
    assert found["flipped_loss"] == risk(model, x[:10], y[:10], "cross_entropy").loss
    clean = fit_by_label(model, x, true_y, true_y, torch.zeros(30, dtype=torch.bool), "cross_entropy")
    assert math.isnan(clean["flipped_accuracy"]) and clean["clean_accuracy"] == 1.0


def test_without_validation_nothing_stops_early() -> None:
    found = selected({"test_accuracy": [0.2, None, 0.5], "val_loss": [None, None, None]})
    assert found["best_test_accuracy"] == 0.5 and math.isnan(found["early_stopped_test_accuracy"])


def test_widths_are_dense_around_the_threshold() -> None:
    near = [width for width in around(MNIST1D_THRESHOLD) if 0.5 <= width / MNIST1D_THRESHOLD <= 2.0]
    assert len(near) >= 6


def test_claims_are_about_the_arms_that_are_there() -> None:
    assert claims(set(), 100.0) == ()
    names = {claim.name for claim in claims({"noisy"}, 100.0)}
    assert "the error peaks with wrong labels" in names and "the error peaks with clean labels" not in names
    assert {arm.name for arm in experiment("double_descent", "laptop").design.arms} >= {"clean", "noisy", "published"}

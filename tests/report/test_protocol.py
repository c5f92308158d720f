"""The protocol box: every field of a run, and no more than a line of the runs behind it."""

from overparam.identity import run_id
from overparam.report.protocol import by_arm, flat, shared
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.specs.pruning import controls, iterative_pruning
from overparam.studies.study import Arm, Design, Level

TRAIN = TrainSpec(optimizer=SGD(lr=0.1), batch_size=32, epochs=1)
DENSE = RunSpec(data=DataSpec(name="digits"), model=MLP(width=16), train=TRAIN)
CHAIN = iterative_pruning(DENSE, [0.2] * 20)
SIZES = {"1.weight": 1024, "3.weight": 256, "5.weight": 256, "7.weight": 160}


def test_a_ticket_of_many_rounds_names_its_parents_and_stops_there() -> None:
    fields = flat(CHAIN[20])
    assert fields["init.of"] == f"dense run {run_id(DENSE)[:8]} (seed 0)"
    assert fields["mask.of"] == f"magnitude run {run_id(CHAIN[19])[:8]} (seed 0)"
    assert fields["mask.fraction"] == "0.2" and fields["train.optimizer.lr"] == "0.1"
    assert not [name for name in fields if ".of." in name]
    assert len(fields) <= len(flat(DENSE)) + 6 and "" not in fields.values()


def test_what_levels_have_in_common_is_said_once() -> None:
    levels = tuple(Level(value=i, spec=spec) for i, spec in enumerate(CHAIN[18:], start=18))
    arm = Arm(name="ticket", title="Ticket", note="", levels=levels)
    design = Design(seeds=(0, 1), arms=(arm,), claims=(), caption="")
    common = dict(shared(design))
    assert common["init.of"].startswith("dense run ") and "seed" not in common
    assert by_arm(arm, common) == [("mask.of", " · ".join(flat(spec)["mask.of"] for spec in CHAIN[18:]))]


def test_every_control_of_a_ticket_has_a_short_box() -> None:
    for control in controls(CHAIN[20], SIZES).values():
        assert not [name for name in flat(control) if ".of." in name]

"""The profile of a mask: its layers, its dead units, and what it shares with the mask of another seed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from overparam.foundations.paths import run_dir
from overparam.identity import run_id
from overparam.lab.plan import make_plan
from overparam.measure.comparison.masks import dead_units, density_profile, expected_by_inputs, mask_overlap
from overparam.models.masks import density
from overparam.probes.mask_profile import MaskProfile
from overparam.probes.probe import probe_id
from overparam.probes.taking import execute_and_measure
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import train
from overparam.runs.execution import Execution
from overparam.runs.run import read
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.specs import MLP, SGD, DataSpec, Magnitude, RandomMask, Rewind, RunSpec, ShuffledMask, TrainSpec

PROBE = MaskProfile()
LAYERS = ["1.weight", "3.weight", "5.weight"]
DENSE = RunSpec(
    data=DataSpec(name="digits", num_train=200, num_test=100),
    model=MLP(width=(24, 12)),
    train=TrainSpec(optimizer=SGD(lr=0.2), batch_size=20, epochs=6),
    seed=1,
)
TICKET = DENSE.model_copy(update={"init": Rewind(of=DENSE), "mask": Magnitude(of=DENSE, fraction=0.7)})
RANDOM = DENSE.model_copy(update={"mask": RandomMask(fraction=0.7, scope="global")})


def profile(spec: RunSpec, store: Path, probe: MaskProfile = PROBE) -> dict[str, Any]:
    execute_and_measure(Setting(spec, Execution(store=store)), frozenset(), [probe], lambda: False)
    row: dict[str, Any] = Store(store).measurement(run_id(spec), probe_id(probe))["rows"][0]
    return row


def other(spec: RunSpec, probe: MaskProfile = PROBE) -> RunSpec:
    found = probe.other(spec)
    assert found is not None
    return found


def test_a_profile_is_that_of_the_two_masks(tmp_path: Path) -> None:
    found, theirs = profile(TICKET, tmp_path), other(TICKET)
    assert {each.seed for each in theirs.ancestry()} == {0} and theirs.data == TICKET.data
    assert not Store(tmp_path).has(run_id(theirs)), "its mask needs the runs behind it, not the run"
    profile(theirs, tmp_path)
    a, b = (read(each, Execution(store=tmp_path)).state("final").mask for each in (TICKET, theirs))
    overlap = mask_overlap(a, b)
    assert (found["mask_excess"], found["mask_overlap_z"]) == (overlap.excess, overlap.z)
    assert found["mask_excess_by_inputs"] == overlap.shared / expected_by_inputs(a, b)
    assert found["layers"] == LAYERS and found["density"] == density(a)
    assert found["densities"] == [density_profile(a)[name] for name in LAYERS]
    for side in ("inputs", "outputs"):
        assert found[f"dead_{side}"] == [getattr(dead_units(a)[name], side) for name in LAYERS]
    assert overlap.z > 2 and found["mask_excess_by_inputs"] < overlap.excess, "tickets agree in the pixels they read"


@pytest.mark.parametrize("spec", [RANDOM, TICKET.model_copy(update={"mask": ShuffledMask(of=TICKET)})])
def test_random_masks_share_what_chance_gives(tmp_path: Path, spec: RunSpec) -> None:
    assert abs(profile(spec, tmp_path)["mask_overlap_z"]) < 3


def test_the_other_seed_can_be_chosen_and_has_none_itself(tmp_path: Path) -> None:
    probe = MaskProfile(other_seed=1)
    assert probe.other(TICKET) is None and probe.siblings(TICKET) == ()
    assert probe.other(TICKET.model_copy(update={"streams": {"mask": 7}, "seed": 0})) is None, "no other draw of it"
    alone, seen = profile(TICKET, tmp_path, probe), profile(other(TICKET), tmp_path, probe)
    assert {alone[name] for name in probe.metrics} == {None} and alone["densities"]
    assert seen["mask_excess"] == pytest.approx(profile(TICKET, tmp_path)["mask_excess"]), "sharing is mutual"


def test_a_plan_holds_what_the_other_mask_is_made_of(tmp_path: Path) -> None:
    second = TICKET.model_copy(update={"mask": Magnitude(of=TICKET, fraction=0.5)})
    plan = make_plan([second], Execution(store=tmp_path), {run_id(second): [PROBE]})
    theirs = other(second)
    assert {run.job.run_id for run in plan.runs} == {
        run_id(each) for last in (second, *theirs.parents()) for each in last.ancestry()
    }
    assert run_id(theirs) not in {run.job.run_id for run in plan.runs}
    both = {run_id(second): [PROBE], run_id(theirs): [MaskProfile(other_seed=1)]}
    assert len(make_plan([second, theirs], Execution(store=tmp_path), both).runs) == 6, "each is the other's other"


def test_without_the_other_mask_the_layers_are_kept(tmp_path: Path) -> None:
    """The runs behind it diverged; here because the store says so, as at a rate at which only some seeds hold."""
    (behind,) = PROBE.siblings(TICKET)
    run = train(behind, store=tmp_path)
    result = {**run.result, "status": "diverged", "diverged_at": 1}
    states = {step: Store(tmp_path).state(run.run_id, step) for step in Store(tmp_path).steps(run.run_id)}
    shutil.rmtree(run_dir(tmp_path, run.run_id))
    Store(tmp_path).write(run.run_id, behind.model_dump_json(), result, states)
    found = profile(TICKET, tmp_path)
    assert {found[name] for name in PROBE.metrics} == {None} and len(found["densities"]) == 3


def test_a_dense_run_and_looks_on_the_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSpec, match="mask = dense, but a profile is of a mask"):
        execute_and_measure(Setting(DENSE, Execution(store=tmp_path)), frozenset(), [PROBE], lambda: False)
    with pytest.raises(ValueError, match="MaskProfile is of the whole run"):
        MaskProfile(at=(0.0, 1.0))

"""The profile of a mask: its layers, its dead units, and what it shares with the mask of another seed."""

from pathlib import Path

import pytest

from overparam.execution import Execution
from overparam.identity import run_id
from overparam.measure.tickets import dead_units, density_profile, mask_overlap
from overparam.probing import execute_and_measure
from overparam.runs import read
from overparam.specs import MLP, SGD, DataSpec, Magnitude, MaskProfile, RandomMask, Rewind, RunSpec, TrainSpec
from overparam.specs.probe import probe_id
from overparam.store.store import Store
from overparam.stored import UnsupportedSpec

PROBE = MaskProfile()
DENSE = RunSpec(
    data=DataSpec(name="digits", num_train=200, num_test=100),
    model=MLP(width=(24, 12)),
    train=TrainSpec(optimizer=SGD(lr=0.2), batch_size=20, epochs=6),
    seed=1,
)
TICKET = DENSE.model_copy(update={"init": Rewind(of=DENSE), "mask": Magnitude(of=DENSE, fraction=0.7)})
RANDOM = DENSE.model_copy(update={"mask": RandomMask(fraction=0.7, scope="global")})


def profile(spec: RunSpec, store: Path) -> dict[str, object]:
    execute_and_measure(spec, Execution(store=store), frozenset(), [PROBE], lambda: False)
    row: dict[str, object] = Store(store).measurement(run_id(spec), probe_id(PROBE))["rows"][0]
    return row


def test_a_profile_is_that_of_the_two_masks(tmp_path: Path) -> None:
    found = profile(TICKET, tmp_path)
    (other,) = PROBE.siblings(TICKET)
    assert {each.seed for each in other.ancestry()} == {0} and other.data == TICKET.data
    ours, theirs = (read(each, Execution(store=tmp_path)).state("final").mask for each in (TICKET, other))
    overlap = mask_overlap(ours, theirs)
    assert (found["mask_excess"], found["mask_overlap_z"]) == (overlap.excess, overlap.z)
    assert found["layers"] == ["1.weight", "3.weight", "5.weight"]
    assert found["densities"] == [density_profile(ours)[name] for name in ("1.weight", "3.weight", "5.weight")]
    assert found["dead_inputs"] == [dead_units(ours)[name].inputs for name in ("1.weight", "3.weight", "5.weight")]
    assert overlap.z > 2, "tickets of two seeds agree in more than their counts"


def test_random_masks_share_what_chance_gives(tmp_path: Path) -> None:
    z = profile(RANDOM, tmp_path)["mask_overlap_z"]
    assert isinstance(z, float) and abs(z) < 3


def test_the_other_seed_itself_has_nothing_to_share_with(tmp_path: Path) -> None:
    (other,) = PROBE.siblings(TICKET)
    assert PROBE.siblings(other) == ()
    found = profile(other, tmp_path)
    assert found["mask_excess"] is None and found["mask_overlap_z"] is None
    assert found["densities"]


def test_a_dense_run_and_looks_on_the_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSpec, match="mask = dense, but a profile is of a mask"):
        execute_and_measure(DENSE, Execution(store=tmp_path), frozenset(), [PROBE], lambda: False)
    with pytest.raises(ValueError, match="MaskProfile is of the whole run"):
        MaskProfile(at=(0.0, 1.0))

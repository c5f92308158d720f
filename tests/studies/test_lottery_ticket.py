"""The study of lottery tickets: exact counts, every control, one seed through the whole chain of runs."""

import math
from pathlib import Path
from typing import Any

import pytest

from overparam.identity import run_id
from overparam.lab.experiment import experiment, of_specs
from overparam.lab.laboratory import run
from overparam.lab.plan import plan_of
from overparam.models.masks import density
from overparam.runs.execute import train
from overparam.runs.execution import Execution
from overparam.specs import MLP, SGD, DataSpec, Magnitude, RandomMask, Rewind, RunSpec, TrainSpec
from overparam.specs.assignments import OverrideError
from overparam.specs.pruning import controls, iterative_pruning, one_shot, shares_pruned, total, weights_left
from overparam.studies.lottery_ticket import LOTTERY_TICKET
from overparam.studies.lottery_ticket.arms import CONTROLS, TICKET, by_density, sizes_of
from overparam.studies.lottery_ticket.claims import beats_every_control
from overparam.studies.lottery_ticket.designs import LENET_CONTROLLED, lenet
from overparam.studies.study import Arm, Design, Level

DENSE = RunSpec(
    data=DataSpec(name="digits", num_train=200, num_test=100),
    model=MLP(width=(24, 12)),
    train=TrainSpec(optimizer=SGD(lr=0.1), batch_size=50, epochs=2),
)
SIZES = {"1.weight": 64 * 24, "3.weight": 24 * 12, "5.weight": 120}
LADDER = by_density("toy", "Toy", DENSE, SIZES, (100, 60, 30, 10))


def test_lenet_leaves_what_the_source_says() -> None:
    """K27 of the literature: 20/20/10 % per round of 235,200 + 30,000 + 1,000 weights."""
    ladder = lenet(100)
    assert dict(ladder.sizes) == {"1.weight": 235_200, "3.weight": 30_000, "5.weight": 1000}
    assert [ladder.density(number) for number in LENET_CONTROLLED] == [51.3, 21.1, 13.5, 7.0, 3.6, 1.9, 1.2]
    assert round(100 * total(weights_left(ladder.chain[20], ladder.sizes)) / 266_200, 3) == 1.194


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all runs of this module, so that the dense network and the rounds are trained once."""
    return tmp_path_factory.mktemp("tickets")


@pytest.mark.parametrize("kind", [TICKET, *CONTROLS])
@pytest.mark.parametrize("number", [1, 3])
def test_every_control_trains_with_exactly_as_many_weights(store: Path, kind: str, number: int) -> None:
    mask = train(LADDER.control(kind, number), store=store).state("final").mask
    assert sum(int(kept.sum()) for kept in mask.values()) == weights_left(LADDER.chain[number], SIZES)


def test_controls_keep_what_they_name_and_redraw_the_rest() -> None:
    ticket = LADDER.control(TICKET, 2)
    found = controls(ticket, SIZES)
    assert found.keys() == set(CONTROLS)
    same_mask = {name for name, spec in found.items() if spec.mask == ticket.mask}
    same_start = {name for name, spec in found.items() if spec.init == ticket.init}
    assert same_mask == {"reinit", "signs"} and same_start == {"shuffled", "ratios", "random", "one_shot"}
    assert all(spec.train == ticket.train and spec.data == ticket.data for spec in found.values())
    with pytest.raises(ValueError, match="controls are of a run pruned by magnitude and rewound; got fresh"):
        controls(DENSE, SIZES)


def test_the_first_round_is_the_same_run_at_once_and_in_rounds() -> None:
    assert LADDER.control("one_shot", 1) == LADDER.control(TICKET, 1)
    assert LADDER.control("one_shot", 2).parents() == (DENSE,)
    assert len(list(LADDER.control(TICKET, 3).ancestry())) == 4


def test_pruning_by_layer_at_once_has_the_counts_of_the_rounds() -> None:
    ticket = iterative_pruning(DENSE, [{"rest": 0.2, "last": 0.1}] * 3, scope="layer", step=4)[-1]
    once = one_shot(ticket, SIZES)
    left = {"1.weight": 786, "3.weight": 147, "5.weight": 87}
    assert weights_left(once, SIZES) == weights_left(ticket, SIZES) == left
    assert once.init == ticket.init == Rewind(of=DENSE, step=4) and once.mask.of == DENSE  # type: ignore[union-attr]


@pytest.mark.parametrize("counts", [[266_200, 186_340, 133_100, 79_860, 53_240, 26_620, 13_310], [3, 2, 1, 0][:3]])
def test_shares_lead_from_count_to_count(counts: list[int]) -> None:
    left = counts[0]
    for share, after in zip(shares_pruned(counts), counts[1:], strict=True):
        left -= round(share * left)
        assert left == after


def test_a_claim_against_every_control_is_refused_without_one() -> None:
    arms = {f"toy_{kind}" for kind in CONTROLS}
    assert len(beats_every_control("toy", 10, arms, "test_accuracy", 0.01, 0.01, confirmatory=True).estimand.parts) == 6  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="needs every control; missing: signs, random"):
        beats_every_control(
            "toy", 10, arms - {"toy_random", "toy_signs"}, "test_accuracy", 0.01, 0.01, confirmatory=True
        )


SHARED = {  # arms that denote the same run somewhere
    "smoke": set(),
    "laptop": {("lenet_one_shot", "lenet_one_shot_tuned")},  # its own rate is the common one
    "overnight": {("cnn_one_shot", "cnn_ticket"), ("cnn_late_ticket", "cnn_ticket")},  # first round, dense network
    "paper": {("cnn_one_shot", "cnn_ticket")},
}


@pytest.mark.parametrize("preset", list(SHARED))
def test_presets_have_six_confirmatory_claims_and_runs_of_their_own(preset: Any) -> None:
    design = LOTTERY_TICKET.designs[preset]
    assert sum(claim.confirmatory for claim in design.claims) == 6
    cells = list(design.cells())
    by_id: dict[str, set[str]] = {}
    for cell in cells:
        by_id.setdefault(run_id(cell.spec), set()).add(cell.arm)
    assert {tuple(sorted(arms)) for arms in by_id.values() if len(arms) > 1} == SHARED[preset]
    assert len(cells) == sum(len(arms) for arms in by_id.values()), "no arm has a run twice"
    for cell in cells:
        assert {each.seed for each in cell.spec.ancestry()} == {cell.seed}


def test_a_seed_reaches_every_run_behind_and_data_seeds_keep_their_distance() -> None:
    moved = LADDER.control(TICKET, 2)
    fresh = moved.model_copy(update={"data": moved.data.model_copy(update={"data_seed": 100})})
    arm = Arm(name="a", title="A", note="", levels=(Level(value=1, spec=fresh),), num_seeds=2)
    design = Design(seeds=(3, 5, 8), arms=(arm,), claims=(), caption="", data_varies=True)
    cells = list(design.cells())
    assert [cell.seed for cell in cells] == [3, 5]
    for cell in cells:
        assert cell.spec.data.data_seed == 100 + cell.seed
        assert {each.data.data_seed for parent in cell.spec.parents() for each in parent.ancestry()} == {cell.seed}


def test_overrides_reach_the_runs_behind() -> None:
    item = experiment("lottery_ticket", "smoke", num_seeds=1, overrides=["train.steps=60"])
    assert {each.train.steps for spec in item.specs for each in spec.ancestry()} == {60}
    with pytest.raises(OverrideError, match="what the study compares"):
        experiment("lottery_ticket", "smoke", overrides=["mask.fraction=0.3"])
    with pytest.raises(OverrideError, match="keep exact counts of its own networks"):
        experiment("lottery_ticket", "smoke", overrides=["model.width=[20,10]"])


def test_runs_that_are_given_are_run_as_they_are(tmp_path: Path) -> None:
    """A ticket whose mask comes from another seed keeps it; tickets of two seeds are replicates of one level."""
    other = DENSE.model_copy(update={"seed": 1})
    strange = other.model_copy(update={"mask": Magnitude(of=DENSE, fraction=0.5)})
    specs = [*iterative_pruning(DENSE, [0.2]), *iterative_pruning(other, [0.2]), strange]
    item = of_specs(specs)
    assert set(item.specs) == set(specs)
    assert [(cell.level, cell.seed) for cell in item.cells] == [
        ("run 0", 0),
        ("run 0", 1),
        ("run 1", 0),
        ("run 1", 1),
        ("run 2", 1),
    ]
    shorter = of_specs(specs, ["train.epochs=1"])
    assert {each.train.epochs for spec in shorter.specs for each in spec.ancestry()} == {1}


def test_a_hundred_rounds_are_named_without_recursion() -> None:
    assert len(list(iterative_pruning(DENSE, [0.02] * 150)[-1].ancestry())) == 151


def test_plans_train_parents_once_and_before_their_children(tmp_path: Path) -> None:
    item = experiment("lottery_ticket", "smoke", num_seeds=1)
    plan = plan_of([item], Execution(store=tmp_path))
    seen: set[str] = set()
    for planned in plan.runs:
        assert planned.needs <= seen
        assert planned.job.run_id not in seen
        assert planned.job.evaluations == 1 or planned.job.run_id not in {run_id(s) for s in item.specs}
        seen.add(planned.job.run_id)


def test_random_masks_of_one_seed_are_nested(store: Path) -> None:
    """One stream, one draw: what differs from density to density is only how much of it is taken."""
    specs = [
        DENSE.model_copy(update={"mask": RandomMask(fraction=fraction, scope="global")}) for fraction in (0.5, 0.8)
    ]
    wide, narrow = (train(spec, store=store).state("init").mask for spec in specs)
    assert density(narrow) == pytest.approx(0.2, abs=1e-3)
    assert not any((narrow[name] & ~wide[name]).any() for name in wide)


@pytest.mark.usefixtures("in_process")
def test_a_second_run_of_the_study_trains_nothing(store: Path) -> None:
    chain = iterative_pruning(DENSE, [0.5, 0.5])
    assert all(isinstance(each.init, Rewind) and each.init.of == DENSE for each in chain[1:])
    trained = run(chain, store=store, workers=1).frame()
    assert len(trained) == 3 and all(math.isfinite(value) for value in trained["test_accuracy"])
    before = changes(store)
    assert plan_of([of_specs(chain)], Execution(store=store)).missing == ()
    assert run(chain, store=store, workers=1).frame().equals(trained)
    assert changes(store) == before


def changes(store: Path) -> dict[Path, int]:
    """When each file of a store, and each of its folders, was last changed."""
    return {path: path.stat().st_mtime_ns for path in store.rglob("*")}


def test_sizes_are_those_of_the_layers() -> None:
    assert sizes_of(DENSE, (1, 8, 8)) == SIZES

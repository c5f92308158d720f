"""Arms at learning rates of their own: what changes is the rate of the run itself, never the run its mask is of."""

from overparam.identity import run_id
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.studies.lottery_ticket import LOTTERY_TICKET
from overparam.studies.lottery_ticket.arms import CONTROLS, DENSE, TICKET, by_density
from overparam.studies.lottery_ticket.rates import GRID, RATES, at_rate, grid, kinds, tuned

WHOLE = RunSpec(
    data=DataSpec(name="digits", num_train=200, num_test=100),
    model=MLP(width=(24, 12)),
    train=TrainSpec(optimizer=SGD(lr=1.2e-3), batch_size=50, epochs=2),
)
SIZES = {"1.weight": 64 * 24, "3.weight": 24 * 12, "5.weight": 120}
LADDER = by_density("toy", "Toy", WHOLE, SIZES, (100, 60, 30))


def test_a_rate_reaches_the_run_and_not_those_behind_it() -> None:
    for kind, spec in kinds(LADDER, 2).items():
        moved = at_rate(spec, 0.7)
        assert moved.train.optimizer.lr == 0.7
        assert moved.parents() == spec.parents() and moved.mask == spec.mask, kind


def test_the_grid_has_every_kind_at_every_rate_and_the_common_one() -> None:
    arms = grid(LADDER, 2)
    assert [arm.title for arm in arms] == [DENSE, TICKET, *CONTROLS]
    for arm, spec in zip(arms, kinds(LADDER, 2).values(), strict=True):
        assert [level.value for level in arm.levels] == list(GRID)
        assert [run_id(level.spec) for level in arm.levels if level.value == 1.2e-3] == [run_id(spec)]


def test_tuned_arms_have_their_own_rate_and_share_the_run_where_it_is_the_common_one() -> None:
    rates = {kind: 1.2e-3 if kind == TICKET else 2.4e-3 for kind in (DENSE, TICKET, *CONTROLS)}
    ticket, *others = tuned(LADDER, 2, rates)
    found = [(level.value, level.spec.train.optimizer.lr) for level in ticket.levels]
    assert found == [(100.0, 2.4e-3), (30.0, 1.2e-3)]
    assert ticket.levels[1].spec == LADDER.chain[2]
    assert ticket.note.startswith("Learning rate 0.0012, of the dense network 0.0024;")
    assert {arm.note.split(";")[0] for arm in others} == {"Learning rate 0.0024"}
    assert [arm.levels[0].spec.train.optimizer.lr for arm in others] == [2.4e-3] * len(CONTROLS)


def test_the_laptop_preset_shows_fixed_and_tuned_rates_of_every_kind() -> None:
    design = LOTTERY_TICKET.designs["laptop"]
    assert RATES.keys() == {DENSE, TICKET, *CONTROLS} and set(RATES.values()) <= set(GRID)
    arms = {arm.name: arm for arm in design.arms}
    dense, ticket = arms["lenet_ticket_tuned"].levels
    assert (dense.value, ticket.value) == (100, 13.5)
    own = {DENSE: dense, TICKET: ticket, **{kind: arms[f"lenet_{kind}_tuned"].levels[0] for kind in CONTROLS}}
    assert {kind: level.spec.train.optimizer.lr for kind, level in own.items()} == RATES
    assert {run_id(each) for each in own["shuffled"].spec.parents()} <= {
        run_id(level.spec) for level in arms["lenet_ticket"].levels
    }
    names = {claim.name for claim in design.claims}
    for kind in (DENSE, *CONTROLS):
        fixed = f"lenet: ticket against {kind} at 13.5 %"
        assert {fixed, f"{fixed}, each at its own learning rate"} <= names

"""Studies: claims point at cells that exist, and cells are the product of arms, levels and seeds."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from overparam.claims.claim import Claim
from overparam.claims.estimand import Concordance, Difference, Every, Mean, Peak, PeakPlace, Point, Slope, level_text
from overparam.identity import run_id
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.studies.catalogue import STUDIES
from overparam.studies.study import Arm, Design, Designs, Level, Panel, Study


def spec(batch_size: int) -> RunSpec:
    train = TrainSpec(optimizer=SGD(lr=0.1), batch_size=batch_size, epochs=2)
    return RunSpec(data=DataSpec(name="digits"), model=MLP(width=8), train=train)


ARM = Arm(name="sgd", title="SGD", note="", levels=tuple(Level(value=b, spec=spec(b)) for b in (8, 32)))


def claim(name: str = "c", estimand: Any = None, **fields: Any) -> Claim:
    given = estimand or Slope(metric="gap", arm="sgd")
    return Claim(name=name, sentence="s", estimand=given, test="superiority", margin=0.01, pilot_sd=0.01, **fields)


def design(*claims: Claim) -> Design:
    return Design(seeds=(0, 1, 2), arms=(ARM,), claims=claims, caption="")


def test_cells_are_every_arm_level_and_seed() -> None:
    cells = list(design().cells())
    assert [(cell.arm, cell.level, cell.seed) for cell in cells] == [("sgd", b, s) for b in (8, 32) for s in range(3)]
    assert all(cell.spec.seed == cell.seed for cell in cells)
    assert len({run_id(cell.spec) for cell in cells}) == 6


@pytest.mark.parametrize("seeds", [(), (0, 0, 1)])
def test_a_seed_counts_once_and_one_is_needed(seeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"allowed: at least one seed, and each once"):
        Design(seeds=seeds, arms=(ARM,), claims=(), caption="")


def arm_of(*levels: float | str, name: str = "noise") -> Arm:
    return Arm(name=name, title="Noise", note="", levels=tuple(Level(value=x, spec=spec(8)) for x in levels))


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ((ARM, ARM), 'two arms are named "sgd"'),
        ((arm_of(8, 32, 8),), 'two levels of arm noise are "8"'),
        ((arm_of(8, "8"),), 'two levels of arm noise are "8"'),
    ],
)
def test_cells_have_names_of_their_own(arms: tuple[Arm, ...], message: str) -> None:
    """Two cells of one name would be taken for each other in every table."""
    with pytest.raises(ValidationError, match=message):
        Design(seeds=(0,), arms=arms, claims=(), caption="")
    assert Design(seeds=(0,), arms=(ARM, arm_of(1234561, 1234562)), claims=(), caption="")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_level_is_its_text(level: float) -> None:
    assert float(level_text(level)) == level


def test_levels_of_the_studies_are_written_with_few_digits() -> None:
    designs = [design for study in STUDIES.values() for design in study.designs.values()]
    levels = {x.value for each in designs for arm in each.arms for x in arm.levels if not isinstance(x.value, str)}
    assert len(levels) > 20 and all(level_text(level) == format(level, "g") for level in levels)


@pytest.mark.parametrize("level", [0.0, -1.0])
@pytest.mark.parametrize(
    ("estimand", "advice"),
    [
        (Slope(metric="gap", arm="noise"), "name positive levels in its slope"),
        (Slope(metric="gap", arm="noise", scale="log"), "name positive levels in its slope"),
        (PeakPlace(metric="gap", arm="noise", reaches=0.1), "leave that level out"),
    ],
)
def test_a_level_without_a_logarithm_has_no_doublings(level: float, estimand: Any, advice: str) -> None:
    """Such a claim would be NaN, and be found out only after everything is trained."""
    arms, doubled = (arm_of(level, 0.1, 0.2, "all"),), claim(estimand=estimand)
    with pytest.raises(ValidationError, match=f"claim c takes logarithms of levels, .* {level:g}; {advice}"):
        Design(seeds=(0, 1), arms=arms, claims=(doubled,), caption="")
    inside = claim(estimand=Slope(metric="gap", arm="noise", levels=(0.1, 0.2)))
    ordered = claim(estimand=Peak(metric="gap", arm="noise"))
    assert Design(seeds=(0, 1), arms=arms, claims=(inside, ordered), caption="")


@pytest.mark.parametrize(
    ("estimand", "least"),
    [
        (Concordance(metric="gap", other="test_loss", arm="noise"), 1),
        (Slope(metric="gap", arm="noise"), 2),
        (Peak(metric="gap", arm="noise"), 3),
        (PeakPlace(metric="gap", arm="noise", reaches=0.1), 3),
    ],
)
def test_what_runs_along_levels_needs_numbers(estimand: Any, least: int) -> None:
    numbers, along = range(1, least + 1), claim(estimand=estimand)
    assert Design(seeds=(0, 1), arms=(arm_of("some", *numbers),), claims=(along,), caption="")
    short: list[list[float | str]] = [["some", "all"], ["some", "all", *numbers[1:]]]
    for levels in short:
        with pytest.raises(ValidationError, match=f"claim c needs at least {least} .* but arm noise has: some, all"):
            Design(seeds=(0, 1), arms=(arm_of(*levels),), claims=(along,), caption="")


@pytest.mark.parametrize(
    "refused", [{"test": "equivalence"}, {"test": "noninferiority"}, {"direction": "less"}, {"null": 0.1}]
)
def test_nothing_but_a_rise_and_a_fall_is_claimed_of_a_peak(refused: dict[str, Any]) -> None:
    """Its test would answer another question than the one that was asked."""
    for trough in (False, True):
        peak = claim(estimand=Peak(metric="gap", arm="sgd", trough=trough))
        with pytest.raises(ValidationError, match="claim c is about a peak, .* trough=True"):
            peak.model_copy(update=refused)
    assert claim(estimand=PeakPlace(metric="gap", arm="sgd", reaches=8.0)).model_copy(update=refused)


def test_parts_that_must_all_hold_have_one_scale() -> None:
    """A margin cannot be one of points of accuracy and one of logarithms."""
    linear = Difference(metric="gap", a=Point(arm="sgd", level=8), b=Point(arm="sgd", level=32))
    ratio = linear.model_copy(update={"metric": "test_loss", "scale": "log"})
    for parts in ((linear, ratio), (ratio, ratio, linear)):
        with pytest.raises(ValidationError, match='parts that must all hold need one scale, .* is "log"'):
            Every(parts=parts)
    assert Every(parts=(ratio, ratio)).parts == (ratio, ratio)


@pytest.mark.parametrize(
    "estimand",
    [
        Slope(metric="gap", arm="adam"),
        Difference(metric="gap", a=Point(arm="sgd", level=8), b=Point(arm="sgd", level=64)),
        Difference(metric="gap", a=Point(arm="adam", level=8), b=Point(arm="sgd", level=8)),
        Slope(metric="gap", arm="sgd", levels=(8, 64)),
        Mean(metric="gap", at=Point(arm="sgd", level=64)),
    ],
)
def test_a_claim_must_point_at_cells(estimand: Any) -> None:
    with pytest.raises(ValidationError, match="claim c points at .*, which no arm has"):
        design(claim(estimand=estimand))


@pytest.mark.parametrize(
    "estimand",
    [
        Mean(metric="kernel", at=Point(arm="sgd", level=8)),
        Difference(metric="gap", other="kernel", a=Point(arm="sgd", level=8), b=Point(arm="sgd", level=8)),
        Slope(metric="kernel", arm="sgd", scale="log", levels=(8, 32)),
    ],
)
def test_a_claim_must_have_its_metrics(estimand: Any) -> None:
    with pytest.raises(ValidationError, match='claim c needs "kernel"; there are: .*test_accuracy'):
        design(claim(estimand=estimand))


@pytest.mark.parametrize("levels", [(), (8,), (8, 8), (0, 8)])
def test_a_slope_needs_two_positive_levels(levels: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match=r"at least two, each given once|greater than 0"):
        Slope(metric="gap", arm="sgd", levels=levels)


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ((Panel(arm="adam", metric="gap", title="Gap"),), 'panel "Gap" points at arm "adam", which is not there'),
        ((Panel(arm="sgd", metric="drift", title="Drift"),), 'panel "Drift" needs "drift"; there are: '),
        ((Panel(arm="sgd", metric="gap", title="Gap"),) * 2, "two panels show gap of arm sgd"),
    ],
)
def test_panels_must_show_what_is_there(panels: tuple[Panel, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        design().model_copy(update={"panels": panels})
    assert design().panels == ()


def test_at_most_six_claims_are_confirmatory() -> None:
    six = [claim(f"c{i}") for i in range(6)]
    assert len(design(*six, claim("d", confirmatory=False)).claims) == 7
    with pytest.raises(ValidationError, match="at most six confirmatory claims"):
        design(*six, claim("d"))


@pytest.mark.parametrize("field", ["margin", "pilot_sd"])
def test_margins_and_spreads_are_positive(field: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Claim.model_validate(claim().model_dump() | {field: 0.0})


def study_of(designs: Any) -> Study:
    return Study(name="s", title="S", question="?", background="", factor="batch size", designs=designs)


def test_designs_are_made_once_and_only_when_looked_up() -> None:
    made: list[str] = []

    def maker(preset: str) -> Any:
        def make() -> Design:
            made.append(preset)
            return design()

        return make

    study = study_of(Designs({"smoke": maker("smoke"), "paper": maker("paper")}))
    assert list(study.designs) == ["smoke", "paper"] and "laptop" not in study.designs and made == []
    assert study.designs["smoke"] is study.designs["smoke"] and made == ["smoke"]
    assert study.model_copy(update={"title": "T"}).designs["smoke"] is study.designs["smoke"]
    assert [each for _, each in study.designs.items()] == [design(), design()] and made == ["smoke", "paper"]


def test_designs_made_later_are_the_same_study() -> None:
    given, later = study_of({"smoke": design()}), study_of(Designs({"smoke": design}))
    assert given == later and later == given and hash(given) == hash(later)
    assert given.model_dump() == later.model_dump() and given.model_dump_json() == later.model_dump_json()
    assert copy.deepcopy(later) == given == Study.model_validate(later.model_dump())


def test_designs_that_are_given_are_checked() -> None:
    with pytest.raises(ValidationError, match="designs.huge"):
        study_of({"huge": design()})
    with pytest.raises(ValidationError, match="designs.smoke"):
        study_of({"smoke": "nothing"})
    with pytest.raises(ValueError, match='designs: no preset "smok"; allowed: .*; nearest match: smoke'):
        Designs({"smok": design})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="it must make a Design"):
        Designs({"smoke": lambda: 3})["smoke"]  # type: ignore[dict-item, return-value]


def test_asking_for_a_preset_makes_nothing() -> None:
    made: list[str] = []

    def make() -> Design:
        made.append("smoke")
        return design()

    designs = Designs({"smoke": make})
    assert "smoke" in designs and "paper" not in designs and len(designs) == 1
    assert made == [] and designs["smoke"] is designs["smoke"] and made == ["smoke"]


def test_a_level_is_read_under_its_former_name() -> None:
    level = design().arms[0].levels[0]
    former = {"level": level.value, "spec": level.spec.model_dump(), "expected_share": 1.0}
    assert Level.model_validate(former) == level
    assert Level.model_validate_json(json.dumps(former)) == level


def test_the_catalogue_names_its_studies() -> None:
    assert [study.name for study in STUDIES.values()] == list(STUDIES)
    assert all(list(study.designs) == ["smoke", "laptop", "overnight", "paper"] for study in STUDIES.values())

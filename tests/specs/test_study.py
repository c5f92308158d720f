"""Studies: claims point at cells that exist, and cells are the product of arms, levels and seeds."""

from typing import Any

import pytest
from pydantic import ValidationError

from overparam.identity import run_id
from overparam.specs import (
    MLP,
    SGD,
    Arm,
    Claim,
    DataSpec,
    Design,
    Difference,
    Level,
    Point,
    RunSpec,
    Slope,
    TrainSpec,
)


def spec(batch_size: int) -> RunSpec:
    train = TrainSpec(optimizer=SGD(lr=0.1), batch_size=batch_size, epochs=2)
    return RunSpec(data=DataSpec(name="digits"), model=MLP(width=8), train=train)


ARM = Arm(name="sgd", title="SGD", note="", levels=tuple(Level(level=b, spec=spec(b)) for b in (8, 32)))


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


@pytest.mark.parametrize(
    "estimand",
    [
        Slope(metric="gap", arm="adam"),
        Difference(metric="gap", a=Point(arm="sgd", level=8), b=Point(arm="sgd", level=64)),
        Difference(metric="gap", a=Point(arm="adam", level=8), b=Point(arm="sgd", level=8)),
    ],
)
def test_a_claim_must_point_at_cells(estimand: Any) -> None:
    with pytest.raises(ValidationError, match="claim c points at .*, which no arm has"):
        design(claim(estimand=estimand))


def test_at_most_six_claims_are_confirmatory() -> None:
    six = [claim(f"c{i}") for i in range(6)]
    assert len(design(*six, claim("d", confirmatory=False)).claims) == 7
    with pytest.raises(ValidationError, match="at most six confirmatory claims"):
        design(*six, claim("d"))


@pytest.mark.parametrize("field", ["margin", "pilot_sd"])
def test_margins_and_spreads_are_positive(field: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Claim.model_validate(claim().model_dump() | {field: 0.0})

"""A sentence about an estimand, with all that decides about it fixed before the runs."""

from typing import Literal

from pydantic import PositiveFloat, model_validator

from overparam.claims.estimand import AnyEstimand, Peak
from overparam.identity import Spec


class Claim(Spec):
    """A sentence about an estimand, with direction, bounds and test fixed before the runs.

    Accuracies are fractions, so a margin of .01 is one percentage point. Superiority and non-inferiority look
    in `direction`; equivalence ignores it. `pilot_sd` is the seed-to-seed standard deviation of the paired
    estimate that power is planned with. `paper_value` is shown, never tested; whether it agrees is said only if the
    design is `comparable` with the paper's protocol.
    """

    name: str
    sentence: str
    estimand: AnyEstimand
    test: Literal["superiority", "equivalence", "noninferiority"]
    direction: Literal["greater", "less"] = "greater"
    null: float = 0.0
    margin: PositiveFloat
    pilot_sd: PositiveFloat
    paper_value: float | None = None
    paper_note: str = ""
    comparable: bool = False
    confirmatory: bool = True

    @model_validator(mode="after")
    def _a_peak_has_its_own_test(self) -> "Claim":
        """It is of a rise and a fall above 0, so nothing else may be asked of it."""
        asked = self.test, self.direction, self.null
        if isinstance(self.estimand, Peak) and asked != ("superiority", "greater", 0.0):
            raise ValueError(
                f"claim {self.name} is about a peak, which is tested for a rise and a fall above 0, but has test "
                f'"{self.test}", direction "{self.direction}" and null {self.null:g}; give test "superiority", '
                'direction "greater" and null 0, and for a fall and a rise a peak with trough=True'
            )
        return self

"""What all probes have: named measurements of a trained network, with their settings. Plain values, like runs.

A probe's id hashes its settings and its semantics; a measurement is kept with the run it was taken of. `metrics` are
the numbers it gives at each look, `columns` those that enter the table of runs, taken at the end of the run. `at` lists
the shares of the run's steps at which it is measured, the end last. All probes look at the first `num_examples`
training examples, the same for all runs on the same data.
"""

from typing import Annotated

from pydantic import Field, PositiveInt, field_validator, model_validator

from overparam.identity import Spec, canonical_json, digest_text
from overparam.specs.run import RunSpec

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Measured(Spec):
    """What all probes have."""

    num_examples: PositiveInt = 1000
    at: tuple[Share, ...] = (1.0,)

    @field_validator("at")
    @classmethod
    def _ends_at_the_end(cls, at: tuple[float, ...]) -> tuple[float, ...]:
        if not at or at[-1] != 1.0 or list(at) != sorted(set(at)):
            raise ValueError("at must be ascending shares of the run, the last of them 1")
        return at

    def looks(self, first: int, last: int) -> list[int]:
        """Steps of a run from `first` to `last` at which it is measured."""
        return [first + round(share * (last - first)) for share in self.at]

    @property
    def only_whole(self) -> bool:
        """Whether it is of the whole run, so that it cannot look at other steps than the last."""
        return False

    @model_validator(mode="after")
    def _looks_where_it_can(self) -> "Measured":
        if self.only_whole and self.at != (1.0,):
            raise ValueError(f"at = {list(self.at)}, but {type(self).__name__} is of the whole run; allowed: [1]")
        return self

    def siblings(self, spec: RunSpec) -> tuple[RunSpec, ...]:
        """Other runs that it compares a run with, to be finished first."""
        return ()

    @property
    def metrics(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """None for a probe that follows a run: the table has what a probe of the trained network found."""
        return self.metrics if len(self.at) == 1 else ()

    @property
    def ranked(self) -> tuple[str, ...]:
        """Columns that are measures of sharpness, to be ranked against the gap."""
        return self.columns

    @property
    def forward_passes(self) -> float:
        """Cost in forward passes over the examples, for plans."""
        raise NotImplementedError

    def solve_seconds(self, num_examples: int) -> float:
        """What dense algebra on these examples costs besides, whatever the network."""
        return 0.0


def probe_id(probe: Measured) -> str:
    """32 hexadecimal digits that name a probe with its settings and semantics."""
    return digest_text(canonical_json(probe))

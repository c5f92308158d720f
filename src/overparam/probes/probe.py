"""What a probe is: a named measurement of a trained network, with its settings. A plain value, like a run.

A probe is one file: its settings, what it costs, and how it is taken. Its id hashes settings and semantics; a
measurement is kept with the run it was taken of. Nothing here loads torch; what takes a probe imports it when called.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt, field_validator, model_validator

from overparam.identity import Spec, canonical_json, digest_text
from overparam.specs.fields import Fraction
from overparam.specs.run import RunSpec

if TYPE_CHECKING:
    from torch import Generator

    from overparam.probes.subject import Subject
    from overparam.runs.setting import Setting
    from overparam.runs.training.observer import Observer

Values = Mapping[str, Any]  # of one look: the probe's metrics as numbers, NaN where there is none, and what is drawn

# Costs in forward passes: seconds of the laptop presets' probes, by kind.
BUILD, PRODUCT, GRADIENT = 5.4, 4.4, 3.2


class Probe(Spec):
    """What all probes have.

    `metrics` are the numbers it gives at each look, `columns` those that enter the table of runs, taken at the end of
    the run. `at` lists the shares of the run's steps at which it looks, the end last. All probes look at the first
    `num_examples` training examples, the same for all runs on the same data.
    """

    num_examples: PositiveInt = 1000
    at: tuple[Fraction, ...] = (1.0,)
    kind: str

    @field_validator("at")
    @classmethod
    def _ends_at_the_end(cls, at: tuple[float, ...]) -> tuple[float, ...]:
        if not at or at[-1] != 1.0 or list(at) != sorted(set(at)):
            raise ValueError("at must be ascending shares of the run, the last of them 1")
        return at

    @model_validator(mode="after")
    def _looks_where_it_can(self) -> "Probe":
        if self.only_whole and self.at != (1.0,):
            raise ValueError(f"at = {list(self.at)}, but {type(self).__name__} is of the whole run; allowed: [1]")
        return self

    def take(self, subject: "Subject") -> Iterator[Values]:
        """What it finds at each of `subject.steps`, in their order.

        Raises:
            UnsupportedSpec: it is not defined for such a run.
            Interrupted: the subject was asked to stop while another run was trained.
        """
        raise NotImplementedError

    def generator(self) -> "Generator":
        """The random numbers of one look: the same for every run and every step."""
        from overparam.foundations.torch_generators import torch_generator

        return torch_generator(0, "probe", probe_id(self))

    def observer(self, setting: "Setting") -> "Observer | None":
        """What must look while the run trains, so that the probe can be taken of it; most need nothing."""
        return None

    def looks(self, first: int, last: int) -> list[int]:
        """Steps of a run from `first` to `last` at which it is measured."""
        return [first + round(share * (last - first)) for share in self.at]

    def siblings(self, spec: RunSpec) -> tuple[RunSpec, ...]:
        """Other runs that it compares a run with, to be finished first."""
        return ()

    @property
    def only_whole(self) -> bool:
        """Whether it is of the whole run, so that it cannot look at other steps than the last."""
        return False

    @property
    def metrics(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """None for a probe that follows a run: the table has what a probe of the trained network found."""
        return self.metrics if len(self.at) == 1 else ()

    @property
    def correct(self) -> Mapping[str, str]:
        """Columns of correct test examples behind its accuracies, and the names under which a run keeps them."""
        return {}

    @property
    def ranked(self) -> tuple[str, ...]:
        """Columns that are measures of sharpness, to be ranked against the gap. Few probes have any."""
        return ()

    @property
    def forward_passes(self) -> float:
        """Cost in forward passes over the examples, for plans."""
        raise NotImplementedError

    def solve_seconds(self, num_examples: int) -> float:
        """What dense algebra on these examples costs besides, whatever the network."""
        return 0.0


def probe_id(probe: Probe) -> str:
    """32 hexadecimal digits that name a probe with its settings and semantics."""
    return digest_text(canonical_json(probe))

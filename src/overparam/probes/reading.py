"""A measurement in its place in a design."""

from dataclasses import dataclass

from overparam.probes.measurement import Look
from overparam.probes.probe import Probe
from overparam.specs.run import RunSpec


@dataclass(frozen=True)
class Reading:
    """What a probe found of the run in one cell, at each step it looked at; at least one."""

    arm: str
    level: str
    seed: int
    spec: RunSpec
    probe: Probe
    looks: tuple[Look, ...]

    @property
    def end(self) -> Look:
        """The look at the end of the run."""
        return self.looks[-1]

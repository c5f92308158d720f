"""A measurement in its place in a design."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from overparam.probes.probe import Probe
from overparam.specs.run import RunSpec


@dataclass(frozen=True)
class Reading:
    """What a probe found of the run in one cell, a row for each step it looked at."""

    arm: str
    level: str
    seed: int
    spec: RunSpec
    probe: Probe
    rows: tuple[Mapping[str, Any], ...]

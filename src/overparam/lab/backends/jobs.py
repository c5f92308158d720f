"""What travels between the scheduler and a backend: small JSON records, never tensors."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import TypeAdapter

from overparam.identity import RunId
from overparam.probes import AnyProbe
from overparam.probes.probe import Probe
from overparam.runs.execution import Execution
from overparam.specs.run import RunSpec

STOP = "stop"
_PROBE: TypeAdapter[Probe] = TypeAdapter(AnyProbe)


@dataclass(frozen=True)
class Job:
    """One run to compute, the states to keep of it and the probes to take of it.

    `evaluations` is how often it is evaluated on the way, `None` for the execution's own number.
    """

    run_id: RunId
    spec: RunSpec
    save_steps: frozenset[int]
    probes: tuple[Probe, ...] = ()
    evaluations: int | None = None

    def to_json(self) -> dict[str, Any]:
        spec, probes = self.spec.model_dump(mode="json"), [probe.model_dump(mode="json") for probe in self.probes]
        rest = {"save_steps": sorted(self.save_steps), "probes": probes, "evaluations": self.evaluations}
        return {"run_id": self.run_id, "spec": spec, **rest}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        spec = RunSpec.model_validate(record["spec"])
        probes = tuple(_PROBE.validate_python(probe) for probe in record["probes"])
        return cls(RunId(record["run_id"]), spec, frozenset(record["save_steps"]), probes, record["evaluations"])


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a job ended. `error` is one sentence; `lost` means the worker died under it.

    `trained` tells an error of a probe from one of the run.
    """

    run_id: RunId
    seconds: float
    error: str | None = None
    interrupted: bool = False
    lost: bool = False
    trained: bool = False


def execution_to_json(execution: Execution) -> dict[str, Any]:
    """Plain values of an `Execution`."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(execution).items()}


def execution_from_json(record: dict[str, Any]) -> Execution:
    """Inverse of `execution_to_json`."""
    return Execution(**record)


class Backend(Protocol):
    """A place that computes jobs."""

    capacity: int

    def submit(self, job: Job) -> None:
        """Take a job; at most `capacity` may be under way."""

    def next_outcome(self, timeout: float) -> Outcome | None:
        """The next finished job, or `None` after `timeout` seconds."""

    def stop(self) -> None:
        """Ask all workers to checkpoint and leave."""

    def close(self) -> None:
        """Release everything, killing what is still running."""

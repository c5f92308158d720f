"""What a probe found of a run, and with what it was computed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from overparam.identity import RunId
from overparam.probes.probe import Probe, probe_id
from overparam.runs.store import Store


@dataclass(frozen=True)
class Look:
    """What a probe found at one step of a run: its metrics, and what is drawn. Numbers that are not finite are None."""

    step: int
    epoch: float
    lr: float
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def converged(self) -> bool:
        """Whether its numbers can be used: a solve that ran out of products has none."""
        return self.values.get("status") != "max_products"

    def numbers(self, names: Iterable[str]) -> dict[str, float | None]:
        """Its metrics of those names; no numbers if it did not converge."""
        return {name: self.values[name] for name in names} if self.converged else dict.fromkeys(names)

    def to_json(self) -> dict[str, Any]:
        """One flat record."""
        place = {"step": self.step, "epoch": self.epoch, "lr": self.lr}
        return place | dict(self.values)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        values = dict(record)
        return cls(values.pop("step"), values.pop("epoch"), values.pop("lr"), values)


@dataclass(frozen=True)
class Measurement:
    """The looks of a probe at a run, the end of the run last; none if it diverged.

    `probe` has the probe's settings; `data_digest`, `environment` and `mixed` are of the computation, `seconds` its CPU
    time.
    """

    probe: Mapping[str, Any]
    looks: tuple[Look, ...]
    data_digest: str
    environment: Mapping[str, str]
    mixed: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As the store keeps it."""
        return {
            "probe": self.probe,
            "rows": [look.to_json() for look in self.looks],
            "data_digest": self.data_digest,
            "environment": self.environment,
            "mixed": list(self.mixed),
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        looks = tuple(Look.from_json(row) for row in record["rows"])
        rest = {name: record[name] for name in ("probe", "data_digest", "environment", "seconds")}
        return cls(looks=looks, mixed=tuple(record.get("mixed", ())), **rest)


def measurement_of(store: Store, run_id: RunId, probe: Probe) -> Measurement | None:
    """What the store holds of a probe on a run.

    Raises:
        StoreError: the file is damaged.
    """
    identity = probe_id(probe)
    if not store.has_measurement(run_id, identity):
        return None
    return Measurement.from_json(store.measurement(run_id, identity))

"""How runs are carried out: everything that may differ between two machines and not change a number."""

from dataclasses import dataclass
from pathlib import Path

from overparam.store.provenance import environment


@dataclass(frozen=True)
class Execution:
    """How runs are carried out. Nothing in here changes a run's numbers within one numeric environment."""

    store: Path = Path("runs")
    device: str = "cpu"
    threads: int = 1
    data_dir: Path | None = None
    evaluations: int = 6
    checkpoint_seconds: float = 60.0
    allow_mixed: bool = False

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.device, self.threads)

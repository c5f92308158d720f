"""How runs are carried out: everything that may differ between two machines and not change a number."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from overparam.store.provenance import environment


@dataclass(frozen=True)
class Execution:
    """How runs are carried out. Nothing in here changes a trained network within one numeric environment.

    `evaluations` is how often a run is looked at on the way: its curves have so many rows.
    """

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


def device_named(name: str) -> str:
    """Device that `auto`, `cpu` or `cuda` means here.

    Raises:
        ValueError: there is no such device.
    """
    if name in ("auto", "cpu") and version("torch").endswith("+cpu"):
        return "cpu"  # known without loading torch
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(f'unknown device "{name}" for --device; allowed: auto, cpu, cuda')
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda, but this torch sees no CUDA device; use --device cpu")
    return name

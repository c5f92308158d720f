"""How runs are carried out: everything that may differ between two machines and not change a number."""

import re
from dataclasses import dataclass
from pathlib import Path

from overparam.foundations.environment import environment, version


@dataclass(frozen=True)
class Execution:
    """How runs are carried out. Nothing in here changes a trained network within one numeric environment.

    `evaluations` is how often a run is looked at on the way: its curves have so many rows. `store` and `data_dir` may
    be given as text, `device` as "auto".

    Raises:
        ValueError: there is no such device, or a number is out of range.
    """

    store: Path = Path("runs")
    device: str = "cpu"
    threads: int = 1
    data_dir: Path | None = None
    evaluations: int = 6
    checkpoint_seconds: float = 60.0
    allow_mixed: bool = False

    def __post_init__(self) -> None:
        data_dir = None if self.data_dir is None else Path(self.data_dir)
        settled = {"store": Path(self.store), "data_dir": data_dir, "device": device_named(self.device)}
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        for name in ("threads", "evaluations"):
            number = getattr(self, name)
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} = {number!r}; allowed: an integer ≥ 1")
        if not self.checkpoint_seconds >= 0:  # NaN neither
            raise ValueError(f"checkpoint_seconds = {self.checkpoint_seconds!r}; allowed: a number ≥ 0")

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.device, self.threads)


def device_named(name: str) -> str:
    """Device that `auto`, `cpu`, `cuda` or, of several, `cuda:1` means here.

    >>> device_named("cpu")
    'cpu'

    Raises:
        ValueError: there is no such device.
    """
    name = str(name)
    if name == "cpu" or (name == "auto" and version("torch").endswith("+cpu")):
        return "cpu"  # known without loading torch
    if re.fullmatch(r"auto|cuda(:[0-9]+)?", name) is None:
        raise ValueError(f'unknown device "{name}" for --device (device="…"); allowed: auto, cpu, cuda')
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if found else "cpu"
    if int(name.partition(":")[2] or 0) >= found:
        devices = "no CUDA device" if found == 0 else f"only {found} CUDA device{'s' if found > 1 else ''}"
        raise ValueError(f'device "{name}", but this torch sees {devices}; use --device cpu (device="cpu")')
    return name

"""What a result was computed with. Recorded beside it, never hashed into its identity."""

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from overparam.foundations.version import __version__

version = cache(importlib.metadata.version)  # it reads files; a run and each of its probes ask
NUMERIC = ("machine", "torch", "device", "threads", "vector")  # what bits may depend on
CPUINFO = Path("/proc/cpuinfo")


def environment(device: str, threads: int) -> dict[str, str]:
    """Numeric environment and versions, as plain text; `vector` only where the system says it."""
    found = {
        "machine": platform.machine(),
        "torch": version("torch"),
        "device": device,
        "threads": str(threads),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "system": platform.system(),
        "overparam": __version__,
    }
    if (vector := vector_capability(CPUINFO)) is not None:
        found["vector"] = vector
    return found


@cache
def vector_capability(cpuinfo: Path) -> str | None:
    """The widest instructions that torch has kernels for, by the processor's flags; `None` where none are listed."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split()
    if not flags:
        return None
    return "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "default"


def numeric(environment: Mapping[str, str]) -> str:
    """The numeric environment as text.

    >>> numeric({"machine": "x86_64", "torch": "2.13.0", "device": "cpu", "threads": "1", "numpy": "2.4"})
    'machine x86_64, torch 2.13.0, device cpu, threads 1'
    """
    return ", ".join(f"{key} {environment[key]}" for key in NUMERIC if key in environment)


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Sentence part that names where two numeric environments differ; empty if they agree.

    What one of the two does not record counts as equal.
    """
    both = [key for key in NUMERIC if key in ours and key in theirs]
    return ", ".join(f"{key} {theirs[key]} → {ours[key]}" for key in both if ours[key] != theirs[key])

"""What a result was computed with. Recorded beside it, never hashed into its identity."""

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache

from overparam.version import __version__

version = cache(importlib.metadata.version)  # it reads files; a run and each of its probes ask
NUMERIC = ("machine", "torch", "device", "threads")  # what bits may depend on


def environment(device: str, threads: int) -> dict[str, str]:
    """Numeric environment and versions, as plain text."""
    return {
        "machine": platform.machine(),
        "torch": version("torch"),
        "device": device,
        "threads": str(threads),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "system": platform.system(),
        "overparam": __version__,
    }


def numeric(environment: Mapping[str, str]) -> str:
    """The numeric environment as text.

    >>> numeric({"machine": "x86_64", "torch": "2.13.0", "device": "cpu", "threads": "1", "numpy": "2.4"})
    'machine x86_64, torch 2.13.0, device cpu, threads 1'
    """
    return ", ".join(f"{key} {environment.get(key)}" for key in NUMERIC)


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Sentence part that names where two numeric environments differ; empty if they agree."""
    changed = [f"{k} {theirs.get(k)} → {ours.get(k)}" for k in NUMERIC if ours.get(k) != theirs.get(k)]
    return ", ".join(changed)

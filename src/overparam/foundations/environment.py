"""What a result was computed with. Recorded beside it, never hashed into its identity."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from overparam.foundations.processor import processor, vector_capability
from overparam.foundations.version import __version__

version = cache(importlib.metadata.version)  # it reads files; a run and each of its probes ask
NUMERIC = ("machine", "torch", "device", "threads", "vector", "cpu", "settings")  # what bits may depend on

# What a user may set to have other kernels taken. ATEN_CPU_CAPABILITY is in `vector`.
SETTINGS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_CPU_ISA_HINTS",
    "DNNL_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
)


def environment(device: str, threads: int) -> dict[str, str]:
    """Numeric environment and versions, as plain text; `vector` and `cpu` only where the system tells them."""
    found = {
        "machine": platform.machine(),
        "torch": version("torch"),
        "device": device,
        "threads": str(threads),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "system": platform.system(),
        "overparam": __version__,
        "settings": settings(os.environ),
    }
    told = {"vector": _vector(), "cpu": processor()}
    return found | {name: value for name, value in told.items() if value is not None}


def settings(variables: Mapping[str, str]) -> str:
    """What was set to have other kernels taken, also in torch where that is loaded.

    >>> settings({"MKL_CBWR": "AVX2", "HOME": "/"})
    'MKL_CBWR=AVX2'
    """
    found = [f"{name}={' '.join(variables[name].split())}" for name in SETTINGS if variables.get(name)]
    tunables = variables.get("GLIBC_TUNABLES", "").split(":")
    found += [each for each in tunables if each.startswith("glibc.cpu.hwcaps=")]
    backends = _backends()
    if backends is not None and not backends.mkldnn.enabled:
        found.append("mkldnn=off")
    return " ".join(found) or "default"


def _vector() -> str | None:
    """What torch says, where it is loaded; else what it would say."""
    backends = _backends()
    if backends is not None:
        return str(backends.cpu.get_cpu_capability()).lower()
    return vector_capability(os.environ.get("ATEN_CPU_CAPABILITY", ""))


def _backends() -> Any:
    """The switches of torch, where it is loaded: loading it takes seconds that reading results should not."""
    return getattr(sys.modules.get("torch"), "backends", None)


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

"""What both curvature benches share: medians of actions that take turns, and the machine they ran on."""

import argparse
import importlib.metadata
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = ("overparam", "torch", "numpy", "scipy", "PyHessian", "curvlinops-for-pytorch", "hessian-eigenthings")


def medians(actions: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each action; they take turns, after one turn that does not count."""
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(repeats + 1):
        for action, found in zip(actions, seconds, strict=True):
            began = time.perf_counter()
            action()
            if turn:
                found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in seconds]


def environment(options: argparse.Namespace) -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    info = Path("/proc/cpuinfo")
    line = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    cpu = line[1].strip() if line else platform.processor() or platform.machine()
    data = os.environ.get("OVERPARAM_DATA")
    command = (f"OVERPARAM_DATA={data} " if data else "") + f"python {shlex.join(sys.argv)}"
    found = {"command": command, "cpu": cpu, "cores": os.cpu_count(), "threads": options.threads, "versions": versions}
    print(f"{command}\n{cpu}, {os.cpu_count()} cores, {options.threads} threads, Python {platform.python_version()}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    return found

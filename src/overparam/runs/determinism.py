"""The settings of torch under which bits are promised, put in place for a run and taken back after it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from overparam.foundations.precision import full_precision
from overparam.foundations.usual_defaults import usual_defaults
from overparam.runs.execution import Execution


@contextmanager
def settled(execution: Execution) -> Iterator[None]:
    """The threads that the execution names, products in full precision, new tensors in float32 on the CPU; on CUDA
    deterministic algorithms.

    Where CUDA has no deterministic form of an operation, torch warns by its name and goes on.
    """
    threads = torch.get_num_threads()
    on_cuda = _deterministic_cuda() if execution.device.startswith("cuda") else nullcontext()
    torch.set_num_threads(execution.threads)
    try:
        with full_precision(), usual_defaults(), on_cuda:
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _deterministic_cuda() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with fixed workspaces
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)

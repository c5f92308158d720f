"""The same problem on some of its examples."""

from dataclasses import replace

import torch
from torch import Tensor

from overparam.measure.problem.problem import CHUNK, Batch, Problem


def restricted(problem: Problem, indices: Tensor) -> Problem:
    """The problem of the examples at `indices` (n,), n ≥ 1, in the order of the data."""
    chosen = indices.sort().values
    batches: list[Batch] = []
    begin = 0
    for x, y in problem.chunks:
        inside = chosen[(chosen >= begin) & (chosen < begin + len(y))] - begin
        begin += len(y)
        if len(inside):
            inside = inside.to(y.device)
            batches.append((x[inside], y[inside]))
    return replace(problem, chunks=tuple(_joined(problem, batches)))


def _joined(problem: Problem, batches: list[Batch]) -> list[Batch]:
    """In chunks as large as may be; inputs of several shapes stay apart."""
    xs, ys = zip(*batches, strict=True)
    if len({(x.shape[1:], y.shape[1:]) for x, y in batches}) > 1:
        return batches
    x, y = torch.cat(xs), torch.cat(ys)
    x = x.contiguous(memory_format=problem.order) if x.ndim == 4 else x
    return list(zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True))

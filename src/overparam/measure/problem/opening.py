"""From a model, a loss and data to a problem; the model is as it was when the block ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from overparam.foundations.allocator import freed_memory_kept
from overparam.foundations.precision import full_precision
from overparam.measure.problem.examples import Data as Data
from overparam.measure.problem.examples import cast, chunks_of
from overparam.measure.problem.problem import CHUNK, HALF, Loss, Problem, ordered
from overparam.measure.problem.refusals import refuse_non_finite, refuse_parameters, refuse_unmeasurable
from overparam.models.functional import Layout, chosen_parameters
from overparam.models.functional import evaluating as evaluating


@contextmanager
def opened(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    params: Sequence[str] | str | None = None,
    dtype: torch.dtype | None = None,
    chunk: int = CHUNK,
) -> Iterator[Problem]:
    """The problem of a model, with the model in eval mode meanwhile, gradients on and products in full precision.

    `dtype` computes in another precision; half precision is computed in float32 unless it is asked for.

    Raises:
        ValueError: the data is empty or can be read only once, labels do not fit, the loss is unknown or gives no
            per-example values, a weight is complex or not finite, the model is random, mixes examples or hides its
            parameters in eval mode, or `params` selects nothing.
    """
    if isinstance(loss, str) and loss not in ("cross_entropy", "mse"):
        raise ValueError(f'unknown loss "{loss}"; allowed: "cross_entropy", "mse", or a callable (outputs, targets)')
    with torch.inference_mode(False), torch.enable_grad(), full_precision(), freed_memory_kept(), evaluating(model):
        own = dict(model.named_parameters())
        names = chosen_parameters(own, params)
        refuse_parameters({name: own[name] for name in names}, dtype)
        dtype = torch.float32 if dtype is None and own[names[0]].dtype in HALF else dtype
        everything = {**own, **dict(model.named_buffers())}
        refuse_non_finite(everything)
        copies = {name: cast(value.detach(), dtype).clone() for name, value in everything.items()}
        theta = Layout.join(copies[name] for name in names)
        layout = Layout.of({name: own[name] for name in names})
        fixed = {name: value for name, value in copies.items() if name not in names}
        chunks = tuple(chunks_of(data, theta.device, dtype, chunk))
        problem = _laid_out(Problem(model, loss, chunks, layout, theta, fixed))
        refuse_unmeasurable(problem, everything=params is None)
        yield problem


@torch.no_grad()
def _laid_out(problem: Problem) -> Problem:
    """Images and convolution weights in channels-last order, which is faster, unless the model can only be run in
    the usual one: `view` is bound to it.
    """
    order = torch.channels_last
    chunks = tuple((ordered(x, order), y) for x, y in problem.chunks)
    faster = replace(problem, order=order, chunks=chunks)
    try:
        faster.outputs(faster.parts(), chunks[0][0][:2])
    except RuntimeError:
        return problem
    return faster

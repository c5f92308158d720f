"""From a model, a loss and data to a problem, through the one door that every measure passes.

What holds behind it: the caller's objects are the same objects afterwards (`borrowed`); loss and gradient come from one
function (`refuse_unmeasurable`); a gradient reaches every parameter that is measured (`used`) and is the derivative of
the outputs (`refuse_false_gradient`); a layout that is only faster gives the same outputs (`_laid_out`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from overparam.foundations.allocator import freed_memory_kept
from overparam.measure.problem.arithmetic import watched
from overparam.measure.problem.examples import Data as Data
from overparam.measure.problem.examples import cast, chunks_of, fitting
from overparam.measure.problem.gradient_check import refuse_false_gradient, refuse_false_loss
from overparam.measure.problem.problem import CHUNK, HALF, Loss, Problem, ordered
from overparam.measure.problem.refusals import (
    near,
    refuse_non_finite,
    refuse_parameters,
    refuse_unmeasurable,
)
from overparam.models.borrowed import borrowed, in_words
from overparam.models.functional import Layout, chosen_parameters
from overparam.models.reach import Unused, refuse_other_references, refuse_unknown_rule, used
from overparam.models.slots import Slots
from overparam.models.traces import attributes_of, forget


@contextmanager
def opened(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    dtype: torch.dtype | None = None,
    chunk: int = CHUNK,
    gradients: bool = True,
    elsewhere: Iterable[Tensor] = (),
    kernel: bool = False,
) -> Iterator[Problem]:
    """The problem of a model, with the model in eval mode meanwhile, gradients on and products in full precision.

    `unused` says what becomes of chosen parameters that no output depends on: they are refused, or held where they are.
    `dtype` computes in another precision; half precision is computed in float32 unless it is asked for. Inputs in a
    precision that the model has not are brought to that of its weights. `gradients` says that the measure takes them.
    Parameters that only inputs `elsewhere` use are used. A `kernel` tries its examples alone itself, and is faster
    where the system takes memory back.

    Raises:
        ValueError: the data is empty or can be read only once, labels do not fit, the loss is unknown or gives no
            per-example values, a weight is complex or not finite, the model fails on the data, is random, mixes
            examples, has a gradient that is none, or is of a kind that cannot be measured; `params` selects nothing.
    """
    if isinstance(loss, str) and loss not in ("cross_entropy", "mse"):
        raise ValueError(f'unknown loss "{loss}"; allowed: "cross_entropy", "mse", or a callable (outputs, targets)')
    refuse_unknown_rule(unused)
    with borrowed(model) as inside, nullcontext() if kernel else freed_memory_kept():
        own = dict(inside.named_parameters())
        names = chosen_parameters(own, params)
        refuse_parameters({name: own[name] for name in names}, dtype)
        refuse_non_finite(own)
        dtype = torch.float32 if dtype is None and own[names[0]].dtype in HALF else dtype
        everything = {**dict(inside.named_buffers()), **own}
        brought = {name: cast(value.detach(), dtype) for name, value in everything.items()}
        layout, theta, fixed = _split(brought, names)
        fit = partial(cast, dtype=dtype) if dtype else fitting(own.values(), theta.dtype)
        chunks = tuple(chunks_of(data, theta.device, fit, chunk, labels=isinstance(loss, str)))
        problem = Problem(inside, Slots.of(inside), loss, chunks, layout, theta, fixed)
        problem = _measurable(problem, unused, elsewhere, alone=not kernel)
        problem = problem if kernel else _laid_out(problem)
        if gradients:
            refuse_false_loss(problem)
        if gradients and problem.hides:
            refuse_false_gradient(problem)
        yield problem


def _split(tensors: dict[str, Tensor], names: Sequence[str]) -> tuple[Layout, Tensor, dict[str, Tensor]]:
    """Where the parts of θ lie, θ, and all that is fixed: copies."""
    layout = Layout.of({name: tensors[name] for name in names})
    fixed = {name: value.clone() for name, value in tensors.items() if name not in names}
    return layout, Layout.join(tensors[name] for name in names), fixed


def _measurable(problem: Problem, unused: Unused, elsewhere: Iterable[Tensor], alone: bool) -> Problem:
    """What is to be known of the model: what it keeps, how it rounds, which parameters act.

    Nearly always the first examples use all parameters; else the others are looked at, and those `elsewhere`.
    """
    (x, _), rest = problem.chunks[0], problem.chunks[1:]
    leaves = {name: part.detach().requires_grad_() for name, part in problem.parts().items()}
    before, sums = attributes_of(problem.model), _sums(problem)
    outputs = problem.values(x)
    _refuse_writing(sums, _sums(problem))
    problem = replace(problem, kept=before if forget(before) else ())
    with in_words(x):
        again, eps, hides = watched(problem, leaves, x)
    refuse_other_references(again, {place.name: place.tensor for place in problem.slots.places})
    problem = replace(problem, eps=eps, hides=hides)
    refuse_unmeasurable(problem, outputs, again.detach(), alone)
    more = (problem.outputs(leaves, x) for x in chain((x for x, _ in rest), elsewhere))
    names = used(chain([again], more), leaves, unused)
    if len(names) == len(leaves):
        return problem
    layout, theta, held = _split(problem.parts(), names)
    return replace(problem, layout=layout, theta=theta, fixed={**problem.fixed, **held})


def _sums(problem: Problem) -> dict[str, float]:
    """Of each part of θ: what tells whether one was written, for one reading."""
    return {name: float(part.sum()) for name, part in problem.parts().items()}


def _refuse_writing(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """A forward pass that has moved θ would be measured at another point in every pass."""
    written = [name for name, value in before.items() if value != after[name]]
    if written:
        raise ValueError(
            f"`forward` writes into {written[0]} (Embedding with max_norm, weights clipped in place): the loss is of "
            "other weights than those that the model has; compute what it needs without changing its parameters"
        )


def _laid_out(problem: Problem) -> Problem:
    """Images and convolution weights in channels-last order, which is faster, unless the model can only be run in
    the usual one: `view` is bound to it, and strides mean something else.
    """
    order, x = torch.channels_last, problem.chunks[0][0][:2]
    if x.ndim != 4 and not any(len(shape) == 4 for shape in problem.layout.shapes):
        return problem
    chunks = tuple((ordered(x, order), y) for x, y in problem.chunks)
    faster = replace(problem, order=order, chunks=chunks)
    try:
        found = faster.values(ordered(x, order))
    except (RuntimeError, ValueError):
        return problem
    return faster if near(found, problem.values(x), problem.eps) else problem

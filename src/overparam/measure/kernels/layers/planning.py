"""From a model to a network of known layers: which uses of parameters are those of layers, and where examples lie.

Policy. The model is in eval mode meanwhile; parameters and buffers are copies, in float32 if they have half precision.
A parameter is *structured* if `calls` sees every use of it and its examples lie along one axis; whether that is all of
its derivative is checked on every piece of examples, see `Network.factors`.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from overparam.measure.kernels.layers.recording import Use
from overparam.measure.kernels.layers.sensitivities import COUPLED, Network, one_by_one, sensitivities
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import CHUNK, any_loss
from overparam.measure.problem.refusals import refuse_coupled
from overparam.models.reach import Unused


@contextmanager
def differentiated(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, unused: Unused = "refuse"
) -> Iterator[Network]:
    """The network of a model, planned on two of its inputs, with the model in eval mode meanwhile.

    Raises:
        ValueError: the model cannot be measured (see `opened`), or an example's outputs change with its batch.
    """
    sample = _two_examples(x1, x2)
    data = (sample, torch.zeros(len(sample), device=sample.device))
    others = (piece for x in (x1, x2) if x is not None for piece in torch.split(x, CHUNK))
    with opened(model, any_loss, data, unused=unused, elsewhere=others, kernel=True) as problem:
        parts = {name: part.clone() for name, part in problem.parts().items()}
        yield planned(Network(problem, parts, problem.chunks[0][0]))


def _two_examples(x1: Tensor, x2: Tensor | None) -> Tensor:
    """The first, and the last that is not the same: from two alike one learns nothing of how they mix."""
    for x in (x1, x1 if x2 is None else x2):
        other = (x != x1[:1]).reshape(len(x), -1).any(1).nonzero()
        if len(other):
            return torch.stack([x1[0], x[int(other[-1])]])
    return x1[[0, -1]]


def planned(network: Network) -> Network:
    """Which uses may be structured, by passes over two and three examples."""
    pair, triple = network.sample, network.sample[[0, 1, 0]]
    plain = network.outputs(pair)
    network = replace(network, num_outputs=plain.shape[1], dtype=plain.dtype)
    try:
        outputs, uses = network.recorded(pair)
        again, others = network.recorded(triple)
        names = tuple(use.names for use in uses)
        batched = _at_once(outputs, uses)
        if not batched:
            next(one_by_one(outputs, [use.tap for use in uses]))
    except (RuntimeError, ValueError):  # a model that takes gradients or transforms of its own inside
        return network.without(network.trainable)
    refuse_coupled(plain, again.detach()[:2], COUPLED, network.problem.eps)
    if names != tuple(use.names for use in others):
        return network.without(network.trainable)
    axes = tuple(_axis(*both) for both in zip(uses, others, strict=True))
    network = replace(network, uses=names, axes=axes, batched=batched)
    seen = [name for use in names for name in use]
    lost = {name for use, axis in zip(names, axes, strict=True) if axis is None for name in use}
    return network.without(lost | {name for name in network.trainable if seen.count(name) != 1})


def _axis(use: Use, other: Use) -> int | None:
    """The axis along which two and three examples differ in number, the same for input and output of the layer."""
    shapes = list(zip(use.tap.shape, other.tap.shape, strict=False))
    grown = [axis for axis, (two, three) in enumerate(shapes) if two != three]
    inside = [axis for axis, (two, three) in enumerate(zip(use.x.shape, other.x.shape, strict=False)) if two != three]
    if len(grown) != 1 or grown != inside or len(use.tap.shape) != len(other.tap.shape):
        return None
    two, three = shapes[grown[0]]
    return grown[0] if 3 * two == 2 * three else None


def _at_once(outputs: Tensor, uses: Sequence[Use]) -> bool:
    """Whether all outputs are differentiated in one pass: no operation falls back to a loop or fails.

    Nor where layers give images: convolutions are no faster together, and what they give must be laid out anew.
    """
    if any(use.tap.ndim > 3 for use in uses):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sensitivities(outputs, [use.tap for use in uses], keep=True)
    except (RuntimeError, UserWarning):
        return False
    return True

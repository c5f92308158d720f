"""The loss along the straight path between two trained networks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from overparam.measure.problem.examples import INTEGERS, fitting
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import any_loss
from overparam.measure.problem.refusals import on_a_part, refuse_non_finite
from overparam.models.borrowed import borrowed, in_words, tensor_of, unwrapped
from overparam.models.losses import LossName
from overparam.models.risk import CHUNK, risk_of
from overparam.models.slots import Slots
from overparam.models.traces import Attributes, attributes_of, forget

FIRST = 250  # examples on which it is seen whether the model is a function of each
WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")  # what compilation and data parallelism put before names
Endpoint = nn.Module | Mapping[str, Tensor]
Statistics = Literal["reestimate", "interpolate"]


@dataclass(frozen=True)
class Barrier:
    """Risks at `θ(α) = (1−α) θ_a + α θ_b`, and how far they rise above the chord between the ends.

    `alphas`, `losses` and `errors` (1 − accuracy) are float64 of shape (points,) on the CPU.
    """

    alphas: Tensor
    losses: Tensor
    errors: Tensor
    loss_barrier: float
    error_barrier: float


def loss_barrier(
    model: nn.Module,
    a: Endpoint,
    b: Endpoint,
    data: tuple[Tensor, Tensor],
    loss: LossName = "cross_entropy",
    *,
    points: int = 11,
    statistics: Statistics = "reestimate",
) -> Barrier:
    """`max_α L(α) − ((1−α) L(0) + α L(1))` on an even grid of `points` α from 0 to 1, for loss and for error.

    The chord rather than the mean of the ends, so that a path from a bad network straight down to a good one has no
    barrier. It is ≥ 0, being 0 at the ends, and on a grid a lower bound. Sources: Frankle et al. (2020) for the path,
    who subtract the mean of the ends' errors; Entezari et al. (2022) for the chord.

    a and b are models like `model`, or mappings like its `state_dict()`; the values of `model` itself do not matter.
    Nothing is written to any of the three. Counters are taken from a.

    Statistics of batch norm belong to one network, and their mean to no network in between:
    - `reestimate`: they are computed anew on `data` at every α, also at the ends, whose risks then differ from those of
      a and b but compare with the rest. One pass, batch norm alone in training mode (no dropout); mean over chunks.
    - `interpolate`: they are interpolated like weights, and the ends are a and b.
    Without batch norm both are the same. Data is (x, y) with integer labels (N,).

    Raises:
        ValueError: an argument is out of range, a or b is not of the model's names, shapes and dtypes, weights are not
            finite, or labels do not fit.

    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> a = {"0.weight": torch.ones(1, 1), "1.weight": torch.ones(1, 1)}
    >>> b = {name: -weight for name, weight in a.items()}
    >>> one = torch.ones(1, 1), torch.tensor([0])
    >>> loss_barrier(model, a, b, one, "mse").loss_barrier  # f(α) = (1 − 2α)² for target 1: ½ at α = ½
    0.5
    """
    _refuse_arguments(loss, points, statistics)
    with borrowed(model) as net:
        path = Path.of(net, a, b)
        x, y = path.fitted(*data)
        alphas = torch.linspace(0.0, 1.0, points, dtype=torch.float64, device="cpu")
        with path.at(0.0):
            _refuse_data(net, x, y, statistics)
            _refuse_no_function(net, x[:FIRST], y[:FIRST])
        risks = []
        for alpha in alphas.tolist():
            with path.at(alpha):
                if statistics == "reestimate":
                    _reestimate(net, x)
                forget(path.attributes)  # what a pass kept of another point
                risks.append(risk_of(partial(_outputs, net), x, y, loss))
    losses = torch.tensor([each.loss for each in risks], dtype=torch.float64, device="cpu")
    errors = torch.tensor([1.0 - each.accuracy for each in risks], dtype=torch.float64, device="cpu")
    return Barrier(alphas, losses, errors, _above_chord(losses, alphas), _above_chord(errors, alphas))


@dataclass(frozen=True)
class Path:
    """The tensors of both ends by their names in the model, and those that no state holds."""

    slots: Slots
    start: dict[str, Tensor]
    end: dict[str, Tensor]
    own: dict[str, Tensor]
    attributes: tuple[Attributes, ...]

    @classmethod
    def of(cls, net: nn.Module, a: Endpoint, b: Endpoint) -> "Path":
        slots = Slots.of(net)
        names = {id(place.tensor): place.name for place in slots.places}
        like = {name: value for name, value in net.state_dict(keep_vars=True).items() if id(value) in names}
        start, end = _state(like, a, "a"), _state(like, b, "b")
        _refuse_infinite_ends(net, start, end)
        # Of two names of one tensor the last counts, as when a state is loaded.
        start, end = ({names[id(like[key])]: value for key, value in each.items()} for each in (start, end))
        own = {place.name: place.tensor.detach() for place in slots.places if place.name not in start}
        return cls(slots, start, end, own, attributes_of(net))

    def fitted(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs in a precision that the model has, labels as int64."""
        tensors = (*self.start.values(), *self.own.values())
        like = next((value for value in tensors if value.is_floating_point()), x)
        y = y.long() if y.dtype in (*INTEGERS, torch.bool) else y
        return fitting(tensors, like.dtype)(x.detach()).to(like.device), y.to(like.device)

    @contextmanager
    def at(self, alpha: float) -> Iterator[None]:
        """The model with copies of the tensors at a point of the path."""
        tensors = {**self.own, **_between(self.start, self.end, alpha)}
        with self.slots.filled({name: value.clone() for name, value in tensors.items()}):
            yield


def _refuse_no_function(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """What the path is of must be a function of each example, as for every measure."""
    named = dict(net.named_parameters())
    if len({value.dtype for value in named.values()}) == 1:  # of several precisions risks are taken all the same
        with opened(net, any_loss, (x, y), params=[*named], unused="hold", gradients=False):
            pass


def _outputs(net: nn.Module, x: Tensor) -> Tensor:
    return tensor_of(net(x.clone())).detach()  # a forward pass may write into its input


def _tensors(state: Endpoint) -> dict[str, Tensor]:
    named = unwrapped(state).state_dict() if isinstance(state, nn.Module) else state
    return {name: value.detach() for name, value in named.items() if isinstance(value, Tensor)}


def _named_like(like: Mapping[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that a wrapper gives to every name, where the model has none."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in found) and not all(name.startswith(prefix) for name in like):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _state(like: Mapping[str, Tensor], given: Endpoint, which: str) -> dict[str, Tensor]:
    """The tensors of an end, checked against those of the model and on their devices."""
    found = _named_like(like, _tensors(given))
    if only := sorted(like.keys() ^ found.keys()):
        raise ValueError(f"only one of model and {which} has {', '.join(only)}; allowed: all names of its state_dict()")
    for name, value in found.items():
        has, needs = ((tuple(each.shape), each.dtype) for each in (value, like[name]))
        if has != needs:
            raise ValueError(
                f"{name} of {which} is {has[1]} of shape {has[0]}; allowed: {needs[1]} of shape {needs[0]}"
            )
    return {name: value.to(like[name].device) for name, value in found.items()}


def _between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """`torch.lerp` gives the ends to the last digit; what is the same stays, be it infinite (masks of attention)."""
    return {
        name: torch.lerp(value, end[name], alpha)
        if value.is_floating_point() and not torch.equal(value, end[name])
        else value
        for name, value in start.items()
    }


def _norms(net: nn.Module) -> list[_BatchNorm]:
    return [each for each in net.modules() if isinstance(each, _BatchNorm) and each.running_mean is not None]


def _reestimate(net: nn.Module, x: Tensor) -> None:
    """Statistics of batch norm on x. Chunks are strided: nearly equal in size, and alike where x is sorted by class."""
    if not (norms := _norms(net)):
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # mean over all chunks, rather than one that forgets
        norm.train()
    try:
        count = -(-len(x) // CHUNK)
        for first in range(count):
            net(x[first::count].clone())
    finally:
        net.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _above_chord(values: Tensor, alphas: Tensor) -> float:
    return float((values - torch.lerp(values[:1], values[-1:], alphas)).max())


def _refuse_arguments(loss: str, points: int, statistics: str) -> None:
    for name, value, allowed in (("loss", loss, LossName), ("statistics", statistics, Statistics)):
        if value not in get_args(allowed):
            choices = ", ".join(f'"{each}"' for each in get_args(allowed))
            raise ValueError(f'{name} = "{value}"; allowed: {choices}')
    if points < 3:
        raise ValueError(f"points = {points}; allowed: an integer ≥ 3, the two ends and at least one between them")


def _refuse_infinite_ends(net: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> None:
    """Infinite buffers may stay if they are the same at both ends."""
    weights = {name for name, _ in net.named_parameters(remove_duplicate=False)}
    names = [name for name, value in start.items() if name in weights or not torch.equal(value, end[name])]
    for which, state in (("a", start), ("b", end)):
        refuse_non_finite({f"{name} of {which}": state[name] for name in names})


def _refuse_data(net: nn.Module, x: Tensor, y: Tensor, statistics: Statistics) -> None:
    least = 2 if statistics == "reestimate" and _norms(net) else 1
    if len(x) != len(y) or len(x) < least:
        raise ValueError(f"data has {len(x)} inputs and {len(y)} labels; allowed: equally many, at least {least}")
    if y.dtype != torch.int64 or y.ndim != 1:
        raise ValueError(f"y is {y.dtype} of shape {tuple(y.shape)}; allowed: torch.int64 labels of shape (N,)")
    with on_a_part(), in_words(x[:1]):
        outputs = _outputs(net, x[:1])
    low, high = int(y.min()), int(y.max())
    if outputs.ndim != 2 or low < 0 or high >= outputs.shape[1]:
        shape = ", ".join(["N", *map(str, outputs.shape[1:])])
        raise ValueError(
            f"labels lie in {low} … {high} for outputs of shape ({shape}); allowed: 0 … C − 1 for outputs (N, C)"
        )

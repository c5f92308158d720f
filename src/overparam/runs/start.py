"""Where a run starts: its first weights and its mask, from its own random streams and from the runs behind it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

import torch

from overparam.foundations.torch_generators import torch_generator
from overparam.identity import run_id
from overparam.models.masks import Mask, magnitude_mask, masked, random_mask, shuffled_mask
from overparam.runs.execution import Execution
from overparam.runs.run import load_state, read
from overparam.runs.setting import Setting
from overparam.runs.training.state import State, fitting
from overparam.runs.verified import refuse_mixed
from overparam.specs.models.layers import Shape
from overparam.specs.pruning_rates import unspared
from overparam.specs.run import Dense, Fresh, Magnitude, RandomMask, Rewind, RunSpec, SameSigns, ShuffledMask


def first_state(setting: Setting) -> tuple[State | None, list[str]]:
    """The state that a run starts from, `None` for a fresh dense one, and the other environments it comes from.

    With a mask the weights are `θ = mask ⊙ θ_k`, pruned ones exactly +0, and so are their slots of the optimizer.
    """
    spec, execution = setting.spec, setting.execution
    if isinstance(spec.init, Fresh) and isinstance(spec.mask, Dense):
        return None, []
    start = replace(_unpruned(setting), mask={})
    mask = mask_of(spec, setting.weight_shapes, execution)
    if mask:
        slots = {name: _thinned_slot(name, value, mask) for name, value in start.optimizer.items()}
        start = replace(start, weights=masked(start.weights, mask), optimizer=slots, mask=mask)
    return start, [text for parent in spec.parents() for text in _mixed(spec, parent, execution)]


def _mixed(spec: RunSpec, parent: RunSpec, execution: Execution) -> list[str]:
    result = read(parent, execution).result
    mixed = refuse_mixed(execution, result["environment"], f"a run that {run_id(spec)} starts from was computed")
    return [*result.get("mixed", ()), *mixed]


def _thinned_slot(name: str, value: torch.Tensor, mask: Mask) -> torch.Tensor:
    """A slot of a pruned weight would move it although its gradient is zero."""
    kept = mask.get(name.rpartition("/")[0])
    return value if kept is None or kept.shape != value.shape else value.masked_fill(~kept, 0.0)


def _unpruned(setting: Setting) -> State:
    execution = setting.execution
    match setting.spec.init:
        case Fresh():
            return _fresh(setting)
        case Rewind(of=of, step=step, weights="step"):
            return load_state(of, step, execution)
        case Rewind(of=of, step=step):
            return replace(_last(of, execution), step=step)
        case SameSigns(of=of, step=step):
            fresh, signed = _fresh(setting), load_state(of, step, execution).weights
            weights = {
                name: torch.copysign(value, fitting(name, signed[name], value)) for name, value in fresh.weights.items()
            }
            return replace(fresh, weights=weights)
        case _:
            assert_never(setting.spec.init)


def _fresh(setting: Setting) -> State:
    model = setting.model().cpu()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    return State(0, weights, dict(model.named_buffers()), {})


def _last(of: RunSpec, execution: Execution) -> State:
    return load_state(of, read(of, execution).last_step, execution)


def mask_of(spec: RunSpec, shapes: Mapping[str, Shape], execution: Execution) -> Mask:
    """The mask of a run whose parents are finished; empty if it is dense.

    `shapes` has the weights in the order of the network. A stored state has its tensors in no particular order;
    "first" and "last" need the network's.
    """
    whole = {name: torch.ones(shape, dtype=torch.bool, device="cpu") for name, shape in shapes.items()}
    match spec.mask:
        case Dense():
            return {}
        case Magnitude(of=of, fraction=fraction, scope=scope, spare=spare):
            end = _last(of, execution)
            whole = {name: end.mask.get(name, kept) for name, kept in whole.items()}
            names = unspared(list(whole), spare)
            weights, kept = ({name: part[name] for name in names} for part in (end.weights, whole))
            return whole | magnitude_mask(weights, fraction, mask=kept, scope=scope)
        case RandomMask(fraction=fraction, scope=scope, stream=stream, spare=spare):
            chosen = {name: whole[name] for name in unspared(list(whole), spare)}
            generator = torch_generator(spec.stream_seed(stream), stream)
            return whole | random_mask(chosen, fraction, scope=scope, generator=generator)
        case ShuffledMask(of=of, stream=stream):
            generator = torch_generator(spec.stream_seed(stream), stream)
            mask = _last(of, execution).mask
            return shuffled_mask({name: mask[name] for name in whole}, generator=generator)
        case _:
            assert_never(spec.mask)

"""Where a run starts: its first weights and its mask, from its own random streams and from the runs behind it."""

from dataclasses import replace
from typing import assert_never

import torch

from overparam.data.load import prepare
from overparam.runs.execution import Execution
from overparam.identity import run_id
from overparam.models.masks import Mask, magnitude_mask, masked, random_mask, shuffled_mask
from overparam.foundations.torch_generators import torch_generator
from overparam.runs.run import load_state, read
from overparam.runs.attempt import Session
from overparam.specs.models.layers import weight_shapes
from overparam.specs.pruning_rates import rates_by_name
from overparam.specs.run import Dense, Fresh, Magnitude, RandomMask, Rewind, RunSpec, SameSigns, ShuffledMask
from overparam.runs.verified import refuse_mixed
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.training.state import State, fitting


def first_state(spec: RunSpec, execution: Execution) -> tuple[State | None, list[str]]:
    """The state that a run starts from, `None` for a fresh dense one, and the other environments it comes from.

    With a mask the weights are `θ = mask ⊙ θ_k`, pruned ones exactly +0, and so are their slots of the optimizer.
    """
    if isinstance(spec.init, Fresh) and isinstance(spec.mask, Dense):
        return None, []
    start = replace(_unpruned(spec, execution), mask={})
    mask = mask_of(spec, execution)
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


def _unpruned(spec: RunSpec, execution: Execution) -> State:
    match spec.init:
        case Fresh():
            return _fresh(spec, execution)
        case Rewind(of=of, step=step, weights="step"):
            return load_state(of, step, execution)
        case Rewind(of=of, step=step):
            return replace(_last(of, execution), step=step)
        case SameSigns(of=of, step=step):
            fresh, signed = _fresh(spec, execution), load_state(of, step, execution).weights
            weights = {
                name: torch.copysign(value, fitting(name, signed[name], value)) for name, value in fresh.weights.items()
            }
            return replace(fresh, weights=weights)
        case _:
            assert_never(spec.init)


def _fresh(spec: RunSpec, execution: Execution) -> State:
    model = Session(spec, execution, frozenset()).model().cpu()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    return State(0, weights, dict(model.named_buffers()), {})


def _last(of: RunSpec, execution: Execution) -> State:
    return load_state(of, int(read(of, execution).result["steps"]), execution)


def refuse_unknown_layers(spec: RunSpec, execution: Execution) -> None:
    """Say which layer of a mask the network does not have, before anything is trained for it."""
    for each in spec.ancestry():
        if isinstance(each.mask, Magnitude | RandomMask):
            whole = _ones(each, execution)
            if not _unspared(whole, each.mask.spare):
                raise UnsupportedSpec(f"mask.spare = {list(each.mask.spare)} leaves no layer to prune")
            if isinstance(each.mask.fraction, dict):
                rates_by_name(list(whole), each.mask.fraction)


def refuse_diverged(spec: RunSpec, execution: Execution) -> None:
    """A run that diverged has no weights to start from or to prune."""
    for parent in spec.parents():
        if (run := read(parent, execution)).status == "diverged":
            raise UnsupportedSpec(
                f"run {run.run_id} diverged at step {run.result['diverged_at']}; nothing starts from it"
            )


def mask_of(spec: RunSpec, execution: Execution) -> Mask:
    """The mask of a run whose parents are finished, layers in the order of the network; empty if it is dense."""
    match spec.mask:
        case Dense():
            return {}
        case Magnitude(of=of, fraction=fraction, scope=scope, spare=spare):
            end, whole = _last(of, execution), _ones(spec, execution)
            whole = {name: end.mask.get(name, kept) for name, kept in whole.items()}
            names = _unspared(whole, spare)
            weights, kept = ({name: part[name] for name in names} for part in (end.weights, whole))
            return whole | magnitude_mask(weights, fraction, mask=kept, scope=scope)
        case RandomMask(fraction=fraction, scope=scope, stream=stream, spare=spare):
            whole = _ones(spec, execution)
            chosen = {name: whole[name] for name in _unspared(whole, spare)}
            generator = torch_generator(spec.stream_seed(stream), stream)
            return whole | random_mask(chosen, fraction, scope=scope, generator=generator)
        case ShuffledMask(of=of, stream=stream):
            generator = torch_generator(spec.stream_seed(stream), stream)
            mask = _last(of, execution).mask
            return shuffled_mask({name: mask[name] for name in _ones(spec, execution)}, generator=generator)
        case _:
            assert_never(spec.mask)


def _ones(spec: RunSpec, execution: Execution) -> Mask:
    """Nothing pruned. A stored state has its tensors in no particular order; "first" and "last" need the network's."""
    examples = prepare(spec.data, data_dir=execution.data_dir)
    shapes = weight_shapes(spec.model, examples.input_shape, examples.num_classes)
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def _unspared(whole: Mask, spare: tuple[str, ...]) -> list[str]:
    spared = rates_by_name(list(whole), dict.fromkeys(spare, 1.0))
    return [name for name, rate in spared.items() if not rate]

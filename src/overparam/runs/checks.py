"""What cannot be trained, said before anything is computed."""

from pathlib import Path

from overparam.data.load import sizes
from overparam.data.sources import is_at_hand
from overparam.data.types import Sizes
from overparam.runs.training.timetable import Timetable
from overparam.specs.models.model import weight_shapes
from overparam.specs.pruning_rates import rates_by_name, unspared
from overparam.specs.run import Dense, Magnitude, RandomMask, Rewind, RunSpec, SameSigns, ShuffledMask


class UnsupportedSpec(ValueError):
    """The spec is valid but cannot be trained."""


def refuse_unsupported(spec: RunSpec) -> None:
    """What a spec alone shows, of the run or of one behind it."""
    for each in spec.ancestry():
        _refuse_mask(each)
        for field, part in each.inherited.items():
            if part.of.model != each.model:
                raise UnsupportedSpec(
                    f"{field}.of has the model {part.of.model!r}, but this run {each.model!r}; they must be the same"
                )
        if isinstance(each.init, Rewind):
            _refuse_other_kind(each, each.init.of)


def _refuse_mask(spec: RunSpec) -> None:
    if isinstance(spec.mask, ShuffledMask):
        _refuse_to_shuffle(spec, spec.mask)
    changed = [f'mask kind "{spec.mask.kind}"'] * (not isinstance(spec.mask, Dense))
    changed += ['init kind "same_signs"'] * isinstance(spec.init, SameSigns)
    if changed and (spec.train.linearize or spec.train.lazy_scale is not None):
        # the frozen copy of the initial weights would still be that of the unchanged ones
        raise UnsupportedSpec(f"{changed[0]} with train.linearize or train.lazy_scale is not trained")


def _refuse_to_shuffle(spec: RunSpec, mask: ShuffledMask) -> None:
    """One stream draws one permutation: drawn again, it brings the positions that it pruned to the front of a layer."""
    if isinstance(mask.of.mask, Dense):
        raise UnsupportedSpec("mask.of is a dense run, which has no mask to shuffle; name a run with a mask")
    root = mask.of
    while isinstance(root.mask, Magnitude):
        root = root.mask.of
    # One draw over all layers, or one that passes the first layer over, is another one than that of the shuffle.
    drawn = root.mask
    if not isinstance(drawn, RandomMask) or drawn.scope == "global" or "first" in drawn.spare:
        return
    if drawn.stream != mask.stream:
        return
    seed = spec.stream_seed(mask.stream)
    if root.stream_seed(mask.stream) == seed:
        raise UnsupportedSpec(
            f'mask.stream = "{mask.stream}" with seed {seed} has drawn the random mask behind mask.of; drawn again, '
            "the same permutations prune whole leading rows; allowed: any other stream or seed; give ShuffledMask "
            f'another stream, such as stream="shuffle", or set streams.{mask.stream} of this run to another seed'
        )


def _refuse_other_kind(spec: RunSpec, of: RunSpec) -> None:
    ours, theirs = spec.train.optimizer.kind, of.train.optimizer.kind
    if ours != theirs:
        raise UnsupportedSpec(f'init.of was trained with "{theirs}", whose state "{ours}" cannot take over')
    for field in ("linearize", "lazy_scale"):
        now, then = getattr(spec.train, field), getattr(of.train, field)
        if now != then:  # the state of one holds no frozen initial copy, or one that means something else
            raise UnsupportedSpec(f"train.{field} is {now} here but {then} in init.of; they must be the same")


def refuse_unfit(spec: RunSpec, data: Sizes, data_dir: Path | None) -> None:
    """What shows once the data of the run is known to have those sizes."""
    _refuse_other_shapes(spec, data_dir)
    end = Timetable(spec.train, data.train).total_steps
    if spec.first_step >= end:
        raise UnsupportedSpec(f"init.step = {spec.first_step} leaves nothing to train; the run ends at step {end}")
    names = list(weight_shapes(spec.model, data.input_shape, data.num_classes))
    for each in spec.ancestry():  # all of one model, on which alone the names depend
        _refuse_unknown_layers(each, names)


def _refuse_other_shapes(spec: RunSpec, data_dir: Path | None) -> None:
    """The weights of a parent on data of another shape do not fit. Data that is not at hand cannot be compared."""
    for each in spec.ancestry():
        for field, part in each.inherited.items():
            of = part.of
            if of.data == each.data or not all(is_at_hand(data, data_dir) for data in (of.data, each.data)):
                continue
            theirs, ours = (sizes(data, data_dir=data_dir) for data in (of.data, each.data))
            if _shapes(each, theirs) != _shapes(each, ours):
                raise UnsupportedSpec(
                    f"{field}.of has the data {of.data.name} ({_described(theirs)}), but this run {each.data.name} "
                    f"({_described(ours)}), so that its network has weights of other shapes; they must be the same: "
                    f"name a run on data of the shape and classes of {each.data.name}"
                )


def _shapes(spec: RunSpec, data: Sizes) -> dict[str, tuple[int, ...]]:
    return weight_shapes(spec.model, data.input_shape, data.num_classes)


def _described(data: Sizes) -> str:
    return f"inputs of shape {data.input_shape}, {data.num_classes} classes"


def _refuse_unknown_layers(spec: RunSpec, names: list[str]) -> None:
    """Say which layer of a mask the network does not have."""
    if isinstance(spec.mask, Magnitude | RandomMask):
        if not unspared(names, spec.mask.spare):
            raise UnsupportedSpec(f"mask.spare = {list(spec.mask.spare)} leaves no layer to prune")
        if isinstance(spec.mask.fraction, dict):
            rates_by_name(names, spec.mask.fraction)

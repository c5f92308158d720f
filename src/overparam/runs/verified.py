"""What the store holds of a spec, and what may be gone on with. Torch-free, so that reading results is quick."""

from collections.abc import Mapping
from typing import Any

from overparam.data.load import content_digest, is_at_hand
from overparam.runs.execution import Execution
from overparam.identity import RunId, run_id
from overparam.specs.run import Dense, Magnitude, RandomMask, Rewind, RunSpec, SameSigns, ShuffledMask
from overparam.foundations.environment import differences
from overparam.runs.store import Store, StoreError


class UnsupportedSpec(ValueError):
    """The spec is valid but cannot be trained."""


def refuse_unsupported(spec: RunSpec) -> None:
    """Say what cannot be trained, before anything is computed."""
    for each in spec.ancestry():
        _refuse_mask(each)
        for field in ("init", "mask"):
            if (of := getattr(getattr(each, field), "of", None)) is not None and of.model != each.model:
                raise UnsupportedSpec(
                    f"{field}.of has the model {of.model!r}, but this run {each.model!r}; they must be the same"
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


def stored(spec: RunSpec, execution: Execution) -> dict[str, Any]:
    """The stored result of a run whose data is still what it was.

    A store can be read where its data is not at hand: with no data to compare with, nothing is compared.

    Raises:
        StoreError: as for `read`.
    """
    identity = run_id(spec)
    result = Store(execution.store).result(identity)
    if is_at_hand(spec.data, execution.data_dir):
        now = content_digest(spec.data, data_dir=execution.data_dir)
        refuse_other_data(spec, identity, "was trained", result["data_digest"], now)
    return result


def refuse_other_data(spec: RunSpec, identity: RunId, what: str, theirs: str, now: str) -> None:
    """An id does not cover the data's content: what was computed from other data is never gone on with."""
    if theirs != now:
        raise StoreError(
            f"run {identity} {what} on {spec.data.name} data with digest {theirs[:12]}…, but the data found now has "
            f"{now[:12]}…; point --data-dir (data_dir=…) at the old data, or use another --store (store=…)"
        )


def refuse_mixed(execution: Execution, theirs: Mapping[str, str], what: str) -> list[str]:
    """Bits are promised within one numeric environment; going on in another one must be asked for.

    The other environment, if there is leave to go on; else nothing.
    """
    change = differences(execution.environment, theirs)
    if change and not execution.allow_mixed:
        raise StoreError(
            f"{what} in another numeric environment ({change}); go on there, or pass --allow-mixed "
            "(allow_mixed=True) and lose bit-exactness"
        )
    return [change] if change else []

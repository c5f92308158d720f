"""What the store holds of a spec, and whether it may be gone on with. Torch-free, so that reading results is quick."""

from collections.abc import Mapping

from overparam.data.load import content_digest
from overparam.data.sources import is_at_hand
from overparam.foundations.environment import differences
from overparam.identity import RunId, run_id
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execution import Execution
from overparam.runs.result import Result
from overparam.runs.store import Store, StoreError
from overparam.specs.run import RunSpec


def stored(spec: RunSpec, execution: Execution) -> Result:
    """The stored result of a run whose data is still what it was.

    A store can be read where its data is not at hand: with no data to compare with, nothing is compared.

    Raises:
        StoreError: it is missing or damaged, or was trained on other data than `spec` decodes to now.
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


def refuse_other_code(identity: RunId, theirs: Mapping[str, str], now: Mapping[str, str]) -> None:
    """A name of an observer does not cover its code: what other code saw is never given out as its numbers.

    Rows that were kept without a digest of their code, as older versions did, are taken as they are.
    """
    for name, digest in now.items():
        if theirs.get(name, digest) != digest:
            raise StoreError(
                f'run {identity} holds what observer "{name}" saw by code with digest {theirs[name]}, but the measure '
                f'given now has {digest}; give the observer a new name, or pass code="{theirs[name]}" to it if both '
                "measures give the same numbers"
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


def refuse_diverged(spec: RunSpec, execution: Execution) -> None:
    """A run that diverged has no weights to start from or to prune."""
    for parent in spec.parents():
        if (result := stored(parent, execution))["status"] == "diverged":
            raise UnsupportedSpec(
                f"run {run_id(parent)} diverged at step {result['diverged_at']}; nothing starts from it"
            )

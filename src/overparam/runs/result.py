"""What is kept of a finished run besides its weights: the content of its result.json, by name."""

from typing import Literal, NotRequired, TypedDict

Status = Literal["ok", "diverged", "collapsed", "censored"]
End = Literal["length", "target", "overshot", "diverged"]
Columns = dict[str, list[float | None]]
END, EARLY_STOPPED = "end", "early_stopped"  # evaluations whose correct test examples are kept: last, lowest val_loss


class Result(TypedDict):
    """Numbers of a run. Those that are not finite are null.

    `states` has the digest of each stored state by its step, `observed` what each observer saw, by its name,
    `observed_by` the digest of its code, which older results do not have, `mixed` the other numeric environments that
    the run went on from. Runs of one `test_digest` were tested on the same examples in the same order; older results
    have none. The store adds `schema`, `states` and `test_correct`, the digests of what it keeps of test examples.
    """

    status: Status
    end: End
    steps: int
    epochs: float
    final: dict[str, float | None]
    curves: Columns
    targets_reached: list[float]
    diverged_at: int | None
    last_finite_loss: float | None
    num_train: int
    num_test: int
    data_digest: str
    test_digest: NotRequired[str]
    noise_digest: str
    environment: dict[str, str]
    mixed: NotRequired[list[str]]
    observed: NotRequired[dict[str, Columns]]
    observed_by: NotRequired[dict[str, str]]
    seconds: float
    schema: NotRequired[int]
    states: NotRequired[dict[str, str]]
    test_correct: NotRequired[dict[str, str]]

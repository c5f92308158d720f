"""What cannot be measured, said before anything is."""

from collections.abc import Mapping

import torch
from torch import Tensor

from overparam.measure.problem.problem import Problem

FEW = 4  # examples whose outputs are compared alone and among the others
ALONE = "there is no mean over examples to measure; allowed: models that treat each example on its own in eval mode"


def refuse_parameters(
    parameters: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    remedy: str = "bring them to one, as model.float() does; top_eigenvalues also takes dtype=…",
) -> None:
    """Complex parameters, and several precisions at once."""
    for name, value in parameters.items():
        if not value.is_floating_point():
            raise ValueError(
                f"{name} is {value.dtype}; measures are of real parameters: keep real and imaginary part as two"
            )
    precisions = sorted({str(value.dtype).removeprefix("torch.") for value in parameters.values()})
    if dtype is None and len(precisions) > 1:
        raise ValueError(f"the parameters are {' and '.join(precisions)}; {remedy}")


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not value.is_floating_point() or bool(value.sum().isfinite()):  # one reading, nothing written
            continue
        if not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise ValueError(f"{name} holds {count} values that are not finite; measure a model whose weights are")


def refuse_unmeasurable(problem: Problem, everything: bool) -> None:
    """Labels that do not fit, losses that are not finite, a model that is random, mixes examples or hides parameters.

    `everything` says that all trainable parameters are measured, so that the outputs must depend on them.
    """
    x, y = problem.chunks[0]
    with torch.no_grad():
        outputs, again = (problem.outputs(problem.parts(), x) for _ in range(2))
        _refuse_labels(problem, outputs)
        losses = problem.losses(outputs, y)
        if not bool(losses.isfinite().all()):
            wrong = int((~losses.isfinite()).sum())
            raise ValueError(f"the loss is not finite on {wrong} of the first {len(y)} examples")
        if not torch.equal(outputs, again):
            raise ValueError(
                "two passes over the same examples give different losses in eval mode: the model draws random numbers "
                "(dropout written without `self.training`?); curvature of a random function is not defined"
            )
        _refuse_coupled(problem, outputs)
    if everything and not problem.outputs(problem.leaves(), x[:FEW]).requires_grad:
        raise ValueError(
            "the outputs depend on no trainable parameter: does `forward` run under torch.no_grad() or detach what it "
            "returns?"
        )


def _refuse_labels(problem: Problem, outputs: Tensor) -> None:
    """For the named losses: one row of outputs per example, and labels among its columns."""
    if not isinstance(problem.loss, str):
        return
    shapes = f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(problem.chunks[0][1].shape)}"
    labels = [y for _, y in problem.chunks if not y.is_floating_point()]
    if not labels and problem.loss == "mse":
        return
    if not labels or outputs.ndim != 2 or any(y.ndim != 1 for y in labels):
        allowed = "(N, C) outputs and integer labels (N,)" + (", or float targets" if problem.loss == "mse" else "")
        raise ValueError(f'loss "{problem.loss}" on {shapes} ({problem.chunks[0][1].dtype}); allowed: {allowed}')
    low, high = min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
    if low < 0 or high >= outputs.shape[1] or outputs.shape[1] < 2:
        raise ValueError(
            f"labels lie in {low} … {high} for {outputs.shape[1]} outputs; allowed: 0 … C − 1 for C ≥ 2 outputs"
        )


def _refuse_coupled(problem: Problem, outputs: Tensor) -> None:
    """The first examples must have the outputs alone that they have among the others, but for rounding."""
    x, parts = problem.chunks[0][0], problem.parts()
    try:
        alone = torch.cat([problem.outputs(parts, x[i : i + 1]) for i in range(min(FEW, len(x)))])
    except ValueError as error:  # so PyTorch's batch norm without running statistics
        raise ValueError(f"the model cannot be run on one example ({error}): {ALONE}") from None
    except (RuntimeError, IndexError):  # a shape that only a batch has
        alone = problem.outputs(parts, x[:2])
    if alone.shape != outputs[: len(alone)].shape:
        return  # not one row per example: a loss of the caller's own makes of them what it likes
    refuse_coupled(alone, outputs[: len(alone)], ALONE)


def refuse_coupled(outputs: Tensor, again: Tensor, consequence: str) -> None:
    """The same examples must have the same outputs in two passes, whoever else is in the batch, but for rounding."""
    apart, size = (float(each.abs().max()) for each in (again - outputs, outputs))
    if apart > float(torch.finfo(outputs.dtype).eps) ** 0.5 * size:
        raise ValueError(
            f"the outputs of an example change by up to {apart:.2g} with the others in its batch, or from pass to pass "
            f"(batch norm without running statistics, dropout without `self.training`?): {consequence}"
        )

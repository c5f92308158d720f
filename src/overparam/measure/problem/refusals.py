"""What cannot be measured, said before anything is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from overparam.measure.problem.problem import Problem

FEW = 4  # examples whose outputs are compared alone and among the others
ALONE = "there is no mean over examples to measure; allowed: models that treat each example on its own in eval mode"


def refuse_parameters(parameters: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Complex parameters, and several precisions at once."""
    for name, value in parameters.items():
        if not value.is_floating_point():
            raise ValueError(
                f"{name} is {value.dtype}; measures are of real parameters: keep real and imaginary part as two"
            )
    precisions = sorted({str(value.dtype).removeprefix("torch.") for value in parameters.values()})
    if dtype is None and len(precisions) > 1:
        raise ValueError(
            f"the parameters are {' and '.join(precisions)}; bring them to one, as model.float() does; top_eigenvalues "
            "also takes dtype=…"
        )


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not value.is_floating_point() or bool(value.sum().isfinite()):  # one reading, nothing written
            continue
        if not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise ValueError(f"{name} holds {count} values that are not finite; measures need finite numbers")


def refuse_non_finite_outputs(problem: Problem, outputs: Tensor) -> None:
    """−inf is an output that is masked."""
    wrong = ~(outputs.isfinite() | outputs.isneginf()).flatten(1 if outputs.ndim > 1 else 0)
    if bool(wrong.any()):
        count = int(wrong.any(1).sum() if outputs.ndim > 1 else wrong.sum())
        nan = [name for name, value in problem.fixed.items() if value.is_floating_point() and value.isnan().any()]
        cause = f"; {nan[0]} holds NaN" if nan else ""
        raise ValueError(f"the outputs are not finite on {count} of the first {len(outputs)} examples{cause}")


def refuse_unmeasurable(problem: Problem, outputs: Tensor, again: Tensor, alone: bool) -> None:
    """Labels that do not fit, losses that are not finite, a model that is random or mixes examples.

    `outputs` are those of the first chunk without a gradient, `again` those with one. They must be of one function, as
    those of attention are not where it takes another kernel without.
    """
    x, y = problem.chunks[0]
    refuse_non_finite_outputs(problem, outputs)
    _refuse_labels(problem, outputs)
    losses = _first_losses(problem, outputs, y)
    if not bool(losses.isfinite().all()):
        wrong = int((~losses.isfinite()).sum())
        raise ValueError(f"the loss is not finite on {wrong} of the first {len(y)} examples")
    if not torch.equal(outputs, again):
        if not torch.equal(outputs, problem.values(x)):
            raise ValueError(
                "two passes over the same examples give different losses in eval mode: the model draws random numbers "
                "(dropout written without `self.training`?); curvature of a random function is not defined"
            )
        if not near(outputs, again, problem.eps):
            raise ValueError(
                "the outputs with gradients are not those without them: the model asks torch.is_grad_enabled() or "
                "requires_grad what to compute, so that its gradient is of another function than its loss"
            )
    if alone:
        _refuse_coupled(problem, outputs)


def _first_losses(problem: Problem, outputs: Tensor, y: Tensor) -> Tensor:
    try:
        losses = problem.losses(outputs, y)
        again = losses if isinstance(problem.loss, str) else problem.losses(outputs, y)
    except ValueError:
        raise
    except Exception as error:  # a loss of the caller's own
        shapes = f"outputs {outputs.dtype} of shape {tuple(outputs.shape)} and targets {y.dtype} of {tuple(y.shape)}"
        said = (str(error).splitlines() or [""])[0]
        raise ValueError(f"the loss fails on {shapes}: {type(error).__name__}: {said}") from error
    if not torch.equal(losses.nan_to_num(), again.nan_to_num()):
        raise ValueError("the loss gives other values for the same outputs and targets: it draws random numbers")
    return losses


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
    x = problem.chunks[0][0]
    try:
        alone = torch.cat([problem.values(x[i : i + 1]) for i in range(min(FEW, len(x)))])
    except ValueError as error:
        if error.__cause__ is None:  # so PyTorch's batch norm without running statistics
            raise ValueError(f"the model cannot be run on one example ({error}): {ALONE}") from None
        with on_a_part():
            alone = problem.values(x[:2])  # a shape that only a batch has
    if alone.shape != outputs[: len(alone)].shape:
        return  # not one row per example: a loss of the caller's own makes of them what it likes
    refuse_coupled(alone, outputs[: len(alone)], ALONE, problem.eps)


@contextmanager
def on_a_part() -> Iterator[None]:
    """A few of the examples: a model that takes all of them and fails there computes them together."""
    try:
        yield
    except ValueError as error:
        together = "it computes all of them together, as over the nodes of one graph"
        raise ValueError(f"the model cannot be run on one example or two: {together} ({error}): {ALONE}") from None


def refuse_coupled(outputs: Tensor, again: Tensor, consequence: str, eps: float) -> None:
    """The same examples must have the same outputs in two passes, whoever else is in the batch, but for rounding."""
    if not near(outputs, again, eps):
        apart = float((again - outputs).nan_to_num().abs().max())
        raise ValueError(
            f"the outputs of an example change by up to {apart:.2g} with the others in its batch, or from pass to pass "
            "(batch norm without running statistics, dropout without `self.training`, experts of limited capacity, "
            f"nodes of one graph?): {consequence}"
        )


def near(outputs: Tensor, again: Tensor, eps: float) -> bool:
    """Whether two passes give the same but for rounding by `eps`; what is masked by −inf is so in both."""
    finite = outputs.isfinite()
    if outputs.shape != again.shape or not torch.equal(finite, again.isfinite()):
        return False
    one, other = outputs.detach()[finite], again.detach()[finite]
    if one.numel() == 0:
        return True
    limit: float = max(eps, float(torch.finfo(one.dtype).eps)) ** 0.5
    return float((other - one).abs().max()) <= limit * float(one.abs().max())

"""Both ends of the Hessian's spectrum, beside what λmax would be proportional to."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from overparam.probes.probe import BUILD, PRODUCT, Probe, Values

if TYPE_CHECKING:
    from torch import nn

    from overparam.measure.problem.problem import Problem
    from overparam.probes.subject import Subject


class ExtremeEigenvalues(Probe):
    """Both ends of the Hessian's spectrum, with residuals and certified intervals.

    λmin is near zero in trained networks and its residual is relative to ‖H‖, so it has no rank.
    """

    semantics: ClassVar[int] = 2  # 1: a looser stop rule
    kind: Literal["eigenvalues"] = "eigenvalues"
    tol: PositiveFloat = 1e-2
    certify: PositiveFloat | None = 0.06
    max_products: PositiveInt = 100

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*self.sharpness, "lambda_max_lower", "lambda_max_upper", "lambda_min", "lambda_min_lower")

    @property
    def sharpness(self) -> tuple[str, ...]:
        return ("lambda_max", "lambda_max_per_loss", "lambda_max_per_softmax_variance")

    @property
    def ranked(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name in self.sharpness)

    @property
    def forward_passes(self) -> float:
        products = 12 if self.certify is None else 22
        return len(self.at) * (BUILD + PRODUCT * products)

    def take(self, subject: "Subject") -> Iterator[Values]:
        for step in subject.steps:
            yield self._ends(subject, subject.network(step))

    def _ends(self, subject: "Subject", model: "nn.Module") -> Values:
        from overparam.measure.problem.opening import opened
        from overparam.measure.spectrum.eigenvalues import top_eigenvalues

        data = subject.train(self.num_examples)
        found = top_eigenvalues(
            model,
            subject.loss,
            data,
            which="both",
            tol=self.tol,
            certify=self.certify,
            max_products=self.max_products,
            generator=self.generator(),
        )
        with opened(model, subject.loss, data) as problem:
            loss, _ = problem.risk()
            variance = softmax_variance(problem) if subject.loss == "cross_entropy" else math.nan
        top, bottom = (float(value) for value in found.values[:, 0])
        return {
            "lambda_max": top,
            "lambda_min": bottom,
            "lambda_max_lower": float(found.lower[0, 0]),
            "lambda_max_upper": float(found.upper[0, 0]),
            "lambda_min_lower": float(found.lower[1, 0]),
            "lambda_min_upper": float(found.upper[1, 0]),
            "residual_max": float(found.residuals[0, 0]),
            "residual_min": float(found.residuals[1, 0]),
            "loss": loss,
            "lambda_max_per_loss": top / loss if loss > 0 else math.nan,
            "softmax_variance": variance,
            "lambda_max_per_softmax_variance": top / variance if variance > 0 else math.nan,
            "status": found.status,
            "num_products": found.num_products,
        }


def softmax_variance(problem: "Problem") -> float:
    """`(1/N) Σ_i Σ_c p_ic (1 − p_ic)`: the mean trace of the Hessian of cross-entropy in the outputs.

    What λmax would be proportional to if networks differed only in how sure they are of their outputs.
    """
    import torch

    with torch.no_grad():
        chunks = [problem.outputs(problem.parts(), x).double().softmax(dim=1) for x, _ in problem.chunks]
    return sum(float((p * (1.0 - p)).sum()) for p in chunks) / problem.num_examples

"""All measures of sharpness of one network, and which of them a rescaling of its weights moves."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from overparam.foundations.json_values import finite
from overparam.foundations.torch_generators import torch_generator
from overparam.measure.estimate import Estimate
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Data, Loss, Problem
from overparam.measure.sharpness.pac_bayes import pac_bayes_sigma
from overparam.measure.sharpness.relative_flatness import relative_flatness
from overparam.measure.sharpness.rescaling import refuse_factor, rescaled
from overparam.measure.sharpness.weight_noise import Scale, perturbation_curve
from overparam.measure.sharpness.worst_case import Norm, worst_case_sharpness
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.measure.spectrum.trace import hessian_trace
from overparam.models.reach import Unused

MOVED = 0.02  # relative change above which a measure counts as moved; the solves are good to 1 %
TOLERANCE, CERTIFY = 1e-3, 0.05  # of the eigenvalue solve: residual relative to ‖H‖, interval relative to the spread
PROBES = 100  # of relative flatness, whose samples scatter widely
DROP = 0.1  # loss of accuracy that defines the PAC-Bayes σ


@dataclass(frozen=True)
class CardRow:
    """One measure: value and 95 % interval on the network, value on the rescaled copy.

    `invariant` is whether the two differ by at most 2 % of the first; `None` if there is no rescaled copy.
    """

    name: str
    value: float
    lower: float
    upper: float
    invariant: bool | None
    rescaled_value: float | None
    note: str


@dataclass(frozen=True)
class SharpnessReport:
    """Measures of one network, the `pairs` of modules that were rescaled by `factor`, and what was skipped and why."""

    rows: tuple[CardRow, ...]
    loss: float
    accuracy: float
    pairs: tuple[tuple[str, str], ...]
    factor: float
    skipped: tuple[tuple[str, str], ...]

    @property
    def moved(self) -> tuple[str, ...]:
        """Names of the measures that the rescaling moved although the function is the same."""
        return tuple(row.name for row in self.rows if row.invariant is False)

    def __getitem__(self, name: str) -> CardRow:
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise KeyError(f'no measure "{name}"; there are: {", ".join(found)}')
        return found[name]

    def to_text(self) -> str:
        """A plain table and a few lines on what the rescaling shows."""
        head = ("measure", "value", "lower", "upper", "rescaled", "note")
        table = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [_aligned(line, widths) for line in table]
        return "\n".join([*lines, "", *self._remarks()])

    def _remarks(self) -> Iterator[str]:
        accuracy = "" if math.isnan(self.accuracy) else f", accuracy {self.accuracy:.4g}"
        yield f"loss {self.loss:.4g}{accuracy}"
        if not self.pairs:
            yield "no rescaling leaves the outputs of this network as they are; invariance was not tested"
        else:
            yield f"rescaled by {self.factor:g} with the same outputs: {', '.join(f'{a}→{b}' for a, b in self.pairs)}"
            yield f"moved by more than {MOVED:.0%}: {', '.join(self.moved) or 'none'}"
        for name, reason in self.skipped:
            yield f"skipped {name}: {reason}"

    def to_json(self) -> dict[str, Any]:
        """Plain types; numbers that are not finite become `None`."""
        plain: dict[str, Any] = finite({**asdict(self), "moved": self.moved})
        return plain


def sharpness_report(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    sigmas: Sequence[float] = (0.001, 0.005, 0.01, 0.02),
    relative_sigmas: Sequence[float] = (0.05, 0.1),
    radius: float = 0.05,
    adaptive_radius: float = 0.5,
    box: float = 1e-3,
    factor: float = 4.0,
    params: Sequence[str] | str | None = None,
    unused: Unused = "refuse",
    generator: torch.Generator | None = None,
) -> SharpnessReport:
    """All measures of sharpness, and again on a copy whose weights are rescaled but whose outputs are the same.

    Both get the same random draws. Measures: λmax, λmin and trace of the Hessian; mean increase of the loss under noise
    (absolute at `sigmas`; per filter and adaptive at `relative_sigmas`); worst case in the l2 ball of `radius`, the
    l∞ and Keskar boxes of `box`, and the adaptive l2 ball of `adaptive_radius` (defaults from Foret et al. 2021, Keskar
    et al. 2017, Kwon et al. 2021); PAC-Bayes σ for accuracy −.1; relative flatness of the last weight.

    A measure has moved if it changed by more than 2 % of its value (Dinh et al. 2017). That this one rescaling does not
    move it is no proof that none does. With `factor` a power of two (see `rescaled`) measures that depend on the
    function alone come out the same to the last digits. Costs about 250 gradients, 250 Hessian products and 200 forward
    passes over the data, for each of the two networks.

    Raises:
        ValueError: an argument is out of range, or the model, loss or data cannot be measured (see `opened`).

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])  # Hessian diag(1/2, 9/2)
    >>> report = sharpness_report(model, "mse", (x, torch.zeros(2, 1)))
    >>> round(report["lambda_max"].value, 3), round(report["trace"].value, 3), report.pairs
    (4.5, 5.0, ())
    """
    seed = 0 if generator is None else int(torch.randint(2**62, (1,), generator=generator, device="cpu"))
    measures = _measures(sigmas, relative_sigmas, radius, adaptive_radius, box)
    refuse_factor(factor)
    with opened(model, loss, data, params=params, unused=unused, gradients=False) as problem:
        data = problem.chunks  # read once: a loader that augments gives other examples every time
        base_loss, accuracy = problem.risk()
        subject = Measurand(model, loss, data, problem.layout.names, last_weight(problem))
        skips = dict(_skips(problem, accuracy))
    wanted = {name: measure for name, measure in measures.items() if name not in skips}
    twin, pairs = _twin(model, data, factor, skips)
    found = list(_run(wanted, subject, seed))
    again = list(_run(wanted, replace(subject, model=twin), seed)) if pairs else [None] * len(found)
    rows = tuple(_row(one, other) for one, other in zip(found, again, strict=True))
    return SharpnessReport(rows, base_loss, accuracy, tuple(pairs), factor, tuple(skips.items()))


def _twin(
    model: nn.Module, data: Data, factor: float, skips: dict[str, str]
) -> tuple[nn.Module, list[tuple[str, str]]]:
    """The rescaled copy; a model that cannot be copied, or whose frozen part has another precision, has none."""
    try:
        return rescaled(model, data, factor=factor)
    except (ValueError, RuntimeError) as error:
        skips["rescaling"] = str(error).splitlines()[0]
        return model, []


@dataclass(frozen=True)
class Measurand:
    """What is measured; `layer` is the weight that relative flatness looks at."""

    model: nn.Module
    loss: Loss
    data: Data
    params: Sequence[str]
    layer: str | None


Finding = tuple[str, Estimate, str]  # name, estimate, note
Measure = Callable[[Measurand, torch.Generator], Iterable[Finding]]


def _measures(
    sigmas: Sequence[float], relative_sigmas: Sequence[float], radius: float, adaptive_radius: float, box: float
) -> dict[str, Measure]:
    return {
        "eigenvalues": _eigenvalues,
        "trace": _trace,
        "noise absolute": partial(_noise, scale="absolute", sigmas=sigmas),
        "noise filter": partial(_noise, scale="filter", sigmas=relative_sigmas),
        "noise adaptive": partial(_noise, scale="adaptive", sigmas=relative_sigmas),
        "worst l2": partial(_worst, name="worst l2", norm="l2", radius=radius),
        "worst linf": partial(_worst, name="worst linf", norm="linf", radius=box),
        "worst keskar": partial(_worst, name="worst keskar", norm="keskar", radius=box),
        "worst adaptive": partial(_worst, name="worst adaptive", norm="l2", radius=adaptive_radius, adaptive=True),
        "pac-bayes sigma": partial(_pac_bayes, name="pac-bayes sigma", scale="absolute"),
        "pac-bayes adaptive": partial(_pac_bayes, name="pac-bayes adaptive", scale="adaptive"),
        "relative flatness": _relative_flatness,
    }


def _run(measures: dict[str, Measure], subject: Measurand, seed: int) -> Iterator[Finding]:
    """Every measure with a stream of its own, the same for every subject."""
    for name, measure in measures.items():
        yield from measure(subject, torch_generator(seed, "card", name))


def _skips(problem: Problem, accuracy: float) -> Iterator[tuple[str, str]]:
    """Measures that this problem does not have, with the reason."""
    if not accuracy > DROP:
        reason = "targets are not classes" if math.isnan(accuracy) else f"the accuracy is at most {DROP:g}"
        yield "pac-bayes sigma", reason
        yield "pac-bayes adaptive", reason
    if last_weight(problem) is None:
        yield "noise filter", "no weight has two dimensions"
        yield "relative flatness", "no weight has two dimensions"
    if not bool(problem.theta.any()):
        yield "worst adaptive", "all weights are zero"


def last_weight(problem: Problem) -> str | None:
    """The last chosen parameter with two dimensions or more."""
    shapes = dict(zip(problem.layout.names, problem.layout.shapes, strict=True))
    return next((name for name in reversed(shapes) if len(shapes[name]) >= 2), None)


def _eigenvalues(subject: Measurand, generator: torch.Generator) -> Iterator[Finding]:
    """Both ends; a small residual says little about a λmin near 0, hence also a certified width."""
    solve = top_eigenvalues(
        subject.model,
        subject.loss,
        subject.data,
        which="both",
        tol=TOLERANCE,
        certify=CERTIFY,
        params=subject.params,
        generator=generator,
    )
    note = _joined("" if solve.status == "converged" else "not converged", _differences(solve.fallback))
    columns = (solve.values, solve.lower, solve.upper)
    ends = zip(*(column[:, 0].tolist() for column in columns), strict=True)
    for name, (value, lower, upper) in zip(("lambda_max", "lambda_min"), ends, strict=True):
        yield name, Estimate(value, math.nan, lower, upper, "ok", solve.num_products), note


def _trace(subject: Measurand, generator: torch.Generator) -> Iterator[Finding]:
    found = hessian_trace(subject.model, subject.loss, subject.data, params=subject.params, generator=generator)
    yield "trace", found, _differences(found.fallback)


def _noise(
    subject: Measurand, generator: torch.Generator, *, scale: Scale, sigmas: Sequence[float]
) -> Iterator[Finding]:
    curve = perturbation_curve(
        subject.model, subject.loss, subject.data, sigmas, scale=scale, params=subject.params, generator=generator
    )
    columns = (curve.sigma, curve.increase, curve.loss_sem, curve.increase_lower, curve.increase_upper)
    for sigma, mean, sem, lower, upper in zip(*(column.tolist() for column in columns), strict=True):
        note = f"mean of {curve.draws} draws"
        yield f"noise {scale} {sigma:g}", Estimate(mean, sem, lower, upper, "ok", 0), note


def _worst(
    subject: Measurand, generator: torch.Generator, *, name: str, norm: Norm, radius: float, adaptive: bool = False
) -> Iterator[Finding]:
    found = worst_case_sharpness(
        subject.model,
        subject.loss,
        subject.data,
        radius=radius,
        norm=norm,
        adaptive=adaptive,
        params=subject.params,
        generator=generator,
    )
    yield name, found, f"lower bound, radius {radius:g}"


def _pac_bayes(subject: Measurand, generator: torch.Generator, *, name: str, scale: Scale) -> Iterator[Finding]:
    found = pac_bayes_sigma(
        subject.model, subject.loss, subject.data, drop=DROP, scale=scale, params=subject.params, generator=generator
    )
    yield name, found, f"accuracy −{DROP:g}" + ("" if found.status == "ok" else ", not reached")


def _relative_flatness(subject: Measurand, generator: torch.Generator) -> Iterator[Finding]:
    found = relative_flatness(
        subject.model, subject.loss, subject.data, layer=subject.layer, probes=PROBES, generator=generator
    )
    yield "relative flatness", found, _joined(subject.layer or "", _differences(found.fallback))


def _differences(fallback: str | None) -> str:
    return "by finite differences" if fallback else ""


def _joined(*notes: str) -> str:
    return ", ".join(filter(None, notes))


def _row(one: Finding, other: Finding | None) -> CardRow:
    name, found, note = one
    again = None if other is None else other[1].value
    invariant = None if again is None else not _differs(found.value, again)
    return CardRow(name, found.value, found.lower, found.upper, invariant, again, note)


def _differs(value: float, again: float) -> bool:
    """By more than `MOVED` of the value; two that are not finite differ unless they are equal."""
    if not (math.isfinite(value) and math.isfinite(again)):
        return repr(value) != repr(again)
    return abs(again - value) > MOVED * abs(value)


def _cells(row: CardRow) -> tuple[str, ...]:
    verdict = {True: "same", False: "moved", None: ""}[row.invariant]
    again = "" if row.rescaled_value is None else f"{row.rescaled_value:.4g}"
    note = "; ".join(each for each in (verdict, row.note) if each)
    return row.name, f"{row.value:.4g}", f"{row.lower:.4g}", f"{row.upper:.4g}", again, note


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Name and note to the left, numbers to the right."""
    sides = ("<", ">", ">", ">", ">", "<")
    return "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(cells, sides, widths, strict=True)).rstrip()

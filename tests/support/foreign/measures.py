"""Every measure of a network: how it is called, and its values beside those of the reference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import overparam as op
from overparam.foundations.torch_generators import torch_generator
from tests.support.foreign.network import F64, Foreign, in_eval, plain_kernels, tensor_of
from tests.support.foreign.references import Reference

PROBES, STEPS, RADIUS, NOISE = 6, 6, 1e-3, 0.05
KINKED = 1e-2  # of a bound by slope and curvature, which ReLU passes where it bends
CLOSE, LOOSE = 1e-3, 2e-2  # of bounds, and of ends that another eigenvalue may hide at a residual of 1e-3


@dataclass(frozen=True)
class Given:
    """What a caller hands over."""

    network: Foreign
    model: nn.Module
    x: Tensor
    y: Tensor

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        return self.x, self.y


@dataclass(frozen=True)
class Value:
    """A number or tensor of a measure, what it must be, and the scale that their difference is relative to."""

    name: str
    found: Any
    right: Any
    scale: float
    tolerance: float = 0.0

    @property
    def error(self) -> float:
        found, right = (torch.as_tensor(each, dtype=F64).detach() for each in (self.found, self.right))
        if found.shape != right.shape:
            return torch.inf
        apart = float((found - right).abs().max())
        return apart / self.scale if apart > 0.0 else 0.0 if apart == 0.0 else torch.inf

    def __str__(self) -> str:
        found, right = (torch.as_tensor(each, dtype=F64).flatten()[:1].tolist() for each in (self.found, self.right))
        return f"{self.name} {found[0]:.7g} for {right[0]:.7g}, apart by {self.error:.1e} of its scale"


Call = Callable[[Given], Any]
Check = Callable[[Any, Reference], Iterator[Value]]


@dataclass(frozen=True)
class Measure:
    call: Call
    check: Check


def stream() -> torch.Generator:
    return torch_generator(0, "foreign", "measure")


def signs(count: int, size: int, generator: torch.Generator) -> Tensor:
    """The probes of a trace."""
    return (2 * torch.randint(0, 2, (count, size), generator=generator, dtype=torch.int8) - 1).double()


def size_of(reference: Reference) -> float:
    """‖H‖."""
    return max(map(abs, reference.ends))


# Spectra


def ends(given: Given) -> Any:
    return op.top_eigenvalues(
        given.model, "cross_entropy", given.data, which="both", tol=1e-5, max_products=2000, generator=stream()
    )


def check_ends(found: Any, reference: Reference) -> Iterator[Value]:
    for name, value, right in zip(("λmax", "λmin"), found.values[:, 0], reference.ends, strict=True):
        yield Value(name, value, right, size_of(reference))


def largest(curvature: Any) -> Call:
    return lambda given: op.top_eigenvalues(
        given.model, "cross_entropy", given.data, curvature=curvature, tol=1e-5, generator=stream()
    )


def check_ggn(found: Any, reference: Reference) -> Iterator[Value]:
    right = float(torch.linalg.matrix_norm(reference.ggn_rows, 2)) ** 2
    yield Value("λmax", found.values[0], right, right)


def check_fisher(found: Any, reference: Reference) -> Iterator[Value]:
    rows = reference.loss_gradients / len(reference.y) ** 0.5
    right = float(torch.linalg.matrix_norm(rows, 2)) ** 2
    yield Value("λmax", found.values[0], right, right)


def trace(curvature: Any = "hessian") -> Call:
    return lambda given: op.hessian_trace(
        given.model,
        "cross_entropy",
        given.data,
        curvature=curvature,
        method="hutchinson",
        max_products=PROBES,
        generator=stream(),
    )


def check_trace(found: Any, reference: Reference) -> Iterator[Value]:
    z = signs(PROBES, reference.size, stream())
    v = reference.products(z)
    forms = (z * v).sum(1)
    scale = float(torch.linalg.vector_norm(v, dim=1).mean() * reference.size**0.5)
    yield Value("trace", found.value, forms.mean(), scale)
    yield Value("standard error", found.stderr, forms.std() / PROBES**0.5, scale)


def check_ggn_trace(found: Any, reference: Reference) -> Iterator[Value]:
    forms = (reference.ggn_rows @ signs(PROBES, reference.size, stream()).T).square().sum(0)
    yield Value("trace", found.value, forms.mean(), float(forms.mean()))


def frobenius(given: Given) -> Any:
    return op.hessian_frobenius(given.model, "cross_entropy", given.data, max_products=PROBES, generator=stream())


def check_frobenius(found: Any, reference: Reference) -> Iterator[Value]:
    squares = reference.products(signs(PROBES, reference.size, stream())).square().sum(1)
    yield Value("squared norm", found.value, squares.mean(), float(squares.mean()))


def density(given: Given) -> Any:
    return op.spectral_density(given.model, "cross_entropy", given.data, steps=STEPS, probes=1, generator=stream())


def check_density(found: Any, reference: Reference) -> Iterator[Value]:
    """The quadrature has the moments of the start's own measure: `Σ w θʲ = qᵀ Hʲ q`."""
    q = torch.randn(reference.size, generator=stream(), dtype=F64)
    q = q / torch.linalg.vector_norm(q)
    once = reference.products(q.unsqueeze(0))
    twice = reference.products(once)
    rights = [1.0, once[0] @ q, once[0] @ once[0], once[0] @ twice[0], twice[0] @ twice[0]]
    nodes, weights = (torch.from_numpy(each)[0] for each in (found.nodes, found.weights))
    for j, right in enumerate(rights[: 2 * min(STEPS, reference.size)]):
        yield Value(f"moment {j}", (weights * nodes**j).sum(), right, float((weights * nodes.abs() ** j).sum()))


# Losses around the weights


def noise_curve(given: Given) -> Any:
    return op.perturbation_curve(given.model, "cross_entropy", given.data, [0.0, NOISE], draws=3, generator=stream())


def check_noise_curve(found: Any, reference: Reference) -> Iterator[Value]:
    yield from _noise(found.losses[1], found.base_loss, reference, NOISE, stream())
    yield Value("loss without noise", found.losses[0], torch.full((3,), found.base_loss, dtype=F64), found.base_loss)


def _noise(
    losses: Tensor, base: float, reference: Reference, sigma: float, generator: torch.Generator
) -> Iterator[Value]:
    right = reference.loss_at(reference.theta)
    yield Value("loss", base, right, right)
    draws = [torch.randn(reference.size, generator=generator, dtype=F64) for _ in losses]
    rights = torch.tensor([reference.loss_at(reference.theta + sigma * z) for z in draws], dtype=F64)
    yield Value("losses under noise", losses, rights, float(rights.max()))


def worst(given: Given) -> Any:
    return op.worst_case_sharpness(
        given.model, "cross_entropy", given.data, radius=RADIUS, restarts=1, steps=12, generator=stream()
    )


def check_worst(found: Any, reference: Reference) -> Iterator[Value]:
    """Between the rise along the gradient and the most that slope and curvature allow."""
    slope = float(torch.linalg.vector_norm(reference.gradient))
    along = reference.theta + RADIUS / slope * reference.gradient
    least = reference.loss_at(along) - reference.loss_at(reference.theta)
    most = RADIUS * slope + 0.5 * RADIUS**2 * max(reference.ends[0], 0.0)
    yield Value("rise along the gradient", min(found.value, least), least, least, CLOSE)
    yield Value("rise by slope and curvature", max(found.value, most), most, most, KINKED)


def surface(given: Given) -> Any:
    size = sum(p.numel() for p in given.model.parameters() if p.requires_grad)
    line = torch.randn(1, size, generator=stream(), dtype=F64)
    return op.loss_surface(
        given.model, "cross_entropy", given.data, directions=line, span=NOISE, points=3, dimensions=1
    )


def check_surface(found: Any, reference: Reference) -> Iterator[Value]:
    line = torch.randn(reference.size, generator=stream(), dtype=F64)
    rights = [reference.loss_at(reference.theta + a * line) for a in (-NOISE, 0.0, NOISE)]
    yield Value("losses", found.losses, rights, max(rights))


def last_weight(named: dict[str, nn.Parameter]) -> str:
    return [name for name, value in named.items() if value.requires_grad and value.ndim >= 2][-1]


def flatness(given: Given) -> Any:
    layer = last_weight(dict(given.model.named_parameters()))
    return op.relative_flatness(
        given.model, "cross_entropy", given.data, layer=layer, probes=PROBES, generator=stream()
    )


def check_flatness(found: Any, reference: Reference) -> Iterator[Value]:
    name = last_weight(reference.named)
    weight = reference.named[name].detach().flatten(1)
    g, z = torch.split(signs(2 * PROBES, weight.shape[1], stream()), PROBES)
    inside = torch.cat([torch.full((p.numel(),), n == name) for n, p in reference.named.items()])
    rows = torch.zeros(PROBES, reference.size, dtype=F64)
    rows[:, inside] = torch.einsum("kj,oj,ki->koi", g, weight, z).flatten(1)
    products = reference.products(rows)[:, inside]
    forms = (rows[:, inside] * products).sum(1)
    scale = torch.linalg.vector_norm(rows, dim=1) * torch.linalg.vector_norm(products, dim=1)
    yield Value("κ", found.value, forms.mean(), float(scale.mean()))


# First order


def noise_scale(given: Given) -> Any:
    return op.gradient_noise_scale(given.model, "cross_entropy", given.data, generator=stream())


def check_noise_scale(found: Any, reference: Reference) -> Iterator[Value]:
    g = reference.loss_gradients
    spread = float((g - g.mean(0)).square().sum() / (len(g) - 1))
    yield Value("trace", found.trace, spread, spread)
    right = float(g.mean(0).square().sum()) - spread / len(g)
    yield Value("squared norm", found.squared_norm, right, spread)


def kernel(given: Given) -> Any:
    return op.empirical_ntk(given.model, given.x)


def check_kernel(found: Any, reference: Reference) -> Iterator[Value]:
    yield Value("kernel", found, reference.kernel, float(reference.kernel.abs().max()))


def linear(given: Given) -> Any:
    named = {name: value.detach().clone() for name, value in given.model.named_parameters()}
    change, generator, still = {}, stream(), padding(given.model)
    for name, value in given.model.named_parameters():
        if value.requires_grad:
            change[name] = NOISE * torch.randn(value.shape, generator=generator, dtype=F64)
            if id(value) in still:
                change[name][still[id(value)]] = 0.0
            named[name] += change[name].to(value.dtype)
    return op.linearize(given.model, given.x)(named), change


def padding(model: nn.Module) -> dict[int, int]:
    """Rows of embeddings that PyTorch gives no gradient, though the outputs depend on them, by the parameter's id."""
    found = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.padding_idx is not None]
    return {id(m.weight): m.padding_idx for m in found if m.padding_idx is not None}


def check_linear(found: Any, reference: Reference) -> Iterator[Value]:
    outputs, change = found
    step = torch.cat([change[name].flatten() for name in reference.named])
    right = reference.outputs().detach() + reference.jacobian @ step
    yield Value("outputs", outputs, right, float(right.abs().max()))


def other_end(network: Foreign) -> dict[str, Tensor]:
    """Weights elsewhere, of a twin of the network."""
    twin, generator = network.born(), stream()
    with torch.no_grad():
        for value in twin.parameters():
            value.add_((0.2 * torch.randn(value.shape, generator=generator, dtype=F64)).to(value))
    return {name: value.detach().clone() for name, value in twin.state_dict().items()}


def barrier(given: Given) -> Any:
    end, start = other_end(given.network), {n: value.clone() for n, value in given.model.state_dict().items()}
    return op.loss_barrier(given.model, given.model, end, given.data, points=5, statistics="interpolate"), end, start


def check_barrier(found: Any, reference: Reference) -> Iterator[Value]:
    result, end, start = found
    twin, rights = reference.network.born(), []
    for alpha in (0.0, 0.25, 0.5, 0.75, 1.0):
        twin.load_state_dict({n: between(value, end[n], alpha) for n, value in start.items()})
        with torch.no_grad(), in_eval(twin), plain_kernels():
            outputs = tensor_of(twin(reference.network.batch()[0]))
        rights.append(float(F.cross_entropy(outputs.double(), reference.y)))
    yield Value("losses", result.losses, rights, max(rights))
    chord = [(1 - i / 4) * rights[0] + i / 4 * rights[4] for i in range(5)]
    height = max(right - level for right, level in zip(rights, chord, strict=True))
    yield Value("barrier", result.loss_barrier, height, max(rights))


def between(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    if not start.is_floating_point() or torch.equal(start, end):
        return start
    return (1 - alpha) * start + alpha * end


# All at once


def report(given: Given) -> Any:
    return op.sharpness_report(given.model, "cross_entropy", given.data)


def check_report(found: Any, reference: Reference) -> Iterator[Value]:
    for name, right in zip(("lambda_max", "lambda_min"), reference.ends, strict=True):
        row, scale = found[name], size_of(reference)
        yield Value(name, row.value, right, scale, LOOSE)
        yield Value(f"interval of {name}", min(max(right, row.lower), row.upper), right, scale)
    if reference.size <= 50 and reference.dense is not None:  # all diagonal entries are measured there
        diagonal = reference.dense.diagonal()
        yield Value("trace", found["trace"].value, diagonal.sum(), float(diagonal.abs().sum()))
    generator, base = torch_generator(0, "card", "noise absolute"), reference.loss_at(reference.theta)
    draws = [torch.randn(reference.size, generator=generator, dtype=F64) for _ in range(5)]
    losses = [reference.loss_at(reference.theta + 0.02 * z) for z in draws]
    yield Value("noise", found["noise absolute 0.02"].value, sum(losses) / 5 - base, base)
    yield Value("loss", found.loss, base, base)


MEASURES: dict[str, Measure] = {
    "eigenvalues": Measure(ends, check_ends),
    "trace": Measure(trace(), check_trace),
    "frobenius": Measure(frobenius, check_frobenius),
    "density": Measure(density, check_density),
    "ggn": Measure(largest("ggn"), check_ggn),
    "ggn trace": Measure(trace("ggn"), check_ggn_trace),
    "fisher": Measure(largest("fisher"), check_ggn),
    "empirical fisher": Measure(largest("empirical_fisher"), check_fisher),
    "ntk": Measure(kernel, check_kernel),
    "noise scale": Measure(noise_scale, check_noise_scale),
    "noise curve": Measure(noise_curve, check_noise_curve),
    "worst case": Measure(worst, check_worst),
    "surface": Measure(surface, check_surface),
    "flatness": Measure(flatness, check_flatness),
    "linearize": Measure(linear, check_linear),
    "barrier": Measure(barrier, check_barrier),
    "report": Measure(report, check_report),
}

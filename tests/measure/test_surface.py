"""Surfaces against the model itself, against moved copies of it, and against curvature."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Batch
from overparam.measure.sharpness.surface import loss_surface
from overparam.measure.spectrum.eigenvalues import top_eigenvalues


def tanh_net() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    generator = torch_generator(0, "weights")
    for parameter in model.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def labelled(count: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch_generator(0, "test")
    x = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (count,), generator=generator)


def loss_at(model: nn.Module, offset: Tensor) -> float:
    """By PyTorch's own loss of a moved copy."""
    x, y = labelled()
    twin = tanh_net()
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()) + offset, twin.parameters())
    return float(nn.functional.cross_entropy(twin(x).detach(), y))


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_centre_is_the_model(dimensions: int) -> None:
    surface = loss_surface(tanh_net(), "cross_entropy", labelled(), points=5, dimensions=dimensions)
    assert surface.losses.shape == (5,) * dimensions == surface.accuracies.shape
    assert surface.coordinates.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert float(surface.losses[(2,) * dimensions]) == surface.base_loss
    assert len(set(surface.losses.flatten().tolist())) == 5**dimensions
    assert surface.base_loss == pytest.approx(loss_at(tanh_net(), torch.zeros(57, dtype=torch.float64)), rel=1e-12)


def test_each_point_is_the_loss_of_the_moved_model() -> None:
    """The first index goes with the first direction."""
    model = tanh_net()
    surface = loss_surface(model, "cross_entropy", labelled(), points=5, span=0.6)
    for i, j in ((0, 4), (3, 1), (2, 0)):
        offset = surface.coordinates[[i, j]] @ surface.directions
        assert float(surface.losses[i, j]) == pytest.approx(loss_at(model, offset.detach()), rel=1e-12)


def test_random_directions_are_orthogonal_and_nearly_filter_normalized() -> None:
    model = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 3))
    x = torch.randn(10, 40, generator=torch_generator(0, "test"))
    data = (x, torch.zeros(10, dtype=torch.long))
    first, second = loss_surface(model, "cross_entropy", data, points=3).directions
    assert abs(float(torch.cosine_similarity(first, second, dim=0))) < 1e-6
    with opened(model, "cross_entropy", data) as problem:
        for direction, tolerance in ((first, 1e-5), (second, 0.05)):
            for name, part in problem.layout.split(direction).items():
                weight = model.get_parameter(name)
                if weight.ndim == 2:
                    assert torch.allclose(part.norm(dim=1), weight.norm(dim=1), rtol=tolerance), name
                else:
                    assert float(part.norm()) <= 1e-6, name


def test_along_eigenvectors_the_second_difference_is_the_eigenvalue() -> None:
    """Coordinate 1 is a step of ‖θ‖, so that `(L(+h) − 2L(0) + L(−h))/h² = λ‖θ‖² + O(h²)`."""
    model, data = tanh_net(), labelled()
    squared = float(nn.utils.parameters_to_vector(model.parameters()).detach().square().sum())
    surface = loss_surface(model, "cross_entropy", data, directions="eigen", span=1e-3, points=3)
    found = top_eigenvalues(model, "cross_entropy", data, k=2, tol=1e-6)
    across = (surface.losses[:, 1], surface.losses[1, :])
    for line, value in zip(across, found.values.tolist(), strict=True):
        difference = float(line[0] - 2 * line[1] + line[2]) / 1e-6
        assert difference == pytest.approx(value * squared, rel=1e-2)
    assert surface.eigenvalues is not None
    assert torch.allclose(surface.eigenvalues.values, found.values, rtol=1e-3)
    first, second = surface.directions
    assert abs(float(torch.cosine_similarity(first, second, dim=0))) < 1e-12
    assert float(first.square().sum()) == pytest.approx(squared, rel=1e-9)


def test_eigenvectors_and_surface_are_of_the_same_examples() -> None:
    """The data is read once; a second reading would give others."""

    class Augmented:
        readings = 0

        def __iter__(self) -> Iterator[Batch]:
            self.readings += 1
            x, y = labelled()
            yield x + 0.3 * torch.randn(x.shape, generator=torch_generator(self.readings, "noise"), dtype=x.dtype), y

    data, first = Augmented(), list(Augmented())
    found = loss_surface(tanh_net(), "cross_entropy", data, directions="eigen", points=3)
    assert data.readings == 1
    assert torch.equal(
        found.losses, loss_surface(tanh_net(), "cross_entropy", first, directions="eigen", points=3).losses
    )
    with pytest.raises(ValueError, match="data is a list_iterator; give .* that can be read again"):
        loss_surface(tanh_net(), "cross_entropy", iter(first), directions="eigen", points=3)


def test_given_directions_are_walked_as_they_are() -> None:
    """On `½‖w‖²` along two that are neither unit nor orthogonal."""
    model = nn.Linear(2, 1, bias=False).double()
    x = 2**0.5 * torch.eye(2, dtype=torch.float64)  # XᵀX/N = 1
    rows = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    surface = loss_surface(model, "mse", (x, model(x).detach()), directions=rows, span=1.0, points=3)
    expected = [[0.5 * ((2 * a + b) ** 2 + b**2) for b in (-1, 0, 1)] for a in (-1, 0, 1)]
    assert torch.allclose(surface.losses, torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    assert torch.equal(surface.directions, rows) and surface.eigenvalues is None
    assert bool(surface.accuracies.isnan().all())


def test_accuracies_are_shares_of_the_moved_model() -> None:
    model, (x, y) = tanh_net(), labelled()
    surface = loss_surface(model, "cross_entropy", (x, y), points=3, dimensions=1)
    assert float(surface.accuracies[1]) == float((model(x).argmax(1) == y).double().mean())


def test_the_same_call_gives_the_same_numbers_and_leaves_the_model() -> None:
    model, data = tanh_net(), labelled()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    model.train()
    first, again = (loss_surface(model, "cross_entropy", data, points=3) for _ in range(2))
    other = loss_surface(model, "cross_entropy", data, points=3, generator=torch_generator(1))
    assert torch.equal(first.losses, again.losses) and not torch.equal(first.losses, other.losses)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and torch.equal(state, torch.get_rng_state())


def test_only_the_chosen_parameters_move() -> None:
    surface = loss_surface(tanh_net(), "cross_entropy", labelled(), points=3, dimensions=1, params="2")
    assert surface.directions.shape == (1, 21)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"points": 4}, "points = 4; allowed: an odd integer"),
        ({"points": 1}, "points = 1; allowed: an odd integer"),
        ({"span": 0.0}, "span = 0.0; allowed: a positive number"),
        ({"span": float("nan")}, "span = nan"),
        ({"dimensions": 3}, "dimensions = 3; allowed: 1, 2"),
        ({"directions": "pca"}, 'directions = "pca"; allowed'),
        ({"directions": torch.ones(1, 57)}, r"shape \(1, 57\); allowed with dimensions=2: \(2, 57\)"),
        ({"directions": torch.ones(2, 5)}, r"shape \(2, 5\); allowed"),
        ({"directions": torch.ones(2, 57), "generator": torch_generator(0)}, "nothing is drawn"),
        ({"directions": torch.zeros(1, 57), "dimensions": 1}, "direction 0 has the norm 0.0"),
        ({"directions": torch.full((1, 57), torch.inf), "dimensions": 1}, "direction 0 has the norm inf"),
        ({"params": "2.bias"}, "two dimensions or more"),
    ],
)
def test_bad_inputs_are_named(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        loss_surface(tanh_net(), "cross_entropy", labelled(), **arguments)  # type: ignore[arg-type]


def test_two_directions_in_one_dimension_are_an_error() -> None:
    model, x = nn.Linear(1, 1, bias=False), torch.ones(2, 1)
    with pytest.raises(ValueError, match="direction 1 lies along the one before it"):
        loss_surface(model, "mse", (x, x), points=3)


@pytest.mark.parametrize("directions", ["random", "eigen"])
def test_one_parameter_spans_no_plane(directions: str) -> None:
    model = nn.Linear(1, 1, bias=False)
    with pytest.raises(ValueError, match="pass dimensions=1"):
        loss_surface(model, "mse", (torch.ones(3, 1), torch.zeros(3, 1)), directions=directions)  # type: ignore[arg-type]

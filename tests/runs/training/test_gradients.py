"""The gradient of a batch: layer by layer it agrees with autograd in every bit, and only where it may be used."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from overparam.models.build import build
from overparam.runs.training.gradients import _by_autograd, gradient_of, plain_layers
from overparam.runs.training.loop import rows_of, train_loop
from overparam.runs.training.optim import build_optimizer, update_of
from overparam.specs import CNN, MLP, SGD, TrainSpec

SPEC = TrainSpec(optimizer=SGD(lr=0.05), batch_size=100, epochs=1)


def network(spec: MLP | CNN, inputs: tuple[int, ...] = (1, 40)) -> nn.Module:
    return build(spec, inputs, 10, generator=torch.Generator().manual_seed(0)).train()


def batch(n: int, inputs: tuple[int, ...] = (1, 40)) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n)
    return torch.randn(n, *inputs, generator=draw), torch.randint(10, (n,), generator=draw)


def shuffled(epoch: int) -> Tensor:
    return torch.randperm(230, generator=torch.Generator().manual_seed(epoch))


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("width", [2, 8, 50, 240, 1024])
@pytest.mark.parametrize("inputs", [(1, 40), (1, 28, 28)])
def test_gradients_agree_with_autograd_in_every_bit(depth: int, width: int, inputs: tuple[int, ...]) -> None:
    ours = network(MLP(width=width, depth=depth), inputs)
    theirs = copy.deepcopy(ours)
    assert plain_layers(ours) is not None
    one_by_one, by_autograd = gradient_of(ours, SPEC), _by_autograd(theirs, SPEC)
    for n in (100, 1, 32, 17, 128, 1024, 100):
        x, y = batch(n, inputs)
        assert torch.equal(one_by_one(x, y), by_autograd(x, y))
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.grad is not None and its.grad is not None
            assert torch.equal(mine.grad, its.grad)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-3])
def test_updates_agree_with_the_optimizer_in_every_bit(momentum: float, weight_decay: float) -> None:
    ours = network(MLP(width=30, depth=3))
    theirs = copy.deepcopy(ours)
    spec = SGD(lr=0.05, momentum=momentum, weight_decay=weight_decay)
    optimizer, reference = build_optimizer(spec, ours), build_optimizer(spec, theirs)
    gradient, its, update = gradient_of(ours, SPEC), _by_autograd(theirs, SPEC), update_of(optimizer)
    for n in (100, 100, 50, 100):
        for g, step in ((gradient, update), (its, reference.step)):
            g(*batch(n))
            step()
        for group in (*optimizer.param_groups, *reference.param_groups):
            group["lr"] *= 0.5
    for mine, theirs_ in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, theirs_)
    assert optimizer.state_dict()["state"].keys() == reference.state_dict()["state"].keys()


def nothing(_: nn.Module) -> None:
    pass


def no_grads(model: nn.Module) -> None:
    model.zero_grad(set_to_none=True)


def moved(model: nn.Module) -> None:
    """Other memory, another value: gradients must be those of the new weights."""
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.9


def other_hooks(model: nn.Module) -> None:
    next(model.parameters()).register_hook(lambda grad: grad * 0.5)  # type: ignore[no-untyped-call]


def frozen_first(model: nn.Module) -> None:
    next(model.parameters()).requires_grad_(False)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("touch", [nothing, no_grads, moved, other_hooks, frozen_first, nn.Module.eval])
def test_a_run_agrees_with_one_by_autograd(
    monkeypatch: pytest.MonkeyPatch, touch: Callable[[nn.Module], object], momentum: float
) -> None:
    """Whatever a caller does to the network between two updates."""
    x, y = batch(230)
    spec = SPEC.model_copy(update={"epochs": 3, "optimizer": SGD(lr=0.05, momentum=momentum)})
    final = []
    for _ in range(2):
        model = network(MLP(width=20, depth=3))
        losses = []
        for moment in train_loop(model, x, y, spec, order=shuffled, stops=frozenset({2, 5, 6})):
            losses.append(moment.last_loss)
            touch(model)
        final.append([*(p.detach().clone() for p in model.parameters()), torch.tensor(losses)])
        monkeypatch.setattr("overparam.runs.training.gradients.gradient_of", _by_autograd)
        monkeypatch.setattr("overparam.runs.training.loop.update_of", lambda optimizer: optimizer.step)
        monkeypatch.setattr("overparam.runs.training.loop.rows_of", lambda x: lambda chosen: x[chosen])
    assert all(torch.equal(a, b) for a, b in zip(*final, strict=True))


IMAGES = torch.arange(12 * 3 * 4 * 4, dtype=torch.float32).reshape(12, 3, 4, 4)


@pytest.mark.parametrize(
    "x",
    [
        IMAGES,
        IMAGES.to(memory_format=torch.channels_last),
        IMAGES[:, :1].to(memory_format=torch.channels_last),
        IMAGES[2:],
        IMAGES[::2],
        IMAGES[:, :2],
        IMAGES[..., ::2],
        IMAGES.flatten(),
        IMAGES.flatten(1).t(),
        IMAGES[:1].expand(12, 3, 4, 4),
    ],
)
def test_rows_are_those_of_indexing_in_its_layout(x: Tensor) -> None:
    chosen = torch.tensor([3, 0, 3, 5])
    assert torch.equal(rows_of(x)(chosen), x[chosen])
    assert rows_of(x)(chosen).stride() == x[chosen].stride()


def hooked(network: nn.Module) -> nn.Module:
    next(network.modules()).register_forward_hook(lambda *_: None)
    return network


def weight_hooked(network: nn.Module) -> nn.Module:
    next(network.parameters()).register_hook(lambda grad: grad * 0)  # type: ignore[no-untyped-call]
    return network


def frozen(network: nn.Module) -> nn.Module:
    next(network.parameters()).requires_grad_(False)
    return network


def tied(network: nn.Module) -> nn.Module:
    assert isinstance(network, nn.Sequential)
    network[5] = network[3]
    return network


@pytest.mark.parametrize(
    "model",
    [
        network(MLP(width=8, activation="tanh")),
        network(MLP(width=8, parameterization="ntk")),
        network(MLP(width=8, bias=False)),
        network(CNN(channels=2), (3, 32, 32)),
        nn.Sequential(nn.Flatten(), nn.Linear(40, 8), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(40, 8), nn.Linear(8, 10)),
        nn.Sequential(nn.Flatten(), nn.Linear(40, 8), nn.Dropout(), nn.Linear(8, 10)),
        nn.Sequential(nn.Flatten()),
        nn.Linear(40, 10),
        hooked(network(MLP(width=8))),
        weight_hooked(network(MLP(width=8))),
        frozen(network(MLP(width=8))),
        tied(network(MLP(width=8, depth=4))),
    ],
)
def test_other_networks_are_left_to_autograd(model: nn.Module) -> None:
    assert plain_layers(model) is None


@pytest.mark.parametrize("change", [{"loss": "mse"}, {"lazy_scale": 2.0}])
def test_other_losses_are_left_to_autograd(change: dict[str, object]) -> None:
    spec = TrainSpec.model_validate(SPEC.model_dump() | change)
    ours = network(MLP(width=8))
    theirs = copy.deepcopy(ours)
    gradient_of(ours, spec)(*batch(50))
    _by_autograd(theirs, spec)(*batch(50))
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and its.grad is not None
        assert torch.equal(mine.grad, its.grad)

"""The loop against a naive transcription, its stops, its statuses and its states."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.models.build import build
from overparam.models.risk import Risk, risk
from overparam.runs.training.loop import NEAR, Moment, train_loop
from overparam.runs.training.state import State, state_from_arrays
from overparam.runs.training.status import status_of
from overparam.specs import CNN, SGD, Adam, TrainSpec

N = 50
GENERATOR = torch_generator(0, "data")
X = torch.randn(N, 1, 8, 8, generator=GENERATOR)
Y = torch.randint(0, 3, (N,), generator=GENERATOR)


def order(epoch: int) -> Tensor:
    return torch.randperm(N, generator=torch_generator(7, "order", epoch))


@pytest.fixture(
    autouse=True, params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"]
)
def layout(request: pytest.FixtureRequest) -> torch.memory_format:
    """Every test runs in both memory layouts: fused optimizers walk memory, so a mixed layout would mix weights up."""
    Layout.current = request.param
    return Layout.current


class Layout:
    current = torch.contiguous_format


def model() -> nn.Module:
    net = build(CNN(channels=2), (1, 8, 8), 3, generator=torch_generator(1, "init"))
    return net.to(memory_format=Layout.current)  # type: ignore[call-overload, no-any-return]


def spec(**fields: object) -> TrainSpec:
    return TrainSpec.model_validate({"optimizer": SGD(lr=0.05), "batch_size": 16, "epochs": 5} | fields)


def moments(train: TrainSpec, stops: set[int], start: State | None = None, x: Tensor = X) -> Iterator[Moment]:
    x = x.contiguous(memory_format=Layout.current)
    return train_loop(model(), x, Y, train, order=order, stops=frozenset(stops), start=start)


def final(train: TrainSpec) -> Moment:
    return list(moments(train, set()))[-1]


def same(a: State, b: State) -> bool:
    left, right = a.arrays(), b.arrays()
    return left.keys() == right.keys() and all((left[k] == right[k]).all() for k in left)


def naive(train: TrainSpec, num_steps: int) -> dict[str, Tensor]:
    """Momentum SGD with a per-epoch cosine, written out from its definition."""
    net = model()
    velocity: dict[str, Tensor] = {}
    for step in range(num_steps):
        epoch, position = divmod(step, 4)
        lr = 0.05 * 0.5 * (1 + math.cos(math.pi * epoch / 5))
        chosen = order(epoch)[position * 16 : (position + 1) * 16]
        loss = F.cross_entropy(net(X[chosen]), Y[chosen])
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(net.named_parameters(), gradients, strict=True):
                velocity[name] = gradient if name not in velocity else 0.9 * velocity[name] + gradient
                parameter.sub_(lr * velocity[name])
    return dict(net.named_parameters())


def test_loop_is_momentum_sgd_with_cosine_over_all_examples() -> None:
    expected, found = naive(spec(), 20), final(spec()).state().weights
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-6), name


def test_moments_come_at_the_steps_asked_for_and_at_the_end() -> None:
    found = [(m.step, m.end) for m in moments(spec(), {0, 3, 7, 999})]
    assert found == [(0, None), (3, None), (7, None), (20, "length")]


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), SGD(lr=0.05, momentum=0.0, weight_decay=0.01), Adam(lr=0.01)])
@pytest.mark.parametrize("at", [0, 5, 8, 20])
def test_going_on_from_a_state_ends_in_the_same_bits(optimizer: SGD | Adam, at: int) -> None:
    train = spec(optimizer=optimizer)
    stops = {m.step: m.state() for m in moments(train, {at})}
    restored = state_from_arrays(at, stops[at].arrays())
    again = list(moments(train, set(), start=restored))[-1]
    assert same(again.state(), stops[20])


def test_what_a_caller_measures_does_not_change_the_run() -> None:
    for moment in moments(spec(), set(range(20))):
        risk(moment.model, X, Y)
        moment.state()
    assert same(moment.state(), final(spec()).state())


def test_full_batch_is_one_pass_in_stored_order() -> None:
    full, as_number = (final(spec(batch_size=size, epochs=3)) for size in ("full", N))
    assert full.step == 3
    assert same(full.state(), as_number.state())


def test_steps_bound_a_run_in_the_middle_of_an_epoch() -> None:
    assert final(spec(epochs=None, steps=6)).step == 6


def test_run_stops_at_its_target_loss() -> None:
    train = spec(epochs=200, until_train_loss=(0.5, 0.2), schedule="constant", optimizer=SGD(lr=0.01))
    found = [m for m in moments(train, set()) if m.reached]
    assert [m.reached for m in found] == [(0.5,), (0.2,)]
    assert found[-1].end == "target"
    assert abs(risk(found[-1].model, X, Y).loss / 0.2 - 1) <= 0.1


@pytest.mark.parametrize("stops", [set(), set(range(200))])
def test_one_far_batch_does_not_hide_a_met_target(stops: set[int]) -> None:
    """Batches of one; that before the step at which all 50 meet the target is the one with a wrong label."""
    x, y = torch.tensor([[-1.0], [1.0]]).repeat(25, 1), torch.tensor([0, 1]).repeat(25)
    y[-1], others = 0, torch.randperm(49, generator=torch_generator(0, "order"))
    order = torch.cat([others[:31], torch.tensor([49]), others[31:]])
    plain, target = SGD(lr=0.02, momentum=0.0), 0.215
    train = spec(epochs=40, batch_size=1, until_train_loss=target, schedule="constant", optimizer=plain)

    def moments(stops: frozenset[int]) -> Iterator[Moment]:
        net = nn.Linear(1, 2)
        net.load_state_dict({"weight": torch.zeros(2, 1), "bias": torch.zeros(2)})
        return train_loop(net, x, y, train, order=lambda epoch: order, stops=stops)

    end = list(moments(frozenset(stops)))[-1]
    checks = frozenset(step for step in end.timetable.eighths() if step <= end.step)
    seen = {m.step: risk(m.model, x, y).loss for m in moments(checks)}
    assert (end.end, end.step) == ("target", min(step for step in checks if abs(seen[step] / target - 1) <= 0.1))
    assert end.last_loss is not None and end.last_loss > NEAR * target


def test_unreached_target_ends_at_the_cap() -> None:
    moment = final(spec(epochs=1, until_train_loss=1e-3, schedule="constant"))
    assert moment.end == "length"
    assert status_of("length", Risk(0.5, 0.9, 50), 3, "cross_entropy", has_target=True) == "censored"


def test_non_finite_loss_ends_the_run_and_is_dated() -> None:
    moment = final(spec(optimizer=SGD(lr=1e6)))
    assert moment.end == "diverged"
    assert moment.diverged_at is not None and 1 < moment.diverged_at <= 20
    assert moment.last_loss is not None and math.isfinite(moment.last_loss)
    bad = X.clone()
    bad[int(order(0)[0])] = torch.nan
    first = list(moments(spec(), set(), x=bad))[-1]
    assert (first.diverged_at, first.last_loss) == (1, None)


@pytest.mark.parametrize(
    ("end", "train", "status"),
    [
        ("length", Risk(0.1, 0.99, 50), "ok"),
        ("length", Risk(0.98 * math.log(10), 0.5, 50), "collapsed"),
        ("length", Risk(1.0, 0.15, 50), "collapsed"),
        ("length", Risk(1.0, 0.16, 50), "ok"),
        ("diverged", Risk(0.1, 0.99, 50), "diverged"),
        ("length", Risk(math.nan, 0.1, 50), "diverged"),
        ("target", Risk(0.1, 0.99, 50), "ok"),
    ],
)
def test_statuses_follow_their_rules(end: str, train: Risk, status: str) -> None:
    assert status_of(end, train, 10, "cross_entropy", has_target=end == "target") == status  # type: ignore[arg-type]


@pytest.mark.parametrize(("num_classes", "low", "high"), [(2, 0.54, 0.56), (4, 0.29, 0.31), (100, 0.014, 0.016)])
def test_collapsed_is_near_guessing_for_any_number_of_classes(num_classes: int, low: float, high: float) -> None:
    found = [status_of("length", Risk(0.5, a, 50), num_classes, "mse", has_target=False) for a in (low, high)]
    assert found == ["collapsed", "ok"]

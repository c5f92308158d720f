"""`overparam measure --weights`: files as other programs write them are loaded whole, or refused in a sentence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from overparam.cli.app import app

PROGRAM = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))

class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = nn.Linear(4, 4)

    def forward(self, x):
        return self.module(x)

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.old = nn.Linear(4, 4), None
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        return self.layer(x) * self.scale

def data():
    return torch.cos(torch.arange(40.0)).reshape(10, 4), torch.arange(10) % 4

def tied():
    return Tied(), data()

def holder():
    return Holder(), data()

def linear():
    return nn.Linear(4, 4), data()

def parallel():
    return nn.DataParallel(nn.Linear(4, 4)), data()

def scaled():
    return Scaled(), data()
"""


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


def waves(*shape: int) -> Tensor:
    return torch.sin(torch.arange(1.0, 1.0 + torch.Size(shape).numel())).reshape(shape)


LINEAR = {"weight": waves(4, 4), "bias": waves(4)}


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(PROGRAM)


def measure(factory: str, weights: str = "w.safetensors") -> Result:
    return CliRunner().invoke(app, ["measure", f"net.py:{factory}", "--weights", weights])


def report(factory: str, weights: dict[str, Tensor]) -> str:
    save_file(weights, "w.safetensors")
    done = measure(factory)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_tied_weights_that_are_written_once_are_loaded() -> None:
    """`save_model` leaves one of the two names out; the numbers are those of a file with both."""
    model = Tied()
    model.load_state_dict({name: waves(*x.shape) for name, x in model.state_dict().items()})
    both = report("tied", {name: x.clone() for name, x in model.state_dict().items()})
    save_model(model, "w.safetensors")
    assert len(load_file("w.safetensors")) == 3
    done = measure("tied")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == both


def test_one_of_two_tied_names_may_be_the_other_one() -> None:
    weights = {"first.bias": waves(4), "second.bias": waves(4)}
    first, second = (report("tied", weights | {f"{name}.weight": waves(4, 4)}) for name in ("first", "second"))
    assert first == second


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_what_a_wrapper_puts_before_all_names_is_stripped_in_words(prefix: str) -> None:
    plain = report("linear", LINEAR)
    save_file({f"{prefix}{name}": x for name, x in LINEAR.items()}, "w.safetensors")
    done = measure("linear")
    assert done.stderr == f'w.safetensors: the prefix "{prefix}" is stripped from all names\n'
    assert done.stdout == plain


def test_a_module_called_so_itself_keeps_its_name() -> None:
    plain = report("linear", LINEAR)
    save_file({f"module.{name}": x for name, x in LINEAR.items()}, "w.safetensors")
    done = measure("holder")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout.splitlines()[:5] == plain.splitlines()[:5]


def test_a_wrapped_model_takes_plain_names() -> None:
    save_file(LINEAR, "w.safetensors")
    done = measure("parallel")
    assert "does not fit" not in done.stderr


@pytest.mark.parametrize(
    ("factory", "weights", "message"),
    [
        ("tied", {"first.weight": waves(4, 4), "first.bias": waves(4)}, "it lacks second.bias"),
        ("tied", {"first.bias": waves(4), "second.bias": waves(4)}, "it lacks first.weight, second.weight"),
        ("scaled", {"layer.weight": waves(4, 4), "layer.bias": waves(4)}, "it lacks scale"),
        ("linear", LINEAR | {"extra": waves(2)}, "the model has no extra"),
        ("linear", {"module.weight": waves(4, 4), "bias": waves(4)}, "it lacks weight; the model has no module.weight"),
        ("linear", {"module.a": waves(4), "b": waves(4)}, "it lacks weight, bias; the model has no"),
        (
            "tied",
            {f"{part}.{name}": x + (part == "first") for part in ("first", "second") for name, x in LINEAR.items()},
            "first.weight and second.weight are one tensor of the model, but differ in the file",
        ),
        ("linear", LINEAR | {"bias": waves(5)}, "size mismatch for bias"),
    ],
)
def test_what_does_not_fit_is_a_sentence(factory: str, weights: dict[str, Tensor], message: str) -> None:
    save_file(weights, "w.safetensors")
    done = measure(factory)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: w.safetensors does not fit the model: ")
    assert message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "best w.ckpt", "pytorch_model.bin", "w.PT", "w.pth.tar"])
def test_a_pickle_is_refused_before_anything_is_opened(name: str) -> None:
    """Neither the weights, which are not there, nor the program, which would fail."""
    Path("net.py").write_text("raise RuntimeError")
    done = measure("linear", name)
    assert done.exit_code == 2
    sentence, *lines = done.stderr.splitlines()
    assert sentence.startswith(f"error: {name} is a pickle by its name") and "if you trust it, make " in sentence
    assert len(lines) == 2


@pytest.mark.parametrize("nested", [False, True])
def test_the_two_lines_convert_a_pickle(nested: bool) -> None:
    """Also one of tied weights, and one that a trainer has written with more than the weights."""
    model = Tied()
    state = model.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if nested else state, "it's w.pt")  # noqa: TID251
    done = measure("tied", "it's w.pt")
    exec("\n".join(done.stderr.splitlines()[1:]), {})
    converted = load_file("it's w.safetensors")
    assert converted.keys() == state.keys() and all((converted[name] == x).all() for name, x in state.items())
    assert measure("tied", "it's w.safetensors").exit_code == 0

"""`overparam measure --weights`: files as other programs write them are loaded whole, or refused in a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from overparam.cli.app import app
from overparam.cli.weights import load_weights

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

class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self._orig_mod = nn.Linear(4, 4)

    def forward(self, x):
        return self._orig_mod(x)

def compiled():
    return Compiled(), data()

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros((), dtype=torch.uint8))

    def forward(self, x):
        return self.layer(x)

def counting():
    return Counting(), data()

def half():
    return nn.Linear(4, 4).half(), data()
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


@pytest.mark.parametrize("factory", ["parallel", "compiled"])
def test_a_wrapped_model_takes_plain_names(factory: str) -> None:
    """Also one that only has the attribute of what `torch.compile` returns, which takes seconds to load."""
    plain = report("linear", LINEAR).splitlines()
    save_file(LINEAR, "w.safetensors")
    done = measure(factory)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:5] == plain[:5]


def test_weights_that_are_not_numbers_are_loaded_as_they_are() -> None:
    """No tensor is held to differ from itself, and NaN from the same NaN under a tied name."""
    weights = {f"{part}.{name}": x.clone() for part in ("first", "second") for name, x in LINEAR.items()}
    for name in ("first.weight", "second.weight", "first.bias"):
        weights[name].view(-1)[0] = float("nan")
    model = Tied()
    save_file(weights, "w.safetensors")
    assert load_weights(model, Path("w.safetensors")) is None
    assert model.first.bias.isnan().tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("kind", "model", "said"),
    [
        (torch.bfloat16, torch.float32, None),
        (torch.float8_e4m3fn, torch.float32, None),
        (torch.float16, torch.bfloat16, "bias (float16 to bfloat16), weight (float16 to bfloat16)"),
        (torch.float64, torch.float32, "bias (float64 to float32), weight (float64 to float32)"),
        (torch.float32, torch.float16, "bias (float32 to float16), weight (float32 to float16)"),
    ],
)
def test_floats_of_another_type_are_loaded_and_rounding_is_said(
    kind: torch.dtype, model: torch.dtype, said: str | None
) -> None:
    linear = nn.Linear(4, 4).to(model)
    weights = {
        name: torch.sin(torch.arange(x.numel(), dtype=torch.float64)).reshape(x.shape) for name, x in LINEAR.items()
    }
    save_file({name: x.to(kind) for name, x in weights.items()}, "w.safetensors")
    expected = said and f"w.safetensors: rounded to the type that the model has: {said}"
    assert load_weights(linear, Path("w.safetensors")) == expected
    assert torch.equal(linear.weight, weights["weight"].to(kind).to(model))


def test_what_is_exact_in_the_type_of_the_model_is_not_called_rounded() -> None:
    save_file({name: x.double() for name, x in LINEAR.items()}, "w.safetensors")
    assert load_weights(nn.Linear(4, 4), Path("w.safetensors")) is None


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
        ("linear", LINEAR | {"bias": waves(5).double()}, "size mismatch for bias"),
        ("linear", LINEAR | {"weight": (waves(4, 4) * 90).to(torch.int8)}, "weight is int8 in the file but float32 in"),
        ("linear", LINEAR | {"bias": waves(4) > 0}, "bias is bool in the file but float32 in the model; only floats"),
        ("linear", LINEAR | {"bias": waves(4) + 0j}, "bias is complex64 in the file but float32 in the model; only"),
        (
            "half",
            LINEAR | {"bias": waves(4) * 1e5},
            "bias is float32 in the file but float16 in the model, which cannot",
        ),
        (
            "counting",
            {f"layer.{name}": x for name, x in LINEAR.items()} | {"count": torch.tensor(300)},
            "count is int64 in the file but uint8 in the model, which cannot hold 1 of its values",
        ),
        (
            "tied",
            {
                f"{part}.{name}": (x + (part == "first")).to(torch.float8_e4m3fn)
                for part in ("first", "second")
                for name, x in LINEAR.items()
            },
            "first.weight and second.weight are one tensor of the model, but differ in the file",
        ),
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


@pytest.mark.parametrize("name", ["w", "w.npz", "w.h5"])
@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_of_any_name_is_known_by_its_first_bytes(name: str, old: bool) -> None:
    torch.save(LINEAR, name, _use_new_zipfile_serialization=not old)  # noqa: TID251
    done = measure("linear", name)
    assert done.exit_code == 2 and f"error: {name} is a pickle by its first bytes" in done.stderr
    exec("\n".join(done.stderr.splitlines()[1:]), {})
    assert load_file("w.safetensors").keys() == LINEAR.keys()


def test_a_pickle_that_is_called_safetensors_is_to_be_renamed() -> None:
    """`torch.load` goes by that name, so that the two lines would fail."""
    torch.save(LINEAR, "w.safetensors")  # noqa: TID251
    done = measure("linear")
    assert done.exit_code == 2 and "by its first bytes, not what its name says; rename it to w.pt" in done.stderr


@pytest.mark.parametrize("start", [b"\x80\2", b"\x80\5", b"PK"])
def test_safetensors_that_start_as_pickles_do_are_none(start: bytes) -> None:
    """They start with the length of what comes before the numbers, which a comment makes as long."""
    save_file(LINEAR, "w.safetensors", {"comment": ""})
    shortest = int.from_bytes(Path("w.safetensors").read_bytes()[:8], "little")
    for more in range(int.from_bytes(start, "little") - shortest - 8, int.from_bytes(start, "little")):
        save_file(LINEAR, "w.safetensors", {"comment": " " * more})
        if Path("w.safetensors").read_bytes().startswith(start):
            break
    assert Path("w.safetensors").read_bytes().startswith(start) and measure("linear").exit_code == 0


def test_an_archive_of_arrays_is_no_pickle() -> None:
    np.savez("w.npz", weight=np.zeros(3))
    assert "w.npz cannot be read as safetensors" in measure("linear", "w.npz").stderr


def test_the_list_of_the_parts_of_weights_is_called_one() -> None:
    Path("w.safetensors.index.json").write_text('{"weight_map": {"weight": "w-00001-of-00002.safetensors"}}')
    done = measure("linear", "w.safetensors.index.json")
    assert done.exit_code == 2 and "only lists the files that hold the parts of the weights" in done.stderr


@pytest.mark.parametrize("inside", [None, "state_dict", "model_state_dict", "model"])
def test_the_two_lines_convert_a_pickle(inside: str | None) -> None:
    """Also one of tied weights, and one that a trainer has written with more than the weights."""
    model = Tied()
    state = model.state_dict()
    rest = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(())}}}}
    torch.save(rest | {inside: state} if inside else state, "it's w.pt")  # noqa: TID251
    done = measure("tied", "it's w.pt")
    exec("\n".join(done.stderr.splitlines()[1:]), {})
    converted = load_file("it's w.safetensors")
    assert converted.keys() == state.keys() and all((converted[name] == x).all() for name, x in state.items())
    assert measure("tied", "it's w.safetensors").exit_code == 0

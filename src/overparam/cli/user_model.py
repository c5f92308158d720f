"""A user's own model for `overparam measure`: a factory in a Python file, weights, data → a sharpness report.

The file is the user's own program and is run as such; weights are safetensors, which hold no code.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard, get_args

import torch
from torch import Tensor, nn

from overparam.cli.weights import load_weights, refuse_pickle
from overparam.data.load import prepare, sizes
from overparam.data.sources import remark
from overparam.measure.problem.problem import Batch, Data
from overparam.measure.sharpness.card import SharpnessReport, sharpness_report
from overparam.models.losses import LossName
from overparam.specs.data import DataSpec

NAMED_EXAMPLES = 1000  # of a named data set, or all of a smaller one, where no number is asked for
PRIVATE = "_overparam_measured"  # the name of the user's module: that of the file may be taken, as by json.py


def report_on(
    reference: str,
    weights: Path | None,
    data: str | None,
    data_dir: Path | None,
    examples: int | None,
    loss: str,
    *,
    say: Callable[[str], None],
) -> SharpnessReport:
    """The sharpness report of the model that `reference`, "FILE.py:factory", makes.

    The factory takes no arguments and returns a module, or a pair of a module and its data `(x, y)`. With `data` the
    training examples of a named data set are used instead. `examples` keeps the first ones of either. `say` is told
    what was changed about the weights and their names, and what was made of the files of named data.

    Raises:
        ValueError: file, factory, weights or data are not what they should be, or the user's program failed.
    """
    if loss not in get_args(LossName):
        raise ValueError(f'unknown loss "{loss}"; allowed: {", ".join(get_args(LossName))}')
    if data is None and data_dir is not None:
        raise ValueError(f"--data-dir {data_dir} is where --data finds a data set, but none is named; add --data NAME")
    if weights is not None:
        refuse_pickle(weights)
    path, _, name = reference.rpartition(":")
    if not path or not name:
        raise ValueError(f'cannot read "{reference}"; write FILE.py:factory, for instance model.py:build')
    file = Path(path)
    with _imported(file) as module:
        model, own = _made(reference, file, getattr(module, name, None))
        if weights is not None and (changed := load_weights(model, weights)):
            say(changed)
        if data is not None:
            chosen: Data = _named(data, data_dir, examples)
            if noted := remark(DataSpec(name=data), data_dir):
                say(noted)
        elif own is not None:
            chosen = own if examples is None else _first(own, examples, reference)
        else:
            raise ValueError(f"{reference} returns no data; name some with --data, or return (module, (x, y))")
        with _told(f"cannot measure {reference} on {_described(chosen)}", file):
            return sharpness_report(model, loss, chosen)  # type: ignore[arg-type]


@contextmanager
def _imported(file: Path) -> Iterator[ModuleType]:
    """The user's file as a module; meanwhile its folder is on the import path, as under `python FILE.py`."""
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(PRIVATE, file.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file; its name must end in .py")
    module, before = importlib.util.module_from_spec(spec), sys.path[:]
    sys.path.insert(0, str(file.resolve().parent))
    sys.modules[PRIVATE] = module
    try:
        with _told(f"cannot load {file}", file):
            spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = before
        del sys.modules[PRIVATE]


@contextmanager
def _told(what: str, file: Path) -> Iterator[None]:
    """An error becomes one sentence: what failed, the last line that ran in the folder of `file`, what was raised."""
    try:
        yield
    except (Exception, SystemExit) as error:
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            places.append((error.filename or "", error.lineno))
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        own = [(Path(name), line) for name, line in places if Path(name).parent == file.resolve().parent]
        at = "".join(f", at {file.with_name(path.name)}:{line}" for path, line in own[-1:])
        kind = "" if type(error) is ValueError and said else type(error).__name__
        raise ValueError(f"{what}{at}: {': '.join(filter(None, (kind, said)))}") from error


def _made(reference: str, file: Path, factory: Any) -> tuple[nn.Module, Any]:
    """What the factory returns: the model, and its data or `None`."""
    if not callable(factory) or isinstance(factory, nn.Module):
        what = "" if factory is None else f"; that is of type {type(factory).__name__}"
        raise ValueError(f'{file} has no function "{reference.rpartition(":")[2]}"{what}')
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ValueError(f"{reference} cannot be called without arguments: {error}; give it a default") from None
    with _told(f"cannot call {reference}", file):
        made = factory()
    model, own = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        kinds = ", ".join(type(each).__name__ for each in (made if isinstance(made, tuple) else (made,)))
        raise ValueError(f"{reference} returned {kinds}; allowed: an nn.Module, or (nn.Module, (x, y))")
    return model, own


def _named(name: str, data_dir: Path | None, examples: int | None) -> Batch:
    if examples is None:
        examples = min(NAMED_EXAMPLES, sizes(DataSpec(name=name), data_dir=data_dir).train)
    split = prepare(DataSpec(name=name, subset="first", num_train=examples), data_dir=data_dir).train
    return torch.from_numpy(split.x), torch.from_numpy(split.y)


def _first(data: object, count: int, reference: str) -> Batch:
    if not _is_pair(data):
        raise ValueError(f"--examples cuts a pair of tensors (x, y); {reference} brings a {type(data).__name__}")
    if count > len(data[1]):
        raise ValueError(f"--examples {count}: {reference} brings {len(data[1])}; ask for at most that many")
    return data[0][:count], data[1][:count]


def _described(data: object) -> str:
    if not _is_pair(data):
        return f"a {type(data).__name__}"
    return f"inputs of shape {tuple(data[0].shape)} and targets of shape {tuple(data[1].shape)}"


def _is_pair(data: object) -> TypeGuard[Batch]:
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) and t.ndim > 0 for t in data)

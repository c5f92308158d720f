"""A user's own model for `overparam measure`: a factory in a Python file, weights, data → a sharpness report.

The file is the user's own program and is run as such; weights are safetensors, which hold no code.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from overparam.data.load import prepare
from overparam.measure.card import SharpnessReport, sharpness_report
from overparam.measure.losses import LossName
from overparam.specs.run import DataSpec


def report_on(
    reference: str, weights: Path | None, data: str | None, data_dir: Path | None, examples: int, loss: LossName
) -> SharpnessReport:
    """The sharpness report of the model that `reference`, "FILE.py:factory", makes.

    The factory takes no arguments and returns a module, or a pair of a module and its data `(x, y)`. With `data` the
    first training examples of a named data set are used instead.

    Raises:
        ValueError: file, factory, weights or data are not what they should be.
    """
    made = _factory(reference)()
    model, own = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{reference} returned a {type(model).__name__}; it must return an nn.Module or (module, (x, y))"
        )
    if weights is not None:
        _load(model, weights)
    if data is None and own is None:
        raise ValueError(f"{reference} returns no data; name some with --data, or return (module, (x, y))")
    chosen = own if data is None else _named(data, data_dir, examples)
    return sharpness_report(model, loss, chosen)  # type: ignore[arg-type]


def _factory(reference: str) -> Callable[[], Any]:
    path, _, name = reference.rpartition(":")
    file = Path(path)
    if not path or not name:
        raise ValueError(f'cannot read "{reference}"; write FILE.py:factory, for instance model.py:build')
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, module)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f'{file} has no function "{name}"')
    factory: Callable[[], Any] = found
    return factory


def _load(model: nn.Module, weights: Path) -> None:
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{weights} cannot be read as safetensors: {error}") from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit the model: {error}") from None


def _named(name: str, data_dir: Path | None, examples: int) -> tuple[Tensor, Tensor]:
    split = prepare(DataSpec(name=name, subset="first", num_train=examples), data_dir=data_dir).train
    return torch.from_numpy(split.x), torch.from_numpy(split.y)

"""A solve that was stopped and gone on with is the solve that was not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.problem import Batch
from overparam.measure.products.operators import CurvatureOperator, MatrixOperator
from overparam.measure.spectrum.eigenvalues import SAVE_EVERY, Eigenvalues, top_eigenvalues
from overparam.measure.spectrum.extremes import Solve
from overparam.models.build import build
from overparam.specs.models.layers import Activation
from overparam.specs.models.mlp import MLP

COLUMNS = ("values", "residuals", "lower", "upper", "vectors", "converged", "certified")
SETTINGS: dict[str, Any] = {"which": "both", "tol": 1e-4, "max_products": 1000}


def network(activation: Activation = "gelu", seed: int = 0) -> nn.Module:
    """439 parameters, an odd number: rows of a basis then lie at any place in memory."""
    return build(MLP(width=15, depth=3, activation=activation), (8,), 4, generator=torch_generator(seed, "init"))


def examples(seed: int = 0) -> Batch:
    generator = torch_generator(seed, "data")
    return torch.randn(50, 8, generator=generator), torch.randint(0, 4, (50,), generator=generator)


def solved(file: Path | None, model: nn.Module | None = None, k: int = 3, **options: Any) -> Eigenvalues:
    call = {**SETTINGS, "loss": "cross_entropy", "data": examples(), **options}
    model = network() if model is None else model
    return top_eigenvalues(model, call.pop("loss"), call.pop("data"), k, checkpoint=file, **call)


def assert_identical(found: Eigenvalues, expected: Eigenvalues) -> None:
    for name in COLUMNS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("status", "num_products", "asymmetry", "fallback", "route", "num_parameters"):
        assert getattr(found, name) == getattr(expected, name), name


class Products:
    """Counts the products that are really made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        product = CurvatureOperator.__call__

        def counted(operator: CurvatureOperator, vectors: Tensor) -> Tensor:
            self.count += 1
            return product(operator, vectors)

        patch.setattr(CurvatureOperator, "__call__", counted)


# Going on


@pytest.mark.parametrize("stops", [(10,), (13,), (25,), (20, 31), (11, 22, 33, 44)], ids=str)
def test_a_stopped_solve_goes_on_bit_for_bit(
    stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = solved(None)
    assert whole.status == "converged"
    assert whole.num_products > max(stops)
    file = tmp_path / "solve.safetensors"
    for most in stops:
        part = solved(file, max_products=most)
        assert (part.status, part.num_products) == ("max_products", most)
        assert file.exists()
    made = Products(monkeypatch)
    assert_identical(solved(file), whole)
    assert made.count == whole.num_products - max(stops) // SAVE_EVERY * SAVE_EVERY


def test_every_place_to_stop_gives_the_same_end(tmp_path: Path) -> None:
    """Within a pass, at its end, and between the passes of a solve for several pairs."""
    whole = solved(None)
    for most in range(10, whole.num_products, 10):
        file = tmp_path / f"{most}.safetensors"
        solved(file, max_products=most)
        assert_identical(solved(file), whole)


def test_a_stopped_solve_says_what_it_would_without_a_file(tmp_path: Path) -> None:
    file = tmp_path / "solve.safetensors"
    for most in (15, 30, 45):
        assert_identical(solved(file, max_products=most), solved(None, max_products=most))


def test_a_finished_solve_makes_no_product_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "solve.safetensors"
    whole = solved(file)
    made = Products(monkeypatch)
    assert_identical(solved(file), whole)
    assert made.count == 0


def test_saving_changes_no_number(tmp_path: Path) -> None:
    assert_identical(solved(tmp_path / "new folder" / "solve.safetensors"), solved(None))
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["solve.safetensors"]


@given(stop=st.integers(1, 60), k=st.integers(1, 6), which=st.sampled_from(["largest", "smallest", "both"]))
@settings(max_examples=40)
def test_a_solve_goes_on_from_its_state_at_any_product(stop: int, k: int, which: Any) -> None:
    """The state after every product, not only every tenth; repeated eigenvalues, so that there are passes."""
    values = torch.cat([torch.tensor([2.0, 2.0, 2.0, 1.5, -1.0, -1.0]), torch.linspace(-0.5, 0.5, 30)])
    q = torch.linalg.qr(torch.randn(36, 36, generator=torch_generator(0, "basis")))[0]
    matrix = (q * values) @ q.T
    matrix = (matrix + matrix.T) / 2

    def fresh(most: int) -> Solve:
        return Solve(MatrixOperator(matrix), k, which, 1e-3, most, torch_generator(0, "start"))

    saved: dict[str, Any] = {}

    def keep(solve: Solve) -> None:
        if solve.operator.num_products == stop:
            tensors, meta = solve.state()
            saved["state"] = {name: each.clone() for name, each in tensors.items()}, json.loads(json.dumps(meta))

    whole = fresh(2000)
    whole.run(keep)
    if not saved:
        return  # it was done before
    resumed = fresh(2000)
    resumed.restore(*saved["state"])
    resumed.run()
    assert resumed.operator.num_products == whole.operator.num_products
    assert (resumed.ends, resumed.passes, resumed.done) == (whole.ends, whole.passes, whole.done)
    for side, pairs in whole.found.items():
        assert [(p.value, p.residual) for p in pairs] == [(p.value, p.residual) for p in resumed.found[side]]
        assert all(torch.equal(p.vector, o.vector) for p, o in zip(pairs, resumed.found[side], strict=True))


# What is refused


def scaled_by(scale: float) -> Any:
    """Losses that share their name and differ in what they compute."""
    return lambda outputs, y: scale * F.cross_entropy(outputs, y, reduction="none")


def frozen_differently() -> nn.Module:
    model = network()
    next(iter(model.parameters())).requires_grad_(False)
    return model


OTHERS: dict[str, dict[str, Any]] = {
    "other weights": {"model": network(seed=1)},
    "other activation, same weights": {"model": network("tanh")},
    "other parameters trainable": {"model": frozen_differently()},
    "other data": {"data": examples(seed=1)},
    "other labels": {"data": (examples()[0], examples(seed=1)[1])},
    "fewer examples": {"data": (examples()[0][:49], examples()[1][:49])},
    "other loss": {"loss": "mse"},
    "own loss": {"loss": scaled_by(1.0)},
    "other params": {"params": "5"},
    "other k": {"k": 2},
    "other end": {"which": "largest"},
    "other curvature": {"curvature": "ggn"},
    "other tolerance": {"tol": 1e-3},
    "other certificate": {"certify": 0.06},
    "other start": {"generator": torch_generator(1, "lanczos")},
    "other precision": {"dtype": torch.float64},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "solve.safetensors"
    solved(file, max_products=20)
    content = file.read_bytes()
    with pytest.raises(ValueError, match="solve.safetensors belongs to another model, other data or other settings"):
        solved(file, **OTHERS[name])
    assert file.read_bytes() == content


def test_a_loss_of_the_same_name_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "solve.safetensors"
    solved(file, loss=scaled_by(1.0), max_products=20)
    with pytest.raises(ValueError, match="belongs to another model, other data or other settings"):
        solved(file, loss=scaled_by(1e4))
    assert solved(file, loss=scaled_by(1.0)).status == "converged"


def test_data_beyond_the_first_chunk_counts(tmp_path: Path) -> None:
    file, (x, y) = tmp_path / "solve.safetensors", examples()
    batches = [(x, y), (x.flip(0), y)]
    solved(file, data=batches, max_products=20)
    other = y.clone()
    other[-1] = (y[-1] + 1) % 4
    for changed in ([(x, y), (x.flip(0), other)], [(x, y), (x, y)]):
        with pytest.raises(ValueError, match="belongs to another model, other data or other settings"):
            solved(file, data=changed)
    assert solved(file, data=batches).status == "converged"


def test_another_budget_is_no_other_solve(tmp_path: Path) -> None:
    file = tmp_path / "solve.safetensors"
    solved(file, max_products=20)
    assert solved(file, max_products=999).status == "converged"


def rewritten(file: Path, metadata: dict[str, str] | None, drop: str | None = None) -> None:
    with safe_open(file, framework="pt") as content:
        tensors = {name: content.get_tensor(name) for name in content.keys() if name != drop}  # noqa: SIM118
    save_file(tensors, file, metadata)


def metadata(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="pt") as content:
        found: dict[str, Any] = json.loads(content.metadata()["meta"])
        return found


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"not a checkpoint at all"),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2]),
        lambda file: file.write_bytes(file.read_bytes()[:4]),
        lambda file: file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:]),
        lambda file: rewritten(file, None),
        lambda file: rewritten(file, {"meta": "{"}),
        lambda file: rewritten(file, {"meta": "[]"}),
        lambda file: rewritten(file, {"meta": "{}"}),
        lambda file: rewritten(file, {"other": "{}"}),
        lambda file: rewritten(file, {"meta": json.dumps({"fingerprint": metadata(file)["fingerprint"]})}),
        lambda file: rewritten(file, {"meta": json.dumps(metadata(file))}, drop="basis"),
    ],
    ids=[
        "empty", "text", "one byte short", "half", "four bytes", "header", "no metadata", "no JSON", "a list",
        "nothing in it", "other metadata", "no progress", "no basis",
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(damage: Any, tmp_path: Path) -> None:
    file = tmp_path / "solve.safetensors"
    solved(file, max_products=20)
    damage(file)
    model = network()
    model.train()
    with pytest.raises(ValueError, match="solve.safetensors is damaged; delete it to start anew"):
        solved(file, model)
    assert all(module.training for module in model.modules())


def test_a_deleted_file_starts_anew(tmp_path: Path) -> None:
    file = tmp_path / "solve.safetensors"
    solved(file, max_products=20)
    file.unlink()
    assert_identical(solved(file), solved(None))

"""The public names, their parameters and defaults: what callers may rely on across versions."""

import dataclasses
import inspect
from typing import Any

import pytest

import overparam as op

NEEDED = inspect.Parameter.empty

# Name → parameters in order with their defaults; those from "*" on are by name only. More may follow, with defaults.
FUNCTIONS: dict[str, dict[str, Any]] = {
    "train": {"spec": NEEDED, "*": None, "store": "runs", "workers": 1},
    "run": {
        "study_or_specs": NEEDED,
        "*": None,
        "preset": "smoke",
        "store": "runs",
        "workers": None,
        "on": "local",
        "overrides": (),
    },
    "top_eigenvalues": {
        "model": NEEDED,
        "loss": NEEDED,
        "data": NEEDED,
        "k": 1,
        "*": None,
        "which": "largest",
        "curvature": "hessian",
        "tol": 1e-2,
        "max_products": 200,
        "params": None,
        "generator": None,
    },
    "hessian_trace": {
        "model": NEEDED,
        "loss": NEEDED,
        "data": NEEDED,
        "*": None,
        "curvature": "hessian",
        "max_products": 100,
        "method": "hutchpp",
        "generator": None,
    },
    "spectral_density": {
        "model": NEEDED,
        "loss": NEEDED,
        "data": NEEDED,
        "*": None,
        "steps": 80,
        "probes": 4,
        "curvature": "hessian",
        "generator": None,
    },
    "perturbation_curve": {
        "model": NEEDED,
        "loss": NEEDED,
        "data": NEEDED,
        "sigmas": NEEDED,
        "*": None,
        "draws": 5,
        "scale": "absolute",
        "generator": None,
    },
    "worst_case_sharpness": {
        "model": NEEDED,
        "loss": NEEDED,
        "data": NEEDED,
        "*": None,
        "radius": NEEDED,
        "norm": "l2",
        "adaptive": False,
        "steps": 20,
        "restarts": 3,
        "generator": None,
    },
    "sharpness_report": {"model": NEEDED, "loss": NEEDED, "data": NEEDED, "*": None, "generator": None},
    "gradient_noise_scale": {"model": NEEDED, "loss": NEEDED, "data": NEEDED, "*": None, "generator": None},
    "empirical_ntk": {"model": NEEDED, "x1": NEEDED, "x2": None, "*": None, "outputs": "full", "max_memory": None},
    "analytic_ntk": {
        "x1": NEEDED,
        "x2": None,
        "*": None,
        "depth": NEEDED,
        "activation": "relu",
        "sigma_w": 2**0.5,
        "sigma_b": 0.0,
        "kind": "ntk",
        "parameterization": "ntk",
    },
    "kernel_regression": {
        "k_train": NEEDED,
        "y_train": NEEDED,
        "k_test": NEEDED,
        "*": None,
        "time": None,
        "lr": None,
        "f0_train": 0.0,
        "f0_test": 0.0,
        "ridge": 0.0,
    },
    "linearize": {"model": NEEDED, "x": NEEDED},
    "kernel_alignment": {"k1": NEEDED, "k2": NEEDED},
    "kernel_distance": {"k1": NEEDED, "k2": NEEDED},
    "parameter_movement": {"init": NEEDED, "final": NEEDED},
    "magnitude_mask": {"weights": NEEDED, "fraction": NEEDED, "*": None, "mask": None, "scope": "global"},
    "random_mask": {"weights": NEEDED, "fraction": NEEDED, "*": None, "generator": NEEDED},
    "shuffled_mask": {"mask": NEEDED, "*": None, "generator": NEEDED},
}
RECORDS = {
    "Eigenvalues": "values residuals lower upper confidence vectors status num_products",
    "Estimate": "value stderr lower upper status num_products",
    "NoiseScale": "value stderr lower upper status num_products trace squared_norm",
    "Density": "nodes weights",
    "Curve": "sigma base_loss loss_mean loss_sem accuracy_mean",
    "Run": "run_id spec status curves train_loss train_accuracy val_loss val_accuracy test_loss test_accuracy",
}
SPECS: dict[str, dict[str, Any]] = {
    "DataSpec": {
        "name": NEEDED,
        "num_train": None,
        "num_val": 0,
        "num_test": None,
        "subset": "balanced",
        "label_noise": 0.0,
        "normalize": True,
        "data_seed": 0,
    },
    "MLP": {"width": NEEDED, "depth": 4, "activation": "relu", "parameterization": "standard", "bias": True},
    "CNN": {"channels": NEEDED, "batch_norm": True, "activation": "relu"},
    "SGD": {"lr": NEEDED, "momentum": 0.9, "weight_decay": 0.0},
    "Adam": {"lr": NEEDED, "betas": (0.9, 0.999)},
    "TrainSpec": {
        "optimizer": NEEDED,
        "batch_size": NEEDED,
        "epochs": None,
        "steps": None,
        "until_train_loss": None,
        "schedule": "cosine",
        "linearize": False,
    },
    "Fresh": {"stream": "init"},
    "Rewind": {"of": NEEDED, "step": 0},
    "Dense": {},
    "Magnitude": {"of": NEEDED, "fraction": NEEDED},
    "ShuffledMask": {"of": NEEDED},
    "RunSpec": {"data": NEEDED, "model": NEEDED, "train": NEEDED, "init": op.Fresh(), "mask": op.Dense(), "seed": 0},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_what_it_took(name: str) -> None:
    expected = dict(FUNCTIONS[name])
    found = inspect.signature(getattr(op, name)).parameters
    by_name = list(expected)[list(expected).index("*") :] if "*" in expected else []
    expected.pop("*", None)
    assert [each for each in found if each in expected and each not in by_name] == [
        each for each in expected if each not in by_name
    ]
    assert {each: found[each].default for each in expected} == expected
    assert all(found[each].kind is inspect.Parameter.KEYWORD_ONLY for each in by_name if each != "*")
    more = [each for each in found.values() if each.name not in expected and each.kind is not each.VAR_KEYWORD]
    assert all(each.default is not NEEDED and each.kind is each.KEYWORD_ONLY for each in more)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_its_fields(name: str) -> None:
    record: Any = getattr(op, name)
    fields = {field.name for field in dataclasses.fields(record)} if dataclasses.is_dataclass(record) else set()
    assert set(RECORDS[name].split()) <= fields | set(dir(record))


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_has_its_fields_in_order(name: str) -> None:
    fields = getattr(op, name).model_fields
    ours = [each for each in fields if each != "kind"]
    assert ours[: len(SPECS[name])] == list(SPECS[name])
    for each, default in SPECS[name].items():
        assert fields[each].is_required() if default is NEEDED else fields[each].default == default

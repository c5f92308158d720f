"""Generators: pinned first numbers, independence of the global state, and of each other."""

import numpy as np
import pytest
import torch

from overparam.foundations.numpy_generators import numpy_generator
from overparam.foundations.torch_generators import torch_generator


def test_pinned_numpy_numbers() -> None:
    assert numpy_generator(0, "subset").integers(0, 1000, 5).tolist() == [810, 787, 236, 646, 732]


def test_pinned_torch_permutation() -> None:
    assert torch.randperm(8, generator=torch_generator(0, "order", 1)).tolist() == [4, 2, 5, 6, 7, 0, 1, 3]


def test_torch_generator_lives_on_the_cpu() -> None:
    assert torch_generator(0, "init").device.type == "cpu"


def test_generators_leave_global_states_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    torch.rand(3, generator=torch_generator(0, "init"))
    numpy_generator(0, "init").random(3)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert repr(np.random.get_state()) == numpy_before  # noqa: NPY002


@pytest.mark.parametrize("other", [(1, "init"), (0, "order"), (0, "init", 0)])
def test_streams_are_uncorrelated(other: tuple[int, str]) -> None:
    """At n = 10,000 a correlation of independent streams stays within ±4.5 standard errors but once in 150,000."""
    one, two = (numpy_generator(*stream).standard_normal(10_000) for stream in ((0, "init"), other))
    assert abs(one @ two) / (np.linalg.norm(one) * np.linalg.norm(two)) < 4.5 / 100

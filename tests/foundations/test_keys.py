"""Keys of random streams: pinned, and unrelated between seeds and purposes."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overparam.foundations.keys import key

PINNED = [
    ((0, "init"), 8614139081179300807),
    ((0, "order", 1), 4425359439235389561),
    ((7, "order", 1), 8452338951110648608),
    ((2**40, "mask", "0.weight"), 2791297445395906412),
]


@pytest.mark.parametrize(("stream", "pinned"), PINNED)
def test_pinned_keys(stream: tuple[int, str], pinned: int) -> None:
    assert key(*stream) == pinned


def test_seeds_and_epochs_never_collide() -> None:
    keys = {key(seed, "order", epoch) for seed in range(100) for epoch in range(100)}
    assert len(keys) == 10_000


@settings(deadline=None)
@given(seed=st.integers(0, 2**62), shift=st.integers(1, 1000), purpose=st.sampled_from(["init", "order", "mask"]))
def test_shifted_seed_is_another_stream(seed: int, shift: int, purpose: str) -> None:
    assert key(seed + shift, purpose) != key(seed, purpose) + shift
    assert key(seed, purpose, shift) != key(seed + shift, purpose, 0)


@settings(deadline=None)
@given(seed=st.integers(0, 2**62), purpose=st.lists(st.text(max_size=5) | st.integers(), max_size=3))
def test_keys_fit_63_bits(seed: int, purpose: list[str | int]) -> None:
    assert 0 <= key(seed, *purpose) < 2**63


def test_type_and_division_of_a_purpose_matter() -> None:
    assert len({key(0, "a", 1), key(0, "a", "1"), key(0, "a1"), key(0, "a"), key(0)}) == 5


def test_keys_do_not_depend_on_the_process() -> None:
    """Unlike `hash`, which is salted."""
    code = "from overparam.foundations.keys import key; print(key(0, 'order', 1))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(output) == key(0, "order", 1)

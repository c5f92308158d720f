"""Subsets and wrong labels: laws; and how many examples a spec selects."""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overparam.data.corrupt import digest_noise, select_balanced, wrong_labels
from overparam.data.load import content_digest, prepare, sizes
from overparam.data.types import DataError
from overparam.specs import DataSpec

SEEDS = st.integers(0, 2**20)


@given(n=st.integers(1, 200), share=st.floats(0, 1), classes=st.integers(2, 12), seed=SEEDS)
def test_wrong_labels_are_exactly_counted_and_never_the_true_class(
    n: int, share: float, classes: int, seed: int
) -> None:
    labels = np.arange(n) % classes
    noisy, flipped = wrong_labels(labels, share, classes, seed)
    assert len(flipped) == round(share * n)
    assert (np.flatnonzero(noisy != labels) == flipped).all()
    assert noisy.min() >= 0 and noisy.max() < classes


def test_wrong_labels_are_uniform_over_the_other_classes() -> None:
    noisy, _ = wrong_labels(np.zeros(90_000, dtype=np.int64), 1.0, 10, 0)
    counts = np.bincount(noisy, minlength=10)
    assert counts[0] == 0
    assert (abs(counts[1:] - 10_000) < 5 * np.sqrt(10_000)).all()


def test_noise_depends_on_its_seed_and_is_digested() -> None:
    labels = np.arange(100) % 10
    digests = [digest_noise(*wrong_labels(labels, 0.2, 10, seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


@given(per_class=st.integers(1, 8), extra=st.integers(0, 4), val=st.integers(0, 10), seed=SEEDS)
def test_balanced_subsets_are_balanced_and_disjoint(per_class: int, extra: int, val: int, seed: int) -> None:
    labels = np.random.Generator(np.random.Philox(seed)).permutation(np.arange(100) % 5)
    train, held = select_balanced(labels, (5 * per_class + extra, val), seed, "subset")
    for subset, size in ((train, 5 * per_class + extra), (held, val)):
        counts = np.bincount(labels[subset], minlength=5)
        assert counts.sum() == size
        assert counts.max() - counts.min() <= 1
    assert len(np.unique(np.concatenate([train, held]))) == len(train) + len(held)


@given(seed=SEEDS)
def test_balanced_subsets_are_nested(seed: int) -> None:
    labels = np.arange(100) % 5
    (small,), (large,) = (select_balanced(labels, (size,), seed, "subset") for size in (20, 60))
    assert set(small) < set(large)


def test_prepare_selects_normalizes_and_corrupts() -> None:
    spec = DataSpec(name="digits", num_train=200, num_val=50, num_test=100, label_noise=0.1, data_seed=3)
    examples = prepare(spec)
    assert [len(s.y) for s in (examples.train, examples.val, examples.test)] == [200, 50, 100]
    assert (examples.train.y != examples.clean_train_y).sum() == 20
    assert examples.train.x.dtype == np.float32
    assert abs(float(examples.train.x.mean())) < 0.1
    assert abs(float(examples.train.x.std()) - 1) < 0.1
    raw = prepare(spec.model_copy(update={"normalize": False})).train.x
    assert raw.min() == 0.0 and raw.max() <= 1.0
    other = prepare(spec.model_copy(update={"data_seed": 4}))
    assert not np.array_equal(other.train.x, examples.train.x)
    everything = prepare(DataSpec(name="digits", num_val=97))
    assert (len(everything.train.y), len(everything.val.y)) == (1200, 97)


def test_first_takes_stored_order() -> None:
    whole, first = prepare(DataSpec(name="digits")), prepare(DataSpec(name="digits", num_train=7, subset="first"))
    assert (first.train.x == whole.train.x[:7]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_train": 1298}, "do not fit into a training pool of 1297"),
        ({"num_train": 1000, "num_val": 298}, "num_train=1000 and num_val=298 do not fit"),
        ({"num_test": 501}, "there are 500 test examples"),
    ],
)
def test_too_large_requests_name_what_there_is(fields: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(DataSpec.model_validate({"name": "digits"} | fields))


@pytest.mark.parametrize(
    "spec",
    [
        DataSpec(name="digits", data_seed=7),
        DataSpec(name="digits", num_train=300, num_val=20, num_test=50, data_seed=7),
        DataSpec(name="mnist1d", num_train=4500, num_test=1503),
    ],
)
def test_sizes_are_those_of_the_examples_which_are_not_built(spec: DataSpec) -> None:
    content_digest(spec)  # what was decoded stays in memory
    tracemalloc.start()
    try:
        found = sizes(spec)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    examples = prepare(spec)
    assert peak < examples.train.x.nbytes
    splits = (examples.train, examples.val, examples.test)
    assert (found.train, found.val, found.test) == tuple(len(split.y) for split in splits)
    assert (found.input_shape, found.num_classes) == (examples.train.x.shape[1:], examples.num_classes)


@pytest.mark.parametrize(
    "changed", [{"num_train": 1200, "num_val": 98}, {"num_test": 501}, {"num_train": 1295, "subset": "balanced"}]
)
def test_sizes_refuse_what_the_examples_refuse(changed: dict[str, object]) -> None:
    """A plan must say so before anything is run."""
    spec = DataSpec.model_validate({"name": "digits", **changed})
    with pytest.raises(DataError) as caught:
        prepare(spec)
    with pytest.raises(DataError, match=re.escape(str(caught.value))):
        sizes(spec)

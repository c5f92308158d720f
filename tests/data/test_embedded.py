"""The data that needs no files: the digits and MNIST-1D."""

import numpy as np

from overparam.data.load import content_digest, dataset_of, prepare
from overparam.data.readers import mnist1d
from overparam.identity import digest_arrays
from overparam.specs import DataSpec


def test_mnist1d_is_the_published_data_set() -> None:
    """Digest of the arrays that the `mnist1d` package 0.0.2.post1 generates by default, as float32 and int64."""
    assert digest_arrays(mnist1d.generate(4000, 1000, 0)) == "229d42b8dab2ae7dfff5413853681f4e"


def test_mnist1d_comes_in_any_size_and_as_fresh_samples() -> None:
    examples = prepare(DataSpec(name="mnist1d", num_train=4500, num_test=1503))
    assert (len(examples.train.y), len(examples.test.y)) == (4500, 1503)
    assert len(prepare(DataSpec(name="mnist1d")).train.y) == 4000
    fresh = [content_digest(DataSpec(name="mnist1d", data_seed=seed)) for seed in (0, 1, 2)]
    assert len(set(fresh)) == 3


def test_a_larger_mnist1d_test_set_changes_nothing_else() -> None:
    small, large = (mnist1d.generate(4000, num_test, 0) for num_test in (1000, 1500))
    assert np.array_equal(small["train_x"], large["train_x"])
    assert np.array_equal(small["test_x"], large["test_x"][:1000])
    extra = large["test_x"][1000:]
    assert len(extra) == 500 and abs(float(extra.mean())) < 0.1 and abs(float(extra.std()) - 1) < 0.1
    assert not np.array_equal(extra, large["train_x"][:500])


def test_a_validation_set_is_balanced_and_the_rest_trains() -> None:
    for spec in (
        DataSpec(name="mnist1d", num_train=4000, num_val=500),
        DataSpec(name="digits", num_train=1200, num_val=97),
    ):
        examples = prepare(spec)
        assert (len(examples.train.y), len(examples.val.y)) == (spec.num_train, spec.num_val)
        assert np.ptp(np.bincount(examples.val.y)) <= 1


def test_logistic_regression_reaches_its_published_accuracy_on_mnist1d() -> None:
    """About 32 % (±2), by full-batch Newton-free gradient descent on the convex loss."""
    examples = prepare(DataSpec(name="mnist1d"))
    x = np.c_[examples.train.x, np.ones(4000)].astype(np.float64)
    onehot, weights = np.eye(10)[examples.train.y], np.zeros((41, 10))
    for _ in range(400):
        logits = x @ weights
        p = np.exp(logits - logits.max(1, keepdims=True))
        weights -= 0.5 * x.T @ (p / p.sum(1, keepdims=True) - onehot) / len(x)
    test = np.c_[examples.test.x, np.ones(1000)]
    assert abs(float(np.mean((test @ weights).argmax(1) == examples.test.y)) - 0.32) < 0.02


def test_digits_are_split_by_class() -> None:
    data = dataset_of(DataSpec(name="digits"))
    assert data.train_x.shape == (1297, 1, 8, 8)
    assert np.bincount(data.test_y).tolist() == [50] * 10
    assert data.train_x.max() == 240
    assert data.digest == "85c6819495a023a38198a6dc83449313"

"""What is claimed about width, fixed before the runs."""

import math
from collections.abc import Collection
from statistics import linear_regression

from overparam.claims.claim import Claim
from overparam.claims.estimand import AnyEstimand, Peak, PeakPlace, Slope

PUBLISHED, CLEAN, NOISY, EQUAL_LOSS, CNN_ARM = "published", "clean", "noisy", "equal_loss", "cnn"
PUBLISHED_CNN = "published_cnn"
EPOCHS, SAMPLES = "epochs", "samples"
FITTED = 0.99  # of the given labels: the interpolation threshold
# Test accuracy by width on 10,000 MNIST images. Source: arXiv:2604.07603, two seeds.
PAPER = {8: 0.897, 16: 0.934, 32: 0.954, 64: 0.961, 128: 0.967, 256: 0.967, 512: 0.969, 1024: 0.968}
BEYOND = tuple(float(width) for width in PAPER if width >= 32)  # the paper's networks of width 32 fit all labels


REPORTED = "a peak is reported at 8 channels, where one of its seeds did not train"


def paper_slope() -> float:
    """The paper's accuracy per doubling beyond the threshold.

    >>> round(paper_slope(), 4)
    0.0027
    """
    return linear_regression([math.log2(w) for w in BEYOND], [PAPER[int(w)] for w in BEYOND]).slope


def claims(arms: Collection[str], beyond_width: float, comparable: bool = False) -> tuple[Claim, ...]:
    """The claims about the arms that a preset has; `beyond_width` is that of as many parameters as n·K."""
    every = (*_published(comparable), *_peaks(), *_places(beyond_width), *_curvature(), *_others(), *_effective())
    return tuple(claim for claim in every if getattr(claim.estimand, "arm", "") in arms)


def _published(comparable: bool) -> tuple[Claim, ...]:
    keeps_falling = Claim(
        name="the error keeps falling past the threshold",
        sentence="Under the published protocol on MNIST the test accuracy rises with the width, on average per "
        "doubling, from 32 on, where all labels are fitted.",
        estimand=Slope(metric="test_accuracy", arm=PUBLISHED, levels=BEYOND),
        test="superiority",
        margin=0.001,
        pilot_sd=0.0004,
        paper_value=paper_slope(),
        paper_note="95.4 % at width 32, 96.8 % at 1024; two seeds",
        comparable=comparable,
    )
    return (keeps_falling,)


def _peak(name: str, sentence: str, estimand: AnyEstimand, margin: float, confirmatory: bool = True) -> Claim:
    return Claim(
        name=name,
        sentence=sentence,
        estimand=estimand,
        test="superiority",
        margin=margin,
        pilot_sd=margin / 2,
        paper_note=REPORTED if getattr(estimand, "arm", "") == PUBLISHED_CNN else "not measured",
        confirmatory=confirmatory,
    )


def _peaks() -> tuple[Claim, ...]:
    return (
        _peak(
            "the error peaks with clean labels",
            "With clean labels the test error on MNIST-1D falls, rises and falls again with width.",
            Peak(metric="test_accuracy", arm=CLEAN, trough=True),
            0.01,
        ),
        _peak(
            "the error peaks with wrong labels",
            "With 15 % wrong labels the test error on MNIST-1D falls, rises and falls again with width.",
            Peak(metric="test_accuracy", arm=NOISY, trough=True),
            0.01,
        ),
        _peak(
            "the loss peaks with clean labels",
            "With clean labels the test loss on MNIST-1D falls, rises and falls again with width.",
            Peak(metric="test_loss", arm=CLEAN),
            0.2,
        ),
    )


def _places(beyond_width: float) -> tuple[Claim, ...]:
    at_threshold = PeakPlace(metric="test_accuracy", arm=NOISY, trough=True, other="train_accuracy", reaches=FITTED)
    beyond = PeakPlace(metric="test_accuracy", arm=NOISY, trough=True, reaches=beyond_width)
    return (
        Claim(
            name="the peak sits at the threshold",
            sentence=f"With wrong labels the error peaks within half a doubling of the width that first fits "
            f"{FITTED:.0%} of the given labels.",
            estimand=at_threshold,
            test="equivalence",
            margin=0.5,
            pilot_sd=0.2,
            paper_note="not measured",
        ),
        Claim(
            name="the peak lies below as many parameters as outputs to fit",
            sentence=f"With wrong labels the error peaks at a smaller width than {beyond_width:.0f}, which has as many "
            "parameters as there are examples times classes.",
            estimand=beyond,
            test="superiority",
            direction="less",
            margin=0.5,
            pilot_sd=0.2,
            paper_note="not measured",
            confirmatory=False,
        ),
    )


def _curvature() -> tuple[Claim, ...]:
    found = []
    for metric, what, confirmatory in (
        ("lambda_max", "λmax of the Hessian", True),
        ("trace", "the trace of the Hessian", False),
        ("adaptive_noise_0.2", "the loss increase under noise that follows the size of each weight", False),
    ):
        found.append(
            Claim(
                name=f"flatter with width: {metric}",
                sentence=f"Stopped at the same train loss, {what} falls with width as a power.",
                estimand=Slope(metric=metric, arm=EQUAL_LOSS, scale="log"),
                test="superiority",
                direction="less",
                margin=0.1,
                pilot_sd=0.05,
                paper_note="claimed, not measured",
                confirmatory=confirmatory,
            )
        )
    return tuple(found)


WRONG, AGAIN = "With 15 % wrong labels", "falls, rises and falls again with"
DESCRIBED: tuple[tuple[str, str, str, str, float], ...] = (
    (
        "the published curve has a peak",
        f"Under the published protocol on MNIST the test error {AGAIN} width.",
        PUBLISHED,
        "test_accuracy",
        0.005,
    ),
    (
        "the published CNN's curve has a peak",
        f"Under the published protocol on CIFAR-10 the test error of a CNN {AGAIN} its channels.",
        PUBLISHED_CNN,
        "test_accuracy",
        0.01,
    ),
    (
        "the best epoch has a peak",
        f"{WRONG} the lowest test error of all evaluations along a run, which selects on the test set, still "
        f"{AGAIN} width.",
        NOISY,
        "best_test_accuracy",
        0.01,
    ),
    (
        "stopping early keeps the peak",
        f"{WRONG} the test error at the lowest validation loss of a run, with right labels, still {AGAIN} width.",
        NOISY,
        "early_stopped_test_accuracy",
        0.01,
    ),
    (
        "the error peaks along training",
        f"{WRONG} the test error of one wide network {AGAIN} epochs.",
        EPOCHS,
        "test_accuracy",
        0.01,
    ),
    (
        "more data hurts",
        f"{WRONG} and one width the test error {AGAIN} the number of training examples.",
        SAMPLES,
        "test_accuracy",
        0.01,
    ),
    (
        "the error of a CNN peaks with wrong labels",
        f"{WRONG} the test error of a CNN {AGAIN} its channels.",
        CNN_ARM,
        "test_accuracy",
        0.01,
    ),
)


def _others() -> tuple[Claim, ...]:
    """Other choices of the moment, other axes, other networks."""
    return tuple(
        _peak(name, sentence, Peak(metric=metric, arm=arm, trough=True), margin, confirmatory=False)
        for name, sentence, arm, metric, margin in DESCRIBED
    )


def _effective() -> tuple[Claim, ...]:
    sentence = "With 15 % wrong labels the effective parameters of the trained network rise and fall again with width."
    peak = Peak(metric="effective_parameters", arm=NOISY)
    return (_peak("the effective parameters peak", sentence, peak, 10.0, confirmatory=False),)

"""The rows of docs/audit.md: the claims of arXiv:2604.07603 in our words, and the claims of ours that answer them."""

from collections.abc import Callable
from dataclasses import dataclass

import audit_reading as reading
from paper_values import Paper


@dataclass(frozen=True)
class Answer:
    """A claim of one of our studies, by its name."""

    study: str
    claim: str


@dataclass(frozen=True)
class Row:
    """A claim of the paper, what its values support, and our claims about it; `here` has words in place of them."""

    name: str
    stated: str
    supports: Callable[[Paper], str]
    answers: tuple[Answer, ...] = ()
    here: str = ""


def worded(text: str) -> Callable[[Paper], str]:
    """What no number is computed for."""
    return lambda _: text


QUESTIONS = (
    Row(
        "RQ1.",
        "Networks with more parameters than data generalize; five views together say why.",
        reading.more_parameters,
        here="no claim of its own; those below",
    ),
    Row(
        "RQ2, H1.",
        "SGD regularizes by itself: small batches generalize better.",
        reading.small_batches,
        (Answer("batch_size", "small beats large at equal train loss"),),
    ),
    Row(
        "RQ3, H2.",
        "Flat minima generalize better.",
        worded(
            "Two networks that differ in both cannot show a relation (E3). The other experiments have no curvature."
        ),
        (Answer("loss_landscape", "flatter goes with a smaller gap"),),
    ),
    Row(
        "RQ4, H3.",
        "The regime of the tangent kernel explains a part of it.",
        worded("No value speaks to it: no kernel was computed (E5)."),
        (Answer("ntk_regime", "kernel regression explains most of the published network"),),
    ),
    Row(
        "RQ5, H4.",
        "Double descent: capacity past the interpolation threshold helps.",
        reading.beyond_threshold,
        (Answer("double_descent", "the error keeps falling past the threshold"),),
    ),
    Row(
        "RQ6, H5.",
        "There are sparse subnetworks whose initial weights are favourable.",
        reading.subnetworks,
        (Answer("lottery_ticket", "the ticket beats every control at 13.5 %"),),
    ),
)
STATISTICS = (
    Row(
        "Seeds.",
        "Five seeds, 95 % bootstrap intervals of 1,000 resamples, two-tailed Welch tests.",
        reading.seeds,
        here="five seeds, in places three, each with its interval and test; see [docs/results](results/README.md)",
    ),
    Row(
        "±.",
        "Means are given with the standard deviation.",
        reading.spread,
        here="divided by n − 1; see [docs/results](results/README.md)",
    ),
)
E1 = (
    Row(
        "MLP, peak.",
        "The MLP on MNIST shows double descent over widths 8 to 1024.",
        reading.mlp_peak,
        (Answer("double_descent", "the published curve has a peak"),),
    ),
    Row(
        "MLP, beyond.",
        "Past interpolation wider is still better: 95.4 % at width 32, 96.8 % at 1024.",
        reading.mlp_rise,
        (Answer("double_descent", "the error keeps falling past the threshold"),),
    ),
    Row(
        "CNN, peak.",
        "On CIFAR-10 test error peaks at 8 channels: 27.6 ± 17.5 % accuracy.",
        reading.cnn_peak,
        here="`double_descent`: declared in its preset `paper`, not run",
    ),
    Row(
        "CNN, beyond.",
        "Past interpolation wider is still better: 65.8 % at 32 channels, 72.0 % at 96.",
        reading.cnn_rise,
        here="`double_descent`: declared in its preset `paper`, not run",
    ),
)
E2 = (
    Row(
        "Headline.",
        "Batch 32 tests 2.25 points better than batch 2048.",
        reading.headline,
        (Answer("batch_size", "small beats large at equal epochs"),),
    ),
    Row(
        "Trend.",
        "Test accuracy falls monotonically with the batch size.",
        reading.trend,
        (Answer("batch_size", "falling trend"),),
    ),
    Row(
        "Rates.",
        "The learning rate is linear in the batch size, 0.01 at 128.",
        reading.scaling,
        (Answer("batch_size", "small beats large under linear scaling"),),
    ),
    Row(
        "Noise.",
        "The noise of small batches is what regularizes.",
        reading.noise,
        (Answer("batch_size", "small beats large at equal train loss"),),
    ),
    Row(
        "Adam.",
        "Adam at batch 128 is as good as SGD at batch 32: 85.47 % and 85.52 %.",
        reading.adam,
        (Answer("batch_size", "Adam matches small-batch SGD"),),
    ),
    Row(
        "Full batch.",
        "Gradient descent without noise fails: 32.71 % test accuracy.",
        reading.full_batch,
        (Answer("batch_size", "full batch fits as well"),),
    ),
    Row(
        "Gap.",
        "The generalization gap grows with the batch: 14.48 points at 32, 16.73 at 2048.",
        reading.gaps,
        (Answer("batch_size", "falling trend"),),
    ),
)
E3 = (
    Row(
        "Eigenvalue.",
        "Batch 1024 ends 11.8 times as sharp as batch 32.",
        reading.eigenvalues,
        (Answer("loss_landscape", "larger top eigenvalue"), Answer("loss_landscape", "sharper at equal train loss")),
    ),
    Row(
        "Accuracy.",
        "The flatter network tests 1.61 points better.",
        reading.better_too,
        (Answer("batch_size", "small beats large at equal train loss"),),
    ),
    Row(
        "Weight noise.",
        "Noise on the weights raises the loss of batch 1024 more, in percent of the loss.",
        reading.fragile,
        (Answer("loss_landscape", "more fragile under noise"),),
    ),
)
E4 = (
    Row(
        "Most weights.",
        "Pruned networks match or beat the dense one down to about 30 % of the weights.",
        reading.pruned_some,
        (Answer("lottery_ticket", "70 % do as well as all"), Answer("lottery_ticket", "30 % equal all")),
    ),
    Row(
        "Few weights.",
        "Accuracy falls below 20 %: 83.72 % at 10 % of the weights, 81.48 % at 5 %.",
        reading.pruned_much,
        (Answer("lottery_ticket", "10 % do as well as all"),),
    ),
    Row(
        "Initial weights.",
        "At 10 % the first weights beat fresh ones: 83.72 % against 80.92 %.",
        reading.initial_weights,
        (Answer("lottery_ticket", "the initial weights matter at 10 %"),),
    ),
    Row(
        "Rounds.",
        "Tickets come from iterative magnitude pruning.",
        worded("No: the code prunes the dense network once for each density. No network was pruned in rounds."),
        (Answer("lottery_ticket", "iterative beats at once at 10 %"),),
    ),
)
E5 = (
    Row(
        "Movement.",
        "Weights move less in wider networks, relative to their norm: as width^(−1/2), 11.3 times from 32 to 4096.",
        reading.movement,
        (Answer("ntk_regime", "movement falls as width^(−1/2)"),),
    ),
    Row(
        "Regime.",
        "So wide networks train in the regime of the tangent kernel.",
        reading.lazy,
        (
            Answer("ntk_regime", "absolute movement is constant under the published protocol"),
            Answer("ntk_regime", "kernel drift falls under the published protocol"),
        ),
    ),
    Row("Accuracy.", "Wider networks test better.", reading.wider, (Answer("ntk_regime", "wider tests better"),)),
)
JOINT = (
    Row(
        "Width and flatness.",
        "Flat minima become more available with width.",
        worded("No value: curvature was measured at one width."),
        (Answer("double_descent", "flatter with width: lambda_max"),),
    ),
    Row(
        "Batch, flatness, gap.",
        "Small batches find flatter minima, and these generalize.",
        worded("One pair of runs agrees with it (E3). Of the seven batch sizes of E2 five have no curvature."),
        (Answer("loss_landscape", "flatter goes with a smaller gap"),),
    ),
    Row(
        "All five.",
        "The five views are analysed jointly.",
        worded("No published value relates a quantity of one experiment to one of another."),
        here="not yet: the study `mechanisms` is to come",
    ),
)
BLOCKS: dict[str, tuple[Row, ...]] = {
    "Questions and hypotheses": QUESTIONS,
    "Statistics": STATISTICS,
    "E1, double descent": E1,
    "E2, implicit regularization": E2,
    "E3, loss landscape": E3,
    "E4, lottery tickets": E4,
    "E5, tangent kernel": E5,
    "The views together": JOINT,
}

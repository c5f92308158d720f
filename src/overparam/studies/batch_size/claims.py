"""What is claimed about the batch size, fixed before the runs."""

from overparam.claims.claim import Claim
from overparam.claims.estimand import Difference, Metric, Point, Slope


def versus(arm: str, a: float | str, b: float | str, metric: Metric = "test_accuracy") -> Difference:
    """Level a minus level b within one arm."""
    return Difference(metric=metric, a=Point(arm=arm, level=a), b=Point(arm=arm, level=b))


def claims(
    small: int,
    large: int,
    loss_large: int,
    adam: str,
    adam_twin: int,
    margin: float,
    sd: float,
    comparable: bool = False,
) -> tuple[Claim, ...]:
    """Five confirmatory claims and one descriptive. Accuracies are fractions: a margin of .01 is a point.

    `comparable`: the runs follow the paper's protocol, so that its values can be set against the intervals.
    """
    return (
        *_at_equal_epochs(small, large, margin, sd, comparable),
        Claim(
            name="small beats large at equal train loss",
            sentence=f"Stopped at the same train loss, batch {small} still tests better than batch {loss_large}.",
            estimand=versus("equal_loss", small, loss_large),
            test="superiority",
            margin=margin,
            pilot_sd=sd,
            paper_note="not measured",
        ),
        Claim(
            name="Adam matches small-batch SGD",
            sentence=f"{adam.capitalize()} and SGD at batch {adam_twin} reach equivalent test accuracy.",
            estimand=versus("equal_epochs", adam, adam_twin),
            test="equivalence",
            margin=margin,
            pilot_sd=sd,
            paper_value=-0.0005,
            comparable=comparable,
            paper_note="85.47 % against 85.52 %",
        ),
        Claim(
            name="full batch fits as well",
            sentence="Given enough steps, full-batch gradient descent reaches the training accuracy of a small batch.",
            estimand=versus("full_batch", "full lr 0.1", small, "train_accuracy"),
            test="noninferiority",
            margin=0.02,
            pilot_sd=0.01,
            paper_value=-0.633,
            paper_note="36.7 % train accuracy after 80 steps at lr .001 on 5,000 samples, against 100 %",
        ),
    )


def _at_equal_epochs(small: int, large: int, margin: float, sd: float, comparable: bool) -> tuple[Claim, ...]:
    """The paper's two claims, and the first of them under a linearly scaled learning rate."""
    return (
        Claim(
            name="small beats large at equal epochs",
            sentence=f"At equal epochs, batch {small} reaches a higher test accuracy than batch {large}.",
            estimand=versus("equal_epochs", small, large),
            test="superiority",
            margin=margin,
            pilot_sd=sd,
            paper_value=0.0225,
            comparable=comparable,
            paper_note="85.52 % at 32 against 83.27 % at 2048; CNN c = 32, all of CIFAR-10, 80 epochs, 3 seeds",
        ),
        Claim(
            name="falling trend",
            sentence="At equal epochs, test accuracy falls with every doubling of the batch size.",
            estimand=Slope(metric="test_accuracy", arm="equal_epochs"),
            test="superiority",
            direction="less",
            margin=margin / 4,
            pilot_sd=sd / 4,
            paper_value=-0.0035,
            comparable=comparable,
            paper_note="least-squares slope of the paper's seven means; they are not monotone",
        ),
        Claim(
            name="small beats large under linear scaling",
            sentence=f"With a linearly scaled learning rate, batch {small} still beats batch {large} at equal epochs.",
            estimand=versus("linear_lr", small, large),
            test="superiority",
            margin=margin,
            pilot_sd=sd,
            confirmatory=False,
        ),
    )

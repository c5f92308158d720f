"""What is claimed about tickets; docs/results says which descriptive claims were added after a first run."""

from collections.abc import Collection

from overparam.claims.claim import Claim
from overparam.claims.estimand import Difference, Every, Point
from overparam.studies.lottery_ticket.arms import CONTROLS, DENSE, FRESH, ONE_SHOT, TICKET, TITLES, TUNED, arm_name

# Test accuracy by remaining percent, CNN with 32 channels on CIFAR-10. Source: arXiv:2604.07603, E4, pruned at once.
PAPER = {100: 0.8487, 70: 0.8527, 50: 0.8486, 30: 0.8474, 20: 0.8447, 10: 0.8372, 5: 0.8148}
PAPER_REINIT = 0.8092  # at 10 %
NOTE = "pruned at once from the dense network; a CNN of 32 channels, one control"


def gain(ladder: str, kind: str, density: float, other: str, other_density: float, metric: str) -> Difference:
    """How much better one kind of run at one density is than another at another."""
    a, b = (Point(arm=arm_name(ladder, k), level=level) for k, level in ((kind, density), (other, other_density)))
    return Difference(metric=metric, a=a, b=b)


def published_claims(ladder: str, margin: float, sd: float, comparable: bool = False) -> tuple[Claim, ...]:
    """The paper's sentences, with iterative tickets where it says iterative."""

    def claim(name: str, sentence: str, difference: Difference, test: str, paper: float | None) -> Claim:
        fields = {"name": name, "sentence": sentence, "estimand": difference, "test": test, "margin": margin}
        shown = {"pilot_sd": sd, "paper_value": paper, "paper_note": NOTE, "comparable": comparable}
        return Claim.model_validate(fields | shown)

    def against_dense(density: float) -> Difference:
        return gain(ladder, TICKET, density, TICKET, 100, "test_accuracy")

    return (
        claim(
            "10 % do as well as all",
            "A ticket with 10 % of the weights is not worse than the dense network.",
            against_dense(10),
            "noninferiority",
            PAPER[10] - PAPER[100],
        ),
        claim(
            "the initial weights matter at 10 %",
            "A ticket with 10 % of the weights is better than the same mask under a fresh initialization.",
            gain(ladder, TICKET, 10, "reinit", 10, "test_accuracy"),
            "superiority",
            PAPER[10] - PAPER_REINIT,
        ),
        claim(
            "30 % equal all",
            "A ticket with 30 % of the weights is as good as the dense network.",
            against_dense(30),
            "equivalence",
            PAPER[30] - PAPER[100],
        ),
        claim(
            "70 % do as well as all",
            "A ticket with 70 % of the weights is not worse than the dense network.",
            against_dense(70),
            "noninferiority",
            PAPER[70] - PAPER[100],
        ),
        claim(
            "iterative beats at once at 10 %",
            "At 10 % of the weights pruning in rounds gives a better ticket than pruning at once.",
            gain(ladder, TICKET, 10, ONE_SHOT, 10, "test_accuracy"),
            "superiority",
            None,
        ),
    )


def beats_every_control(
    ladder: str, density: float, arms: Collection[str], metric: str, margin: float, sd: float, *, confirmatory: bool
) -> Claim:
    """The ticket against all controls at once: the weakest difference decides.

    Raises:
        ValueError: a control is missing.
    """
    if missing := [kind for kind in CONTROLS if arm_name(ladder, kind) not in arms]:
        raise ValueError(f"{ladder}: the claim needs every control; missing: {', '.join(missing)}")
    where = "" if metric == "test_accuracy" else ", each stopped at its lowest validation loss"
    return Claim(
        name=f"the ticket beats every control at {density:g} %{where and ', stopped early'}",
        sentence=f"With {density:g} % of the weights a ticket is better than each of {len(CONTROLS)} controls{where}.",
        estimand=Every(parts=tuple(gain(ladder, TICKET, density, kind, density, metric) for kind in CONTROLS)),
        test="superiority",
        margin=margin,
        pilot_sd=sd,
        paper_note="one control was run",
        confirmatory=confirmatory,
    )


def transferred(ladder: str, density: float) -> tuple[Claim, ...]:
    """What is left of a ticket's gain on a fresh sample: of its mask and weights, and of its mask alone."""
    fresh = f"{TICKET}_{FRESH}"
    rows = (
        ("the gain on its own sample", TICKET, TICKET, 100.0),
        ("the gain on a fresh sample", fresh, fresh, 100.0),
        ("the gain of the mask on a fresh sample", f"reinit_{FRESH}", f"random_{FRESH}", density),
    )
    return tuple(
        Claim(
            name=f"{ladder}: {name}",
            sentence=f"At {density:g} % of the weights, {name} is positive.",
            estimand=gain(ladder, kind, density, other, at, "test_accuracy"),
            test="superiority",
            margin=0.01,
            pilot_sd=0.01,
            paper_note="not measured",
            confirmatory=False,
        )
        for name, kind, other, at in rows
    )


def described(
    ladder: str, kinds: Collection[str], density: float, margin: float, own_rates: bool = False
) -> tuple[Claim, ...]:
    """The ticket against the dense run and each control, one by one; with `own_rates` each at the rate tuned for it."""
    suffix, where = (f"_{TUNED}", ", each at its own learning rate") if own_rates else ("", "")
    ticket, found = f"{TICKET}{suffix}", []
    for kind in kinds:
        other, at = (ticket, 100.0) if kind == DENSE else (f"{kind}{suffix}", density)
        against = "the dense network" if kind == DENSE else f"its control: {TITLES[kind]}"
        found.append(
            Claim(
                name=f"{ladder}: ticket against {kind} at {density:g} %{where}",
                sentence=f"With {density:g} % of the weights a ticket is better than {against}{where}.",
                estimand=gain(ladder, ticket, density, other, at, "test_accuracy"),
                test="superiority",
                margin=margin,
                pilot_sd=margin / 2,
                confirmatory=False,
            )
        )
    return tuple(found)

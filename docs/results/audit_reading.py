"""What the published values of arXiv:2604.07603 say to each of its claims: the second column of docs/audit.md.

A function `(paper) → text` a claim, so that no number is typed. What a sentence says beside its numbers is held by
`must`, so that other values cannot leave it standing.
"""

import math
from itertools import pairwise

from paper_values import Difference, Paper, difference, exponent, half_width, initial_norm, slope

MLP, CNN = "MLP test accuracy, % at width", "CNN test accuracy, % at channels"
BATCH, RATE = "test accuracy, % at batch", "learning rate at batch"
LEFT = "test accuracy, % at remaining"
MOVED, WIDTH = "relative movement at width", "test accuracy, % at width"
SHARPEST = "top eigenvalue at batch"


def must(holds: bool, what: str) -> None:
    """A sentence below says so; with other values it would have to be another."""
    if not holds:
        raise SystemExit(
            f"by the values of the paper it is not true that {what}; correct docs/results/audit_reading.py"
        )


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def points(found: Difference) -> str:
    return f"{signed(found.estimate)} points [{signed(found.lower)}, {signed(found.upper)}]"


def between(paper: Paper, claim: str, quantity: str, a: float, b: float) -> Difference:
    series = paper.series(claim, quantity)
    return difference(series[a], series[b])


# Questions


def more_parameters(paper: Paper) -> str:
    best = max(paper.series("E5", WIDTH).items(), key=lambda pair: pair[1].value)
    parameters, examples = paper.number("E5", "parameters at width 4096"), paper.number("E5", "examples")
    return (
        f"The fact: {parameters:,.0f} parameters on {examples:,.0f} images test at {best[1].value:g} %, the best of "
        "all widths. Not the reason: no value joins the five experiments."
    )


def small_batches(paper: Paper) -> str:
    rate = paper.series("E2", RATE)
    varied = (rate[32].value / 32) / (rate[2048].value / 2048)
    return (
        "Yes, at equal epochs (E2). That the noise of SGD is the reason, no: steps differ "
        f"{steps(paper, 32) / steps(paper, 2048):.1f}-fold and lr per example {varied:.1f}-fold along with the batch."
    )


def steps(paper: Paper, batch: int) -> float:
    return paper.number("E2", "epochs") * math.ceil(paper.number("E2", "examples") / batch)


def beyond_threshold(paper: Paper) -> str:
    mlp, cnn = paper.series("E1", MLP), paper.series("E1", CNN)
    return (
        f"Yes: from the first width with 100 % train accuracy on, {signed(mlp[1024].value - mlp[32].value)} points "
        f"(MLP, 32 to 1024) and {signed(cnn[96].value - cnn[32].value)} (CNN, 32 to 96). A peak, no (E1)."
    )


def subnetworks(paper: Paper) -> str:
    dense = between(paper, "E4", LEFT, 30, 100)
    return (
        f"Sparse networks that train, yes: {points(dense)} at 30 %. Favourable initial weights, in part: they beat one "
        "control, fresh weights (E4)."
    )


# Statistics


def seeds(paper: Paper) -> str:
    held = [paper.number("statistics", f"seeds of E{number}") for number in range(1, 6)]
    widths = ", ".join(f"{half_width(n):.2f} (n = {n})" for n in (2, 3, 5))
    return (
        f"The raw results hold {', '.join(f'{n:.0f}' for n in held)} seeds for E1 to E5, and no interval or test with "
        f"them. In standard deviations, half a 95 % t interval of a mean is {widths}; of one seed there is none."
    )


def spread(paper: Paper) -> str:
    pair, other = paper.value("E1", f"{CNN} 8"), surviving(paper)
    return (
        f"It seems to be divided by n, not n − 1: if the failed seed of the CNN with 8 channels tests at chance, half "
        f"the difference of the two is {(other - 10) / 2:.1f}, and ± {pair.sd:g} is printed. Intervals below take ± as "
        f"that of a sample; else they are {math.sqrt(1.5):.2f} (three seeds) or {math.sqrt(2):.2f} times (two) as wide."
    )


def surviving(paper: Paper) -> float:
    """Test accuracy of the CNN with 8 channels that trained, where the other is at the chance of ten classes."""
    return 2 * paper.number("E1", f"{CNN} 8") - 10


# E1


def mlp_peak(paper: Paper) -> str:
    series = paper.series("E1", MLP)
    fallen = {b: series[a].value - series[b].value for a, b in pairwise(series) if series[b].value < series[a].value}
    (width, rise), *more = fallen.items()
    half = half_width(2) * (series[int(width)].sd or math.nan)
    must(not more and width == max(series), "the error of the MLP rises at the last width alone")
    return (
        f"No peak. Test error falls or stays at every width but the last, {width:g}, where it rises by {rise:.1f} "
        f"points. Two seeds leave ± {half:.1f} there, and no wider network was run in E1."
    )


def mlp_rise(paper: Paper) -> str:
    series = paper.series("E1", MLP)
    per_doubling = slope({width: each for width, each in series.items() if width >= 32})
    return (
        f"Yes: {series[32].value:g} to {series[1024].value:g} %, {signed(per_doubling)} points per doubling of the "
        f"width. All but {series[1024].value - series[128].value:.1f} of it is there at width 128."
    )


def cnn_peak(paper: Paper) -> str:
    series, failed = (
        paper.series("E1", CNN),
        paper.number("E1", "CNN train accuracy, % of the failed seed at channels 8"),
    )
    means = [surviving(paper) if channels == 8 else each.value for channels, each in series.items()]
    must(means == sorted(means), "without its failed seed the CNN is better the wider it is")
    return (
        f"No peak. At 8 channels one of two seeds failed ({failed:g} % train accuracy) and was averaged in. If it tests"
        f" at chance, the other has {surviving(paper):.1f} %, between its neighbours' {series[4].value:g} and "
        f"{series[16].value:g}: accuracy then rises throughout."
    )


def cnn_rise(paper: Paper) -> str:
    gain = between(paper, "E1", CNN, 96, 32)
    return f"Yes: {points(gain)}, two seeds each. The published code has no batch norm here, unlike its description."


# E2


def headline(paper: Paper) -> str:
    found = between(paper, "E2", BATCH, 32, 2048)
    must(found.lower > 0, "batch 32 beats batch 2048")
    return f"Yes, at equal epochs: {points(found)}, three seeds each."


def trend(paper: Paper) -> str:
    series = paper.series("E2", BATCH)
    falls = {f"{a:g} to {b:g}": difference(series[a], series[b]) for a, b in pairwise(series)}
    up = [(a, b) for a, b in pairwise(series) if series[b].value > series[a].value]
    clear = [name for name, found in falls.items() if found.lower > 0]
    must(len(up) == 1 and len(clear) == 1, "one step goes up and one has an interval above 0")
    (low, high) = up[0]
    return (
        f"A trend, yes: {signed(slope(series))} points per doubling over the seven means. At every step, no: {high:g} "
        f"is {series[high].value - series[low].value:.2f} above {low:g}, and of the {len(falls)} steps the interval of "
        f"one excludes 0, {clear[0]}."
    )


def scaling(paper: Paper) -> str:
    rates = {batch: each.value for batch, each in paper.series("E2", RATE).items()}
    relative = ", ".join(f"{batch:g}: {rate / (0.01 * batch / 128):.3g}" for batch, rate in rates.items())
    return f"No. Its rates over those of the rule, by batch: {relative}. Both ends bend towards equal rates."


def noise(paper: Paper) -> str:
    return (
        f"Open. {steps(paper, 32):,.0f} steps stand against {steps(paper, 2048):,.0f}. There is no arm of equal steps, "
        "none of equal loss and none with the rates of the rule."
    )


def adam(paper: Paper) -> str:
    other = difference(paper.value("E2", "test accuracy, % of Adam at batch 128"), paper.value("E2", f"{BATCH} 32"))
    must(other.lower < 0 < other.upper, "Adam and SGD do not differ")
    return f"Yes, to within these bounds: {points(other)}, at one rate each."


def full_batch(paper: Paper) -> str:
    rate, taken = paper.number("E2", "learning rate of full batch"), paper.number("E2", "steps of full batch")
    sgd = paper.number("E2", f"{RATE} 128") * steps(paper, 128)
    train, examples = (paper.number("E2", f"{name} of full batch") for name in ("train accuracy, %", "examples"))
    return (
        f"Not that: it was hardly trained. Its {taken:.0f} steps at {rate:g} on {examples:,.0f} images add up to a "
        f"rate of {rate * taken:g}, those of batch 128 to {sgd:.0f}, before annealing. Train accuracy is {train:g} %."
    )


def gaps(paper: Paper) -> str:
    full = paper.number("E2", "gap, points of full batch")
    apart = [
        abs(100 - paper.number("E2", f"{BATCH} {batch}") - paper.number("E2", f"gap, points at batch {batch}"))
        for batch in (32, 2048)
    ]
    must(max(apart) < 0.005, "gaps and test accuracies add up to 100")
    return (
        "Yes, but it is no second finding: at 100 % train accuracy the gap is 100 minus the test accuracy. The "
        f"smallest gap of all, {full:g}, is that of the full batch, which was hardly trained."
    )


# E3


def ratio_of(paper: Paper, quantity: str) -> float:
    return paper.number("E3", f"{quantity} 1024") / paper.number("E3", f"{quantity} 32")


def eigenvalues(paper: Paper) -> str:
    raw, rounded = ratio_of(paper, SHARPEST), ratio_of(paper, "top eigenvalue, rounded, at batch")
    loss = ratio_of(paper, "train loss at batch")
    return (
        f"Larger in this pair of runs, yes: {raw:.2f}, since {rounded:.2f} comes of two rounded values. There is no "
        f"interval. Train losses differ {loss:.1f}-fold; per unit of loss the ratio is {raw / loss:.2f}. "
        "Whether 30 power iterations were enough is not said."
    )


def better_too(paper: Paper) -> str:
    one = paper.number("E3", f"{BATCH} 32") - paper.number("E3", f"{BATCH} 1024")
    three = between(paper, "E2", BATCH, 32, 1024)
    return f"Yes, in sign: {one:.2f} is of one seed, where the three seeds of E2 give {points(three)}."


def fragile(paper: Paper) -> str:
    loss = ratio_of(paper, "train loss at batch")
    small, large = (paper.series("E3", f"loss increase at batch {batch}, % at noise") for batch in (32, 1024))
    percent = {sigma: large[sigma].value / small[sigma].value for sigma in small}
    turned = [sigma for sigma, each in percent.items() if each < 1]
    absolute = [loss * each for each in percent.values()]
    must(len(turned) == 1 and min(absolute) > 1, "the order turns at one noise in percent and at none in loss")
    bases = [paper.number("E3", f"train loss at batch {batch}") for batch in (32, 1024)]
    return (
        f"For this pair, yes, by loss: at every σ it rises more at batch 1024, {min(absolute):.1f} to "
        f"{max(absolute):.0f} times. In percent that is {min(percent.values()):.1f} to {max(percent.values()):.1f} "
        f"times, and the order turns at σ = {turned[0]:g}: percent divides by bases of {bases[0]:.1e} and "
        f"{bases[1]:.1e}, {loss:.1f}-fold apart."
    )


# E4


def pruned_some(paper: Paper) -> str:
    at = {kept: between(paper, "E4", LEFT, kept, 100) for kept in (70, 50, 30)}
    must(at[70].lower > 0 and max(at[50].lower, at[30].lower) < 0 < min(at[50].upper, at[30].upper), "70 % is better")
    must(at[30].lower > -1, "a loss of a point at 30 % is excluded")
    return (
        f"Better at 70 %, narrowly: {points(at[70])}. No change can be seen at 50 %, {points(at[50])}, nor at 30 %, "
        f"{points(at[30])}; a loss of a point at 30 % is excluded."
    )


def pruned_much(paper: Paper) -> str:
    at = {kept: between(paper, "E4", LEFT, kept, 100) for kept in (20, 10, 5)}
    must(at[10].upper < 0 and at[5].upper < 0 < at[20].upper, "10 % and 5 % are worse, and 20 % may not be")
    return f"Yes: {points(at[10])} at 10 % and {points(at[5])} at 5 %. At 20 % it is {points(at[20])}."


def initial_weights(paper: Paper) -> str:
    fresh = paper.value("E4", "test accuracy, % re-initialized at remaining 10")
    found = difference(paper.value("E4", f"{LEFT} 10"), fresh)
    must(found.lower > 0, "the first weights beat fresh ones")
    return (
        f"Yes, against fresh weights at one density and one learning rate: {points(found)}. Against masks that are "
        "random or shuffled, and against the signs alone, there is no value."
    )


# E5


def movement(paper: Paper) -> str:
    series = paper.series("E5", MOVED)
    ratio = series[32].value / series[4096].value
    return f"Yes: {ratio:.2f} times, exponent {signed(exponent(series))} over the eight widths."


def lazy(paper: Paper) -> str:
    series = paper.series("E5", MOVED)
    far = {width: series[width].value * initial_norm(width) for width in (32, 4096)}
    growth = initial_norm(4096) / initial_norm(32)
    return (
        f"No. PyTorch's initial norm grows {growth:.1f}-fold from 32 to 4096, so the movement itself is about "
        f"{far[32]:.1f} and {far[4096]:.1f}: all but a factor of {far[32] / far[4096]:.2f} is the norm divided by. No "
        "kernel, no linearization and no kernel regression was computed."
    )


def wider(paper: Paper) -> str:
    series = paper.series("E5", WIDTH)
    must(all(series[a].value < series[b].value for a, b in pairwise(series)), "each doubling tests better")
    first, last = series[32].value, series[4096].value
    return f"Yes: it rises at every doubling, {signed(slope(series))} points each on average ({first:g} to {last:g} %)."

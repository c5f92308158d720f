"""The study at each preset."""

from collections.abc import Mapping

from overparam.probes.connectivity import Connectivity
from overparam.probes.early_stop import EarlyStop
from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues
from overparam.probes.mask_profile import MaskProfile
from overparam.probes.tangent_kernel import TangentKernel
from overparam.specs import CNN, MLP, SGD, Adam, DataSpec, RunSpec, TrainSpec
from overparam.studies.lottery_ticket.arms import (
    CONTROLS,
    DENSE,
    ONE_SHOT,
    TICKET,
    Ladder,
    arm_name,
    by_density,
    by_layer,
    sizes_of,
)
from overparam.studies.lottery_ticket.claims import beats_every_control, described, published_claims, transferred
from overparam.studies.lottery_ticket.rates import RATES, tuned
from overparam.studies.study import Arm, Design, Designs, Probing

PERCENTS = (100, 70, 50, 30, 20, 10, 5)
LENET_ROUNDS = 20
LAPTOP_STEPS = 6000
LENET_TUNED = 9  # the round, 13.5 %, at which learning rates are tuned
LENET_CONTROLLED = (3, 7, 9, 12, 15, 18, 20)  # rounds that leave 51.3, 21.1, 13.5, 7, 3.6, 1.9 and 1.2 %
SIGNAL_PERCENTS = (100, 70, 50, 35, 25, 17, 12, 8)
FRESH_SAMPLE = 10_000  # the data seed of the sample that tickets are moved to
IMAGE, DIGIT, PHOTO, SIGNAL = (1, 28, 28), (1, 8, 8), (3, 32, 32), (40,)
KINDS = (DENSE, *CONTROLS)
EARLY_ACCURACY = "early_stop_accuracy"
CAPTION = (
    "Remaining weights in percent of all but biases and batch norm; arms of a network train at one learning rate where "
    "no other is named. A seed varies the initialization, the order of the examples, the fresh weights and the random "
    "masks; all seeds see the same examples."
)


def lenet(steps: int) -> Ladder:
    """LeNet-300-100 on MNIST: Adam at .0012, batch 60, 20/20/10 % per round.

    Source: Frankle & Carbin (2019); initial weights are PyTorch's uniform ones here, Glorot's normal ones there.
    """
    train = TrainSpec(optimizer=Adam(lr=1.2e-3), batch_size=60, steps=steps, schedule="constant")
    dense = RunSpec(data=DataSpec(name="mnist", num_val=5000), model=MLP(width=(300, 100)), train=train)
    rates = {"rest": 0.2, "last": 0.1}
    return by_layer("lenet", "LeNet-300-100", dense, sizes_of(dense, IMAGE), rates, LENET_ROUNDS)


def cnn(channels: int, num_train: int | None, train: TrainSpec, name: str = "cnn", step: int = 0) -> Ladder:
    """A CNN on CIFAR-10 at the paper's densities."""
    data = DataSpec(name="cifar10", num_train=num_train)
    dense = RunSpec(data=data, model=CNN(channels=channels), train=train)
    title = f"CNN, {channels} channels" + (f", rewound to step {step}" if step else "")
    return by_density(name, title, dense, sizes_of(dense, PHOTO), PERCENTS, step)


def signals() -> Ladder:
    """An MLP on MNIST-1D, of which there are as many fresh samples as wanted. Recipe: Greydanus & Kobak (2024)."""
    train = TrainSpec(optimizer=Adam(lr=5e-3), batch_size=100, steps=1500, schedule="constant")
    data = DataSpec(name="mnist1d", num_train=4000, num_test=4000)
    dense = RunSpec(data=data, model=MLP(width=(500, 500)), train=train)
    return by_density("signals", "MLP on MNIST-1D", dense, sizes_of(dense, SIGNAL), SIGNAL_PERCENTS)


def _rounds(*percents: int) -> tuple[int, ...]:
    return tuple(PERCENTS.index(percent) for percent in percents)


def _moved(ladder: Ladder) -> tuple[Arm, ...]:
    last = len(ladder.chain) - 1
    return (ladder.arm(TICKET, range(last + 1)), *ladder.transferred(last, FRESH_SAMPLE))


def _names(arms: tuple[Arm, ...]) -> tuple[str, ...]:
    return tuple(arm.name for arm in arms)


def _profiles(ladder: Ladder) -> Probing:
    """The masks of a ladder's tickets and of their shuffled controls, which share what chance gives."""
    densities = tuple(ladder.density(number) for number in range(1, len(ladder.chain)))
    arms = tuple(arm_name(ladder.name, kind) for kind in (TICKET, "shuffled"))
    return Probing(probe=MaskProfile(), arms=arms, levels=densities)


def _compared(ladder: Ladder) -> tuple[Probing, ...]:
    """The dense network, a ticket and its mask under fresh weights: two orders of the examples, curvature, kernel."""
    where = {"arms": (f"lenet_{TICKET}", "lenet_reinit"), "levels": (ladder.density(0), ladder.density(9))}
    probes = (Connectivity(), ExtremeEigenvalues(), TangentKernel(num_examples=32))
    return tuple(Probing.model_validate({"probe": probe, "num_seeds": 3, **where}) for probe in probes)


def _smoke() -> Design:
    train = TrainSpec(optimizer=Adam(lr=2e-3), batch_size=32, steps=300, schedule="constant")
    dense = RunSpec(data=DataSpec(name="digits", num_val=197), model=MLP(width=(60, 30)), train=train)
    ladder = by_density("digits", "MLP on digits", dense, sizes_of(dense, DIGIT), PERCENTS)
    arms = tuple(ladder.arms(_rounds(10), CONTROLS))
    names = {arm.name for arm in arms}
    every = beats_every_control("digits", 10, names, "test_accuracy", 0.01, 0.008, confirmatory=True)
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=arms,
        claims=(*published_claims("digits", 0.01, 0.008), every),
        budget_core_seconds=40.0,
        caption=f"Digits 8×8. {CAPTION}",
        probings=(Probing(probe=EarlyStop(every=20)), _profiles(ladder)),
        evaluations=1,
    )


def _lenet_design(
    ladder: Ladder,
    photos: Ladder,
    others: tuple[Arm, ...],
    margin: float,
    budget: float | None,
    caption: str,
    rates: Mapping[str, float] | None = None,
) -> Design:
    """All controls of LeNet, and again at `rates` of their own; the paper's claims are about the ladder `photos`."""
    mine = tuple(ladder.arms(LENET_CONTROLLED, CONTROLS))
    own = tuple(tuned(ladder, LENET_TUNED, rates)) if rates else ()
    names, density = {arm.name for arm in mine}, ladder.density(LENET_TUNED)
    every = beats_every_control("lenet", density, names, "test_accuracy", 0.001, 0.001, confirmatory=True)
    early = beats_every_control("lenet", density, names, EARLY_ACCURACY, 0.001, 0.001, confirmatory=False)
    at = [ladder.density(number) for number in (LENET_TUNED, 15)]
    singly = [claim for level in at for claim in described("lenet", KINDS, level, 0.001)]
    singly += described("lenet", KINDS, density, 0.001, own_rates=True) if own else ()
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=(*mine, *own, *others),
        claims=(
            *published_claims(photos.name, margin, margin),
            every,
            early,
            *singly,
            *transferred("signals", SIGNAL_PERCENTS[-1]),
        ),
        budget_core_seconds=budget,
        caption=f"{caption} {CAPTION}",
        probings=(
            Probing(probe=EarlyStop(), arms=_names((*mine, *own))),
            *(_profiles(each) for each in (ladder, photos)),
            *_compared(ladder),
        ),
        evaluations=1,
    )


def _laptop() -> Design:
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=128, epochs=10)
    ladder = cnn(8, 5000, train)
    arms = ladder.arms(_rounds(50, 20, 10, 5), ("reinit", "shuffled", ONE_SHOT), num_seeds=3)
    others = (*arms, *_moved(signals()))
    caption = (
        "MNIST, 55,000 images, LeNet-300-100, 6,000 steps where the source has 50,000, at 13.5 % also at a rate tuned "
        "for each arm on validation examples of pilot seeds; CIFAR-10, 5,000 images, three seeds."
    )
    return _lenet_design(lenet(LAPTOP_STEPS), ladder, others, 0.01, 8500.0, caption, RATES)


def _overnight() -> Design:
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=128, epochs=30)
    ladder, late = cnn(8, 5000, train), cnn(8, 5000, train, "cnn_late", step=100)
    rounds = range(1, len(PERCENTS))
    arms = (*ladder.arms(tuple(rounds), CONTROLS), *late.arms(_rounds(10, 5), ("reinit", "shuffled", ONE_SHOT)))
    others = (*arms, *_moved(signals()))
    caption = "MNIST, 55,000 images, LeNet-300-100, 20,000 steps where the source has 50,000; CIFAR-10, 5,000 images."
    return _lenet_design(lenet(20_000), ladder, others, 0.01, None, caption)


def _paper() -> Design:
    train = TrainSpec(optimizer=SGD(lr=0.01), batch_size=128, epochs=60)
    ladder = cnn(32, None, train)
    arms = tuple(ladder.arms(tuple(range(1, len(PERCENTS))), CONTROLS))
    names = {arm.name for arm in arms}
    every = beats_every_control("cnn", 10, names, "test_accuracy", 0.005, 0.003, confirmatory=True)
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=arms,
        claims=(*published_claims("cnn", 0.005, 0.003, comparable=True), every),
        caption=f"CIFAR-10, the paper's networks, pruned in rounds and at once. {CAPTION}",
        probings=(_profiles(ladder),),
    )


DESIGNS = Designs(
    {
        "smoke": _smoke,
        "laptop": _laptop,
        "overnight": _overnight,
        "paper": _paper,
    }
)

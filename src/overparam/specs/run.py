"""Specs: what a run, a claim and a study are. Frozen, closed, no tensors, cheap to build.

Everything in a `RunSpec` changes a trained network's numbers and is hashed (see `identity`). How a run is
executed (device, workers, store, evaluation cadence) is not in here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from overparam.identity import Spec
from overparam.specs.explain import nearest

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Activation = Literal["relu", "tanh", "erf", "gelu"]

# Sizes of the training pools whose size is known without reading them: batch ≥ n can be normalized to "full".
KNOWN_NUM_TRAIN: Mapping[str, int] = {"digits": 1297, "mnist1d": 4000, "mnist": 60_000, "cifar10": 50_000}


class DataSpec(Spec):
    """Which examples a network sees.

    `num_train`, `num_val` and `num_test` of `None` mean all there are; the validation examples are taken from
    the training pool and never overlap the training examples. `subset="balanced"` draws equal numbers per
    class with `data_seed`; `"first"` takes the first examples in stored order. `label_noise` is the exact share
    of training labels that are replaced, each by one of the other K − 1 classes, drawn once with `data_seed`.
    """

    name: str = Field(min_length=1)
    num_train: Count | None = None
    num_val: int = Field(default=0, ge=0)
    num_test: Count | None = None
    subset: Literal["balanced", "first"] = "balanced"
    label_noise: Fraction = 0.0
    normalize: bool = True
    data_seed: int = Field(default=0, ge=0)

    def known_num_train(self) -> int | None:
        """Number of training examples if it follows from the spec alone."""
        if self.num_train is not None:
            return self.num_train
        pool = KNOWN_NUM_TRAIN.get(self.name)
        return None if pool is None else pool - self.num_val


class MLP(Spec):
    """Fully connected network. `depth` counts linear layers; a tuple of widths implies its own depth.

    `parameterization="ntk"` draws weights from N(0, 1) and multiplies them by √2/√fan_in in the forward pass;
    `"standard"` is PyTorch's default initialization.
    """

    kind: Literal["mlp"] = "mlp"
    width: Count | tuple[Count, ...]
    depth: Count = 4
    activation: Activation = "relu"
    parameterization: Literal["standard", "ntk"] = "standard"
    bias: bool = True

    @model_validator(mode="before")
    @classmethod
    def _depth_of_tuple(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("width"), (tuple, list)):
            implied = len(values["width"]) + 1
            if values.get("depth", implied) != implied:
                raise ValueError(f"depth={values['depth']} but {implied - 1} widths make depth {implied}; omit depth")
            return {**values, "depth": implied}
        return values

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden widths, one per hidden layer."""
        return self.width if isinstance(self.width, tuple) else (self.width,) * (self.depth - 1)


class CNN(Spec):
    """Three blocks of two 3×3 convolutions with channels c, 2c, 4c, then 256 hidden units."""

    kind: Literal["cnn"] = "cnn"
    channels: Count
    batch_norm: bool = True
    activation: Activation = "relu"


class SGD(Spec):
    """Stochastic gradient descent with heavy-ball momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: PositiveFloat
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0)


class Adam(Spec):
    """Adam without weight decay."""

    kind: Literal["adam"] = "adam"
    lr: PositiveFloat
    betas: tuple[float, float] = (0.9, 0.999)

    @field_validator("betas")
    @classmethod
    def _betas_below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError("each beta must lie in [0, 1)")
        return betas


class TrainSpec(Spec):
    """How a network is trained. Exactly one of `epochs` and `steps` bounds the run.

    With `until_train_loss` the bound is only a cap: the run stops when the eval-mode loss on the whole
    training set lies within ±10 % of the smallest target, at a constant learning rate. Larger targets of a
    tuple are recorded on the way. The loss is looked at `loss_checks_per_epoch` times per epoch near a target.
    The cosine schedule is annealed per epoch, to 0 after the last.

    `linearize` trains the first-order Taylor model `f_θ0(x) + J_θ0(x)(θ − θ0)` around the initialization θ0, in eval
    mode: batch norm keeps its initial running statistics. `lazy_scale=α` trains `α (f_θ(x) − f_θ0(x))` on the loss
    divided by α² (Chizat, Oyallon & Bach 2019), α J_θ0(x)(θ − θ0) with `linearize`. All losses that are reported, and
    those that `until_train_loss` is compared with, are of that function and not divided; weight decay is added to the
    gradient of the divided loss. Adam takes the same steps whatever the loss is divided by, so that with it outputs
    move α times as fast instead.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"lazy_scale": None}

    optimizer: Annotated[SGD | Adam, Field(discriminator="kind")]
    batch_size: Count | Literal["full"]
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    until_train_loss: PositiveFloat | tuple[PositiveFloat, ...] | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    linearize: bool = False
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    loss_checks_per_epoch: int = Field(default=8, ge=8)
    lazy_scale: PositiveFloat | None = None

    @model_validator(mode="after")
    def _stops(self) -> "TrainSpec":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps (with until_train_loss it is the cap)")
        if self.until_train_loss is not None and self.schedule != "constant":
            raise ValueError('until_train_loss needs schedule="constant": a decaying rate freezes the loss instead')
        return self

    @field_validator("until_train_loss")
    @classmethod
    def _targets_descend(cls, value: Any) -> Any:
        if value == ():
            raise ValueError("an empty tuple names no target; allowed: losses > 0; leave it out for a fixed length")
        if isinstance(value, tuple) and list(value) != sorted(set(value), reverse=True):
            raise ValueError("targets must be distinct and descending, as a run meets them")
        return value

    @property
    def loss_targets(self) -> tuple[float, ...]:
        """Targets from the largest to the smallest; empty if the run stops by its length."""
        if self.until_train_loss is None:
            return ()
        return self.until_train_loss if isinstance(self.until_train_loss, tuple) else (self.until_train_loss,)


class Fresh(Spec):
    """Random initialization from the named stream of the run's seed."""

    kind: Literal["fresh"] = "fresh"
    stream: str = "init"


class Rewind(Spec):
    """Start from the whole state (weights, buffers, optimizer, schedule, order) that `of` had at `step`.

    `weights="final"` rewinds only schedule and order to `step` and keeps all else that `of` ended with: learning-rate
    rewinding (Renda, Frankle & Carbin 2020).
    """

    neutral: ClassVar[Mapping[str, Any]] = {"weights": "step"}

    kind: Literal["rewind"] = "rewind"
    of: "RunSpec"
    step: int = Field(default=0, ge=0)
    weights: Literal["step", "final"] = "step"


class SameSigns(Spec):
    """A fresh initialization of stream `stream` whose parameters take the signs they had in `of` at `step`."""

    kind: Literal["same_signs"] = "same_signs"
    of: "RunSpec"
    step: int = Field(default=0, ge=0)
    stream: str = "reinit"


class Dense(Spec):
    """No weight is pruned."""

    kind: Literal["dense"] = "dense"


class Magnitude(Spec):
    """Prune `round(fraction · remaining)` smallest weights of the trained network `of`, on top of its mask.

    Weights are the tensors of two or more dimensions; biases and batch norm are never pruned. A table of fractions has
    one per layer, by the tensor's name or by "first", "last" and "rest", and needs `scope="layer"`. Layers in `spare`
    are left out of the count and keep the mask they have.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"spare": ()}

    kind: Literal["magnitude"] = "magnitude"
    of: "RunSpec"
    fraction: Fraction | dict[str, Fraction]
    scope: Literal["global", "layer"] = "global"
    spare: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _rates_are_of_layers(self) -> "Magnitude":
        _refuse_rates(self.fraction, self.scope, self.spare)
        return self


class RandomMask(Spec):
    """Prune at random with the stream `stream`, `round(fraction · weights)` of each layer or of all.

    `"layer"` takes the same share, or its own of a table, from every layer; `"global"` draws from all weights alike;
    `"erdos_renyi"` keeps in each layer a share in proportion to `Σ dims / Π dims` (Mocanu et al. 2018), so many in all.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"spare": ()}

    kind: Literal["random"] = "random"
    fraction: Fraction | dict[str, Fraction]
    scope: Literal["global", "layer", "erdos_renyi"] = "layer"
    stream: str = "mask"
    spare: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _rates_are_of_layers(self) -> "RandomMask":
        _refuse_rates(self.fraction, self.scope, self.spare)
        return self


def _refuse_rates(fraction: float | Mapping[str, float], scope: str, spare: tuple[str, ...]) -> None:
    if isinstance(fraction, Mapping) and spare:
        raise ValueError(
            'a table of fractions spares a layer by giving it 0, or by having neither it nor "rest"; drop spare'
        )
    if isinstance(fraction, Mapping) and scope != "layer":
        raise ValueError(f'a table of fractions needs scope="layer", not "{scope}"; or give one number')


class ShuffledMask(Spec):
    """The mask of `of`, permuted within each layer: same counts, other positions."""

    kind: Literal["shuffled"] = "shuffled"
    of: "RunSpec"
    stream: str = "mask"


Init = Annotated[Fresh | Rewind | SameSigns, Field(discriminator="kind")]
Mask = Annotated[Dense | Magnitude | RandomMask | ShuffledMask, Field(discriminator="kind")]


class RunSpec(Spec):
    """Everything that changes a trained network's numbers.

    `streams={"order": 7}` draws one random stream from another seed. A batch size of at least the number of
    training examples is normalized to `"full"` before hashing.
    """

    is_run: ClassVar[bool] = True

    data: DataSpec
    model: Annotated[MLP | CNN, Field(discriminator="kind")]
    train: TrainSpec
    init: Init = Fresh()
    mask: Mask = Dense()
    seed: int = Field(default=0, ge=0)
    streams: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _full_batch(self) -> "RunSpec":
        known = self.data.known_num_train()
        if known is not None and self.train.batch_size != "full" and self.train.batch_size >= known:
            object.__setattr__(self, "train", self.train.model_copy(update={"batch_size": "full"}))
        return self

    @model_validator(mode="after")
    def _named(self) -> "RunSpec":
        """Its canonical text is made here, parents first, so that a chain of any length is named without recursion."""
        assert self.canonical_text
        return self

    @model_validator(mode="after")
    def _streams_exist(self) -> "RunSpec":
        named = [getattr(part, "stream", "init") for part in (self.init, self.mask)]
        known = sorted({"init", "mask", "order", *named})
        if unknown := sorted(self.streams.keys() - set(known)):
            hint = nearest(unknown[0], known)
            raise ValueError(f"streams.{unknown[0]}: no such stream; allowed: {', '.join(known)}{hint}")
        return self

    def stream_seed(self, purpose: str) -> int:
        """Seed of one random stream: the run's own unless `streams` overrides it."""
        return self.streams.get(purpose, self.seed)

    @property
    def first_step(self) -> int:
        """The step the run starts at: 0, or where it was rewound to."""
        return self.init.step if isinstance(self.init, Rewind) else 0

    def parents(self) -> tuple["RunSpec", ...]:
        """Runs that must be finished before this one starts."""
        return tuple(dict.fromkeys(part.of for part in (self.init, self.mask) if hasattr(part, "of")))

    def ancestry(self) -> Iterator["RunSpec"]:
        """Every run behind this one, each once, parents first, and this one last."""
        found: dict[RunSpec, None] = {}
        for parent in self.parents():
            found.update(dict.fromkeys(parent.ancestry()))
        yield from found
        yield self

    def states_wanted(self) -> tuple[tuple["RunSpec", int], ...]:
        """States, besides the last one, that this run takes from its parents."""
        match self.init:
            case Rewind(of=of, step=step, weights="step") | SameSigns(of=of, step=step):
                return ((of, step),)
            case _:
                return ()

    def with_parents(
        self, change: Callable[["RunSpec"], "RunSpec"], done: dict["RunSpec", "RunSpec"] | None = None
    ) -> "RunSpec":
        """This run and every run behind it, changed alike; `done` keeps what was changed, for the next run's sake."""
        done = {} if done is None else done
        if self not in done:
            parts = {name: getattr(self, name) for name in ("init", "mask")}
            moved = {
                name: part.model_copy(update={"of": part.of.with_parents(change, done)})
                for name, part in parts.items()
                if hasattr(part, "of")
            }
            done[self] = change(self.model_copy(update=moved) if moved else self)
        return done[self]

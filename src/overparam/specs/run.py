"""What a run is, as a value: frozen, closed, no tensors, cheap to build.

Everything in a `RunSpec` changes a trained network's numbers and is hashed (see `identity`). How a run is
executed (device, workers, store, evaluation cadence) is not in here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from overparam.foundations.words import nearest
from overparam.identity import Spec
from overparam.specs.data import DataSpec
from overparam.specs.fields import Fraction
from overparam.specs.models.every import AnyModel
from overparam.specs.train import TrainSpec


class FromRun(Spec):
    """A part of a run that is taken from another run, its parent `of`."""

    kind: str
    of: "RunSpec"


class Fresh(Spec):
    """Random initialization from the named stream of the run's seed."""

    kind: Literal["fresh"] = "fresh"
    stream: str = "init"


class Rewind(FromRun):
    """Start from the whole state (weights, buffers, optimizer, schedule, order) that `of` had at `step`.

    `weights="final"` rewinds only schedule and order to `step` and keeps all else that `of` ended with: learning-rate
    rewinding (Renda, Frankle & Carbin 2020).
    """

    neutral: ClassVar[Mapping[str, Any]] = {"weights": "step"}

    kind: Literal["rewind"] = "rewind"
    step: int = Field(default=0, ge=0)
    weights: Literal["step", "final"] = "step"


class SameSigns(FromRun):
    """A fresh initialization of stream `stream` whose parameters take the signs they had in `of` at `step`."""

    kind: Literal["same_signs"] = "same_signs"
    step: int = Field(default=0, ge=0)
    stream: str = "reinit"


class Dense(Spec):
    """No weight is pruned."""

    kind: Literal["dense"] = "dense"


class Magnitude(FromRun):
    """Prune `round(fraction · remaining)` smallest weights of the trained network `of`, on top of its mask.

    Weights are the tensors of two or more dimensions; biases and batch norm are never pruned. A table of fractions has
    one per layer, by the tensor's name or by "first", "last" and "rest", and needs `scope="layer"`. Layers in `spare`
    are left out of the count and keep the mask they have.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"spare": ()}

    kind: Literal["magnitude"] = "magnitude"
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


class ShuffledMask(FromRun):
    """The mask of `of`, permuted within each layer: same counts, other positions."""

    kind: Literal["shuffled"] = "shuffled"
    stream: str = "mask"


AnyInit = Annotated[Fresh | Rewind | SameSigns, Field(discriminator="kind")]
AnyMask = Annotated[Dense | Magnitude | RandomMask | ShuffledMask, Field(discriminator="kind")]


class RunSpec(Spec):
    """Everything that changes a trained network's numbers.

    `streams={"order": 7}` draws one random stream from another seed. A batch size of at least the number of
    training examples is normalized to `"full"` before hashing.
    """

    is_run: ClassVar[bool] = True

    data: DataSpec
    model: AnyModel
    train: TrainSpec
    init: AnyInit = Fresh()
    mask: AnyMask = Dense()
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
        known = sorted({"init", "mask", "order", self.init_stream, self.mask_stream})
        if unknown := sorted(self.streams.keys() - set(known)):
            hint = nearest(unknown[0], known)
            raise ValueError(f"streams.{unknown[0]}: no such stream; allowed: {', '.join(known)}{hint}")
        return self

    def stream_seed(self, purpose: str) -> int:
        """Seed of one random stream: the run's own unless `streams` overrides it."""
        return self.streams.get(purpose, self.seed)

    @property
    def init_stream(self) -> str:
        """Stream that its fresh weights are drawn from. A rewound run takes those of another run instead."""
        return self.init.stream if isinstance(self.init, Fresh | SameSigns) else "init"

    @property
    def mask_stream(self) -> str:
        """Stream that its mask is drawn from, if it is a random one."""
        return self.mask.stream if isinstance(self.mask, RandomMask | ShuffledMask) else "mask"

    @property
    def first_step(self) -> int:
        """The step the run starts at: 0, or where it was rewound to."""
        return self.init.step if isinstance(self.init, Rewind) else 0

    @property
    def inherited(self) -> dict[str, FromRun]:
        """Its parts that are taken from other runs, by the name of their field."""
        parts = {"init": self.init, "mask": self.mask}
        return {name: part for name, part in parts.items() if isinstance(part, FromRun)}

    def parents(self) -> tuple["RunSpec", ...]:
        """Runs that must be finished before this one starts."""
        return tuple(dict.fromkeys(part.of for part in self.inherited.values()))

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
            moved = {
                name: part.model_copy(update={"of": part.of.with_parents(change, done)})
                for name, part in self.inherited.items()
            }
            done[self] = change(self.model_copy(update=moved) if moved else self)
        return done[self]

"""What is missing, parents first, with the probes that the store lacks, and what it costs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from overparam.data.types import DataError
from overparam.identity import RunId, run_id
from overparam.lab.backends.jobs import Job
from overparam.lab.costs import CostModel, Throughput
from overparam.lab.experiment import Experiment
from overparam.probes.probe import Probe, probe_id
from overparam.runs.checks import refuse_unsupported
from overparam.runs.execution import Execution
from overparam.runs.store import Store
from overparam.runs.training.timetable import Timetable
from overparam.runs.verified import stored
from overparam.specs.run import RunSpec


@dataclass(frozen=True)
class Planned:
    """A run in a plan: its job, what must be finished before, whether it is trained, and whether all is there."""

    job: Job
    needs: frozenset[RunId]
    trained: bool
    cached: bool


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep and their parents, each once, parents first."""

    runs: tuple[Planned, ...]

    @cached_property
    def missing(self) -> tuple[Planned, ...]:
        return tuple(run for run in self.runs if not run.cached)


def make_plan(
    specs: Iterable[RunSpec],
    execution: Execution,
    probes: Mapping[RunId, Sequence[Probe]] | None = None,
    evaluations: Mapping[RunId, int] | None = None,
) -> Plan:
    """Every distinct run behind `specs` with the states that others want of it and the probes that the store lacks.

    Raises:
        UnsupportedSpec: a run cannot be trained by this version.
        StoreError: a stored run was trained on other data than its spec decodes to now.
    """
    found = _Collection(Store(execution.store), probes or {})
    for spec in specs:
        refuse_unsupported(spec)
        found.add(spec)
    return Plan(tuple(_planned(job, execution) for job in found.jobs(evaluations or {})))


@dataclass
class _Collection:
    """Runs by their id, parents first; the steps that others want of each, and its probes that are not stored yet."""

    store: Store
    probes: Mapping[RunId, Sequence[Probe]]
    specs: dict[RunId, RunSpec] = field(default_factory=dict)
    steps: dict[RunId, set[int]] = field(default_factory=dict)
    unmeasured: dict[RunId, tuple[Probe, ...]] = field(default_factory=dict)

    def add(self, spec: RunSpec) -> None:
        """Take in a run after those that it or its probes need."""
        identity = run_id(spec)
        if identity in self.specs:
            return
        asked = dict.fromkeys(self.probes.get(identity, ()))
        unmeasured = tuple(probe for probe in asked if not self.store.has_measurement(identity, probe_id(probe)))
        compared = (other for probe in unmeasured for other in probe.siblings(spec))
        for each in (*spec.parents(), *compared):
            self.add(each)
        for of, step in spec.states_wanted():
            self.steps.setdefault(run_id(of), set()).add(step)
        self.specs[identity], self.unmeasured[identity] = spec, unmeasured

    def jobs(self, evaluations: Mapping[RunId, int]) -> Iterator[Job]:
        for identity, spec in self.specs.items():
            probes = self.unmeasured[identity]
            ahead = (steps_ahead(spec, probe) for probe in probes)
            steps = frozenset(self.steps.get(identity, set()).union(*ahead))
            yield Job(identity, spec, steps, probes, evaluations.get(identity))


def _planned(job: Job, execution: Execution) -> Planned:
    states = stored(job.spec, execution)["states"] if Store(execution.store).has(job.run_id) else None
    trained = states is not None and job.save_steps <= {int(step) for step in states}
    needs = frozenset(run_id(parent) for parent in job.spec.parents())  # a probe that needs a sibling waits for it
    return Planned(job, needs, trained, cached=trained and not job.probes)


def steps_ahead(spec: RunSpec, probe: Probe) -> frozenset[int]:
    """Steps that a probe will want of a run, where they are known before it: its length must follow from the spec."""
    num_train = spec.data.known_num_train()
    if len(probe.at) == 1 or num_train is None or spec.train.loss_targets:
        return frozenset()
    return frozenset(probe.looks(spec.first_step, Timetable(spec.train, num_train).total_steps))


def cost_of(
    plan: Plan, experiments: Iterable[Experiment], costs: CostModel, *, unreadable_is_free: bool = False
) -> dict[RunId, float]:
    """Core-seconds of every missing run, by runs of the same kind.

    With `unreadable_is_free` a run whose data cannot be read costs 0: it fails when its turn comes, and others do not.

    Raises:
        DataError: the data of a run is missing or damaged.
    """
    share: dict[RunId, float] = {}
    for item in experiments:
        expected = {(arm.name, each.value): each.expected_share for arm in item.design.arms for each in arm.levels}
        share |= {run_id(cell.spec): expected[cell.arm, cell.level] for cell in item.cells}
    found: dict[RunId, float] = {}
    for run in plan.missing:
        identity = run.job.run_id
        try:
            found[identity] = _cost(run, share.get(identity, 1.0), costs)
        except DataError:
            if not unreadable_is_free:
                raise
            found[identity] = 0.0
    return found


def timed(spec: RunSpec, execution: Execution) -> Throughput:
    """What steps and evaluations of a run take on this machine; torch is loaded only where something is timed."""
    from overparam.lab.throughput import measured_throughput

    return measured_throughput(spec, execution)


def _cost(run: Planned, share: float, costs: CostModel) -> float:
    """Training if it is not there yet, or once more if it lacks a state that a probe wants, and the probes."""
    spec, probes = run.job.spec, run.job.probes
    training = 0.0 if run.trained else costs.seconds(spec, share, run.job.evaluations)
    return training + costs.probe_seconds(spec, probes)


def plan_of(items: Sequence[Experiment], execution: Execution) -> Plan:
    """Every run of the experiments once, with the probes that any of them takes of it."""
    probes: dict[RunId, list[Probe]] = {}
    evaluations: dict[RunId, int] = {}
    for item in items:
        for cell in item.cells:
            identity, usual = run_id(cell.spec), item.design.evaluations or execution.evaluations
            probes.setdefault(identity, []).extend(item.design.probes_of(cell))
            evaluations[identity] = max(usual, evaluations.get(identity, 0))  # as often as any of the studies wants
    return make_plan((spec for item in items for spec in item.specs), execution, probes, evaluations)

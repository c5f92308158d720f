"""Plan (what is missing, parents first, what it costs) and carry out, on any backend."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from overparam.identity import RunId, run_id
from overparam.lab.backends.jobs import Backend, Job, Outcome
from overparam.probes.every import Measured, probe_id
from overparam.runs.execution import Execution
from overparam.runs.store import Store
from overparam.runs.training.timetable import Timetable
from overparam.runs.verified import refuse_unsupported, stored
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
    probes: Mapping[RunId, Sequence[Measured]] | None = None,
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
    probes: Mapping[RunId, Sequence[Measured]]
    specs: dict[RunId, RunSpec] = field(default_factory=dict)
    steps: dict[RunId, set[int]] = field(default_factory=dict)
    unmeasured: dict[RunId, tuple[Measured, ...]] = field(default_factory=dict)

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


def steps_ahead(spec: RunSpec, probe: Measured) -> frozenset[int]:
    """Steps that a probe will want of a run, where they are known before it: its length must follow from the spec."""
    num_train = spec.data.known_num_train()
    if len(probe.at) == 1 or num_train is None or spec.train.loss_targets:
        return frozenset()
    return frozenset(probe.looks(spec.first_step, Timetable(spec.train, num_train).total_steps))


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands: counts of runs, and the last outcome."""

    total: int
    cached: int
    done: int
    failed: int
    running: int
    seconds_left: float
    last: Outcome | None


@dataclass(frozen=True)
class Swept:
    """How a sweep ended. `failures` maps runs to one sentence each."""

    finished: int
    failures: Mapping[RunId, str]
    interrupted: bool


@contextmanager
def interrupts_counted() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, instead of an exception that could hit between taking an outcome and noting it.

    The second Ctrl-C raises `KeyboardInterrupt` as usual. Where SIGINT is ignored it stays ignored.
    """
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    ours = before is not signal.SIG_IGN and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _longest_ways(plan: Plan, costs: Mapping[RunId, float]) -> dict[RunId, float]:
    """Cost of each missing run with the longest chain of runs that wait for it: rounds of pruning take turns."""
    longest: dict[RunId, float] = {}
    behind: dict[RunId, float] = {}
    for run in reversed(plan.missing):  # children come after their parents
        identity = run.job.run_id
        longest[identity] = costs.get(identity, 0.0) + behind.get(identity, 0.0)
        for parent in run.needs:
            behind[parent] = max(behind.get(parent, 0.0), longest[identity])
    return longest


class Scheduler:
    """Keeps a backend busy with runs whose parents are finished, those with the most work behind them first."""

    def __init__(self, plan: Plan, costs: Mapping[RunId, float], backend: Backend) -> None:
        self.plan, self.costs, self.backend = plan, costs, backend
        ahead = _longest_ways(plan, costs)
        self.waiting = sorted(plan.missing, key=lambda run: -ahead[run.job.run_id])
        self.running: dict[RunId, Planned] = {}
        self.unfinished = {run.job.run_id for run in plan.missing}
        self.failures: dict[RunId, str] = {}
        self.retried: set[RunId] = set()
        self.core_seconds, self.done, self.stopping = 0.0, 0, False
        self.estimated_done = 0.0

    def run(self, on_progress: Callable[[Progress], None]) -> Swept:
        """Work until nothing is left that can be run. Ctrl-C lets running work reach a checkpoint."""
        on_progress(self.progress(None))
        with interrupts_counted() as interrupted:
            while self.fill() or self.running:
                outcome = self.backend.next_outcome(timeout=0.5)
                if interrupted() and not self.stopping:
                    self.stopping = True
                    self.backend.stop()
                if outcome is not None:
                    self.take(outcome)
                on_progress(self.progress(outcome))
        return Swept(self.done, self.failures, self.stopping)

    def fill(self) -> bool:
        """Submit what is ready; true if something was."""
        submitted = False
        while not self.stopping and len(self.running) < self.backend.capacity:
            ready = next((run for run in self.waiting if not run.needs & self.unfinished), None)
            if ready is None:
                break
            self.waiting.remove(ready)
            self.running[ready.job.run_id] = ready
            self.backend.submit(ready.job)
            submitted = True
        return submitted

    def take(self, outcome: Outcome) -> None:
        planned = self.running.pop(outcome.run_id)
        self.core_seconds += outcome.seconds
        if outcome.lost and outcome.run_id not in self.retried and not self.stopping:
            self.retried.add(outcome.run_id)
            self.waiting.insert(0, planned)
        elif outcome.error is not None and outcome.trained:  # a probe failed: what starts from the run can go on
            self.failures[outcome.run_id] = outcome.error
            self.unfinished.discard(outcome.run_id)
        elif outcome.error is not None:
            self.fail(outcome.run_id, outcome.error)
        elif not outcome.interrupted:
            self.done += 1
            self.estimated_done += self.costs.get(outcome.run_id, 0.0)
            self.unfinished.discard(outcome.run_id)

    def fail(self, identity: RunId, error: str) -> None:
        """A failed run takes its descendants with it."""
        self.failures[identity] = error
        lost = [run for run in self.waiting if identity in run.needs]
        self.waiting = [run for run in self.waiting if run not in lost]
        for run in lost:
            self.fail(run.job.run_id, f"its parent {identity} failed")

    def progress(self, last: Outcome | None) -> Progress:
        left = sum(self.costs.get(run.job.run_id, 0.0) for run in (*self.waiting, *self.running.values()))
        pace = self.core_seconds / self.estimated_done if self.estimated_done else 1.0
        return Progress(
            total=len(self.plan.runs),
            cached=len(self.plan.runs) - len(self.plan.missing),
            done=self.done,
            failed=len(self.failures),
            running=len(self.running),
            seconds_left=pace * left / max(1, self.backend.capacity),
            last=last,
        )

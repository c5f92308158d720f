"""Carries a plan out on any backend, runs with the most work behind them first. Ctrl-C stops at checkpoints."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from overparam.identity import RunId
from overparam.lab.backends.jobs import Backend, Outcome
from overparam.lab.plan import Plan, Planned


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


def default_workers() -> int:
    """One worker per core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

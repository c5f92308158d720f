"""Scheduling: parents first, every run once, failures take their children along, lost workers are replaced."""

import signal
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from overparam.identity import RunId, run_id
from overparam.lab.backends.choose import open_backend
from overparam.lab.backends.jobs import Job, Outcome
from overparam.lab.plan import Plan, make_plan
from overparam.lab.schedule import Scheduler, Swept, interrupts_counted
from overparam.probes.connectivity import Connectivity
from overparam.probes.hessian_trace import HessianTrace
from overparam.probes.probe import probe_id
from overparam.probes.taking import execute_and_measure
from overparam.probes.weight_noise import WeightNoise
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.specs import MLP, SGD, DataSpec, Rewind, RunSpec, ShuffledMask, TrainSpec


def spec(seed: int = 0, **fields: object) -> RunSpec:
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=32, epochs=1)
    base = {"data": DataSpec(name="digits", num_train=100), "model": MLP(width=8), "train": train, "seed": seed}
    return RunSpec.model_validate(base | fields)


def child(parent: RunSpec, step: int = 2) -> RunSpec:
    return spec(init=Rewind(of=parent, step=step))


class FakeBackend:
    """Answers in order of submission; some runs fail, some lose their worker."""

    def __init__(self, errors: dict[RunId, str] | None = None, lose: dict[RunId, int] | None = None) -> None:
        self.capacity = 2
        self.errors, self.lose = errors or {}, lose or {}
        self.queue: deque[Job] = deque()
        self.order: list[RunId] = []
        self.interrupt_at: int | None = None
        self.stopped = False

    def submit(self, job: Job) -> None:
        self.queue.append(job)
        self.order.append(job.run_id)

    def next_outcome(self, timeout: float) -> Outcome | None:
        if self.interrupt_at == len(self.order):
            self.interrupt_at = None
            signal.raise_signal(signal.SIGINT)
        job = self.queue.popleft()
        if self.stopped:
            return Outcome(job.run_id, 1.0, interrupted=True)
        if self.lose.get(job.run_id, 0) > 0:
            self.lose[job.run_id] -= 1
            return Outcome(job.run_id, 0.0, error="the worker process died", lost=True)
        return Outcome(job.run_id, 1.0, error=self.errors.get(job.run_id))

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.stopped = True


def work(plan: Plan, backend: FakeBackend) -> Swept:
    return Scheduler(plan, {}, backend).run(lambda progress: None)


def test_plan_holds_parents_first_each_once_with_the_states_children_need(tmp_path: Path) -> None:
    parent = spec()
    plan = make_plan([child(parent, 2), child(parent, 3), parent], Execution(store=tmp_path))
    assert [run.job.run_id for run in plan.runs] == [run_id(parent), run_id(child(parent, 2)), run_id(child(parent, 3))]
    assert plan.runs[0].job.save_steps == {2, 3}
    assert plan.runs[1].needs == {run_id(parent)}


def test_plan_refuses_what_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSpec, match="no mask to shuffle"):
        make_plan([spec(mask=ShuffledMask(of=spec()))], Execution(store=tmp_path))


def test_the_store_is_asked_once_for_each_probe_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def has_measurement(store: Store, identity: RunId, probe: str) -> bool:
        asked.append((identity, probe))
        return False

    monkeypatch.setattr(Store, "has_measurement", has_measurement)
    probes = [HessianTrace(), Connectivity()]
    plan = make_plan([spec(), child(spec())], Execution(store=tmp_path), {run_id(spec()): probes})
    assert sorted(asked) == sorted((run_id(spec()), probe_id(probe)) for probe in probes)
    assert [run.job.probes for run in plan.runs] == [(), tuple(probes), ()], "the sibling, the run, its child"


def test_a_run_on_less_data_than_its_name_says_can_be_followed(tmp_path: Path) -> None:
    """A plan takes "mnist" for 60,000 images: some steps at which it wants states do not exist in a smaller folder."""
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    x, y = np.arange(64 * 16, dtype=np.uint8).reshape(64, 4, 4), np.arange(64) % 4
    np.savez(tmp_path / "data" / "mnist" / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    followed, probe = spec(data=DataSpec(name="mnist")), WeightNoise(sigmas=(0.1,), at=(0.0, 0.5, 1.0))
    execution = Execution(store=tmp_path / "runs", data_dir=tmp_path / "data")
    probes = {run_id(followed): [probe]}
    job = make_plan([followed], execution, probes).runs[0].job
    assert max(job.save_steps) == 1875
    execute_and_measure(Setting(followed, execution), job.save_steps, job.probes, lambda: False)
    rows = Store(execution.store).measurement(job.run_id, probe_id(probe))["rows"]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert make_plan([followed], execution, probes).missing == ()


def test_children_wait_for_their_parents(tmp_path: Path) -> None:
    parent, other = spec(), spec(1)
    backend = FakeBackend()
    swept = work(make_plan([child(child(parent)), other], Execution(store=tmp_path)), backend)
    assert swept.finished == 4
    order = backend.order
    assert order.index(run_id(parent)) < order.index(run_id(child(parent))) < order.index(run_id(child(child(parent))))


def test_costliest_runs_start_first(tmp_path: Path) -> None:
    specs = [spec(seed) for seed in range(4)]
    costs = {run_id(s): float(i) for i, s in enumerate(specs)}
    backend = FakeBackend()
    Scheduler(make_plan(specs, Execution(store=tmp_path)), costs, backend).run(lambda progress: None)
    assert backend.order == [run_id(s) for s in reversed(specs)]


def test_long_chains_start_before_single_runs(tmp_path: Path) -> None:
    """Else the rounds of a ticket are left for the end, one after the other on one of many cores."""
    chain = child(child(child(spec())))
    others = [spec(seed) for seed in range(1, 4)]
    costs = {run_id(s): 1.0 for s in chain.ancestry()} | {run_id(s): 2.0 for s in others}
    backend = FakeBackend()
    plan = make_plan([*others, chain], Execution(store=tmp_path))
    Scheduler(plan, costs, backend).run(lambda progress: None)
    first, second, *_ = (backend.order.index(run_id(s)) for s in chain.ancestry())
    assert first == 0 and second < max(backend.order.index(run_id(s)) for s in others)


def test_a_failure_takes_its_descendants_and_nothing_else(tmp_path: Path) -> None:
    parent, other = spec(), spec(1)
    plan = make_plan([child(child(parent)), other], Execution(store=tmp_path))
    swept = work(plan, FakeBackend({run_id(parent): "boom"}))
    assert swept.finished == 1
    assert swept.failures[run_id(parent)] == "boom"
    assert "its parent" in swept.failures[run_id(child(parent))]
    assert len(swept.failures) == 3


def test_a_run_whose_parents_both_fail_fails_once(tmp_path: Path) -> None:
    """A pruned and rewound run has two parents, one the descendant of the other."""
    first, second, third = spec(0), child(spec(0)), spec(2)
    runs = make_plan([first, second, third], Execution(store=tmp_path)).runs
    both = replace(runs[2], needs=frozenset({run_id(first), run_id(second)}))
    swept = work(Plan((*runs[:2], both)), FakeBackend({run_id(first): "boom"}))
    assert (swept.finished, len(swept.failures)) == (0, 3)


@pytest.mark.parametrize(("losses", "finished"), [(1, 1), (2, 0)])
def test_a_lost_run_is_tried_once_more(tmp_path: Path, losses: int, finished: int) -> None:
    plan = make_plan([spec()], Execution(store=tmp_path))
    assert work(plan, FakeBackend(lose={run_id(spec()): losses})).finished == finished


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches the process, which a shell turns off for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_lets_running_work_end_and_starts_nothing(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.interrupt_at = 2
    swept = work(make_plan([spec(seed) for seed in range(6)], Execution(store=tmp_path)), backend)
    assert swept.interrupted
    assert (swept.finished, len(backend.order)) == (1, 2), "the outcome that came with Ctrl-C counts"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_raises() -> None:
    with interrupts_counted() as pressed:
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_local_workers_give_the_bits_of_one_process(tmp_path: Path) -> None:
    from overparam.runs.execute import execute
    from overparam.runs.setting import Setting

    specs = [spec(seed) for seed in range(3)] + [child(spec())]
    execution = Execution(store=tmp_path / "two")
    backend = open_backend("local", 2, execution)
    try:
        swept = Scheduler(make_plan(specs, execution), {}, backend).run(lambda progress: None)
    finally:
        backend.close()
    assert (swept.finished, swept.failures) == (4, {})
    for each in specs:
        alone = execute(Setting(each, Execution(store=tmp_path / "one")), frozenset({2}))
        together = Store(execution.store).result(run_id(each))["states"]
        final = str(alone.result["steps"])
        assert together[final] == alone.result["states"][final]


def test_a_worker_that_dies_is_replaced_and_its_run_finished(tmp_path: Path) -> None:
    slow = spec(train=TrainSpec(optimizer=SGD(lr=0.05), batch_size=1, epochs=40))
    execution = Execution(store=tmp_path)
    backend = open_backend("local", 1, execution)
    killed: list[int] = []

    def kill_once(progress: object) -> None:
        for worker in list(backend.busy.values()) if not killed else []:  # type: ignore[attr-defined]
            killed.append(worker.process.pid)
            worker.process.kill()

    try:
        swept = Scheduler(make_plan([slow], Execution(store=tmp_path)), {}, backend).run(kill_once)
    finally:
        backend.close()
    assert killed
    assert (swept.finished, swept.failures) == (1, {})


def test_an_error_in_a_worker_is_one_sentence_and_its_traceback_is_kept(tmp_path: Path) -> None:
    missing = spec(data=DataSpec(name="nowhere", num_train=10))
    execution = Execution(store=tmp_path / "runs", data_dir=tmp_path)
    backend = open_backend("local", 1, execution)
    try:
        plan = make_plan([missing], execution)
        swept = Scheduler(plan, {}, backend).run(lambda progress: None)
    finally:
        backend.close()
    sentence = swept.failures[run_id(missing)]
    assert '"nowhere" is not embedded' in sentence
    assert "Traceback" in (tmp_path / "runs" / "failures" / f"{run_id(missing)}.txt").read_text()


def test_unknown_backends_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='unknown backend "moon" for --on .on="…".; this version has: local'):
        open_backend("moon", 1, Execution(store=tmp_path))

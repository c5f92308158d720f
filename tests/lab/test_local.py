"""Local workers that die at the worst moment: no job is forgotten, nothing hangs, nothing raises."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from overparam.identity import run_id
from overparam.lab.backends.jobs import Job
from overparam.lab.backends.local import LocalBackend, _Worker
from overparam.runs.execution import Execution
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec

TIMEOUT = 60.0


def job() -> Job:
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=32, epochs=1)
    spec = RunSpec(data=DataSpec(name="digits", num_train=100), model=MLP(width=8), train=train)
    return Job(run_id(spec), spec, frozenset())


def die(worker: _Worker) -> None:
    """Kill a worker and wait until its reader thread has done all that it does about it."""
    worker.process.kill()
    worker.reader.join(TIMEOUT)
    assert not worker.reader.is_alive()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    made = LocalBackend(1, Execution(store=tmp_path))
    yield made
    made.close()


def test_a_worker_that_dies_while_idle_gets_no_job(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would report it, and the sweep would wait for ever."""
    worker = _Worker(backend)
    backend.idle.append(worker)
    die(worker)
    monkeypatch.setattr(worker.process, "poll", lambda: None)  # as if it died right after it was asked
    backend.submit(job())
    outcome = backend.next_outcome(TIMEOUT)
    assert outcome is not None and (outcome.run_id, outcome.error) == (job().run_id, None)
    assert worker.process.stdout is not None and worker.process.stdout.closed


def test_a_worker_that_dies_before_its_job_reaches_it_loses_the_job(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = _Worker.send

    def too_late(worker: _Worker, job: Job) -> None:
        die(worker)
        send(worker, job)

    monkeypatch.setattr(_Worker, "send", too_late)
    backend.submit(job())
    outcome = backend.next_outcome(TIMEOUT)
    assert outcome is not None and outcome.lost and outcome.run_id == job().run_id
    assert outcome.error == "the worker process died (exit status -9)"
    assert backend.next_outcome(0.0) is None and not backend.idle and not backend.busy


def test_a_worker_that_just_died_can_be_told_to_stop(backend: LocalBackend) -> None:
    """Whoever stops all workers may hold one whose pipes its reader thread has closed since."""
    backend.submit(job())
    (worker,) = backend.workers()
    die(worker)
    worker.tell_stop()
    worker.end()

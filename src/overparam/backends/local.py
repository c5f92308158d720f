"""Local worker processes, one torch thread each.

On small networks two single-threaded processes do about twice the work of one process with two threads.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading

from overparam.backends.jobs import STOP, Job, Outcome, execution_to_json
from overparam.execution import Execution


class LocalBackend:
    """`workers` processes on this machine. A dead worker is replaced and its job reported as lost."""

    def __init__(self, workers: int, execution: Execution) -> None:
        self.capacity = workers
        self.execution = execution
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.idle: list[_Worker] = []
        self.busy: dict[str, _Worker] = {}
        self.lock = threading.Lock()

    def submit(self, job: Job) -> None:
        with self.lock:
            self.idle = [worker for worker in self.idle if worker.process.poll() is None]
            worker = self.idle.pop() if self.idle else _Worker(self)
            self.busy[job.run_id] = worker
        worker.send(job)

    def next_outcome(self, timeout: float) -> Outcome | None:
        try:
            return self.outcomes.get(timeout=timeout)
        except queue.Empty:
            return None

    def finished(self, worker: "_Worker", outcome: Outcome) -> None:
        """Called by a worker's reader thread."""
        with self.lock:
            del self.busy[outcome.run_id]
            if not outcome.lost:
                self.idle.append(worker)
        self.outcomes.put(outcome)

    def stop(self) -> None:
        with self.lock:
            for worker in (*self.idle, *self.busy.values()):
                worker.tell_stop()

    def close(self) -> None:
        self.stop()
        with self.lock:
            workers = [*self.idle, *self.busy.values()]
        for worker in workers:
            worker.end()


class _Worker:
    """One process and the thread that reads its answers."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend
        threads = str(backend.execution.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "overparam.backends.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,  # Ctrl-C is the parent's business
        )
        self.job: Job | None = None
        self._write(json.dumps(execution_to_json(backend.execution)))
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def send(self, job: Job) -> None:
        self.job = job
        self._write(json.dumps(job.to_json()))

    def tell_stop(self) -> None:
        self._write(STOP)

    def end(self) -> None:
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.release()

    def release(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the reader thread reports a dead worker
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                outcome = Outcome(**json.loads(line))
            except (ValueError, TypeError):
                sys.stderr.write(line)  # something below Python printed; it is no answer
                continue
            self.job = None
            self.backend.finished(self, outcome)
        if self.job is not None:
            code = self.process.wait()
            self.release()
            error = f"the worker process died (exit status {code})"
            self.backend.finished(self, Outcome(self.job.run_id, 0.0, error=error, lost=True))

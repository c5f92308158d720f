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

from overparam.lab.backends.jobs import STOP, Job, Outcome, execution_to_json
from overparam.runs.execution import Execution


class LocalBackend:
    """`workers` processes on this machine. A dead worker is replaced and its job reported as lost.

    Which worker has which job changes only under `lock`, so that of a worker that dies either its reader reports the
    job or nobody gives it one. No worker is written to under it.
    """

    def __init__(self, workers: int, execution: Execution) -> None:
        self.capacity = workers
        self.execution = execution
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.idle: list[_Worker] = []
        self.busy: dict[str, _Worker] = {}
        self.lock = threading.Lock()

    def submit(self, job: Job) -> None:
        with self.lock:
            worker = self.idle.pop() if self.idle else _Worker(self)
            worker.job = job
            self.busy[job.run_id] = worker
        worker.send(job)

    def next_outcome(self, timeout: float) -> Outcome | None:
        try:
            return self.outcomes.get(timeout=timeout)
        except queue.Empty:
            return None

    def finished(self, worker: "_Worker", outcome: Outcome) -> None:
        """Called by a worker's reader thread: its job is done."""
        with self.lock:
            worker.job = None
            del self.busy[outcome.run_id]
            self.idle.append(worker)
        self.outcomes.put(outcome)

    def died(self, worker: "_Worker", code: int) -> None:
        """Called by a worker's reader thread, last of all: the process has ended, with a job or without."""
        with self.lock:
            job, worker.job = worker.job, None
            if job is not None:
                del self.busy[job.run_id]
            elif worker in self.idle:
                self.idle.remove(worker)
        if job is not None:
            error = f"the worker process died (exit status {code})"
            self.outcomes.put(Outcome(job.run_id, 0.0, error=error, lost=True))

    def workers(self) -> "list[_Worker]":
        with self.lock:
            return [*self.idle, *self.busy.values()]

    def stop(self) -> None:
        for worker in self.workers():
            worker.tell_stop()

    def close(self) -> None:
        workers = self.workers()
        for worker in workers:
            worker.tell_stop()
        for worker in workers:
            worker.end()


class _Worker:
    """One process and the thread that reads its answers."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend
        threads = str(backend.execution.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "overparam.lab.backends.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            errors="replace",  # of what native code below Python may print
            start_new_session=True,  # Ctrl-C is the parent's business
        )
        self.job: Job | None = None  # the backend's, under its lock
        self._write(json.dumps(execution_to_json(backend.execution)))
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def send(self, job: Job) -> None:
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

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        # The reader thread reports a dead worker, and may have closed the pipe by now.
        with contextlib.suppress(BrokenPipeError, ValueError):
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
            self.backend.finished(self, outcome)
        self.backend.died(self, self.process.wait())
        self._release()

    def _release(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

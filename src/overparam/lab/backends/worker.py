"""A worker process: reads jobs as JSON lines, computes them, answers with JSON lines.

It shares nothing with its parent but the store and two pipes. If the parent goes away, the end of the input
makes the worker checkpoint its run and leave.
"""

import contextlib
import json
import queue
import sys
import threading
import time
import traceback
from dataclasses import asdict, replace
from typing import TextIO

from overparam.foundations.allocator import keep_freed_memory
from overparam.identity import RunId
from overparam.lab.backends.jobs import STOP, Job, Outcome, execution_from_json
from overparam.probes.taking import execute_and_measure
from overparam.runs.attempt import Interrupted
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.runs.store import Store


def main() -> None:
    """Serve until told to stop or until the input ends."""
    keep_freed_memory()
    settings = json.loads(sys.stdin.readline())
    execution = execution_from_json(settings)
    answers, jobs, stopping = sys.stdout, queue.SimpleQueue[str](), threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin, jobs, stopping), daemon=True).start()
    with contextlib.redirect_stdout(sys.stderr):
        while (line := jobs.get()) != STOP:
            outcome = attempt(Job.from_json(json.loads(line)), execution, stopping)
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()


def _listen(commands: TextIO, jobs: "queue.SimpleQueue[str]", stopping: threading.Event) -> None:
    for line in commands:
        if line.strip() == STOP:
            break
        jobs.put(line)
    stopping.set()
    jobs.put(STOP)


def attempt(job: Job, execution: Execution, stopping: threading.Event) -> Outcome:
    """Compute a job. An error is an outcome: its traceback goes to the store, one sentence to the caller."""
    began = time.monotonic()
    try:
        if job.evaluations is not None:
            execution = replace(execution, evaluations=job.evaluations)
        setting = Setting(job.spec, execution)
        execute_and_measure(setting, job.save_steps, job.probes, stopping.is_set)
    except Interrupted:
        return Outcome(job.run_id, time.monotonic() - began, interrupted=True)
    except Exception as error:
        kept = _kept(Store(execution.store), job.run_id, traceback.format_exc())
        trained = Store(execution.store).has(job.run_id)
        sentence = f"{type(error).__name__}: {error}{kept}"
        return Outcome(job.run_id, time.monotonic() - began, error=sentence, trained=trained)
    return Outcome(job.run_id, time.monotonic() - began)


def _kept(store: Store, run_id: RunId, text: str) -> str:
    """Where a traceback is kept; nothing if it cannot be, as on a full disk, which may be what it tells of."""
    try:
        return f" (see {store.save_failure(run_id, text)})"
    except OSError:
        return ""


if __name__ == "__main__":
    main()

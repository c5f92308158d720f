"""A backend without processes of its own."""

import json
import threading
from collections import deque

from overparam.lab.backends.jobs import Job, Outcome
from overparam.lab.backends.worker import attempt
from overparam.runs.execution import Execution


class InProcess:
    """A job is computed when it is submitted. It comes as JSON, as it would to a worker."""

    def __init__(self, workers: int, execution: Execution) -> None:
        self.capacity, self.execution, self.outcomes = workers, execution, deque[Outcome]()

    def submit(self, job: Job) -> None:
        arrived = Job.from_json(json.loads(json.dumps(job.to_json())))
        self.outcomes.append(attempt(arrived, self.execution, threading.Event()))

    def next_outcome(self, timeout: float) -> Outcome | None:
        return self.outcomes.popleft() if self.outcomes else None

    def stop(self) -> None: ...

    def close(self) -> None: ...

"""What a worker answers when a job fails."""

import threading
from pathlib import Path

from overparam.identity import run_id
from overparam.lab.backends.jobs import Job
from overparam.lab.backends.worker import attempt
from overparam.runs.execution import Execution
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec


def test_a_reason_that_cannot_be_kept_is_still_told(tmp_path: Path) -> None:
    """On a full disk the worker would die of its report, and the reason of the failure with it."""
    (tmp_path / "failures").write_text("")  # a file in the place of the folder
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=32, epochs=1)
    spec = RunSpec(data=DataSpec(name="nowhere", num_train=10), model=MLP(width=8), train=train)
    job = Job(run_id(spec), spec, frozenset())
    outcome = attempt(job, Execution(store=tmp_path, data_dir=tmp_path), threading.Event())
    assert outcome.error is not None and outcome.error.startswith('DataError: data set "nowhere" is not embedded')
    assert "(see" not in outcome.error

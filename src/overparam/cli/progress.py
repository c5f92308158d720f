"""What a sweep shows while it runs: one live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from overparam.lab.schedule import Progress

PLAIN_EVERY_SECONDS = 30.0


def describe(progress: Progress) -> str:
    """Counts and the time left, as one phrase."""
    counts = f"{progress.done} done, {progress.cached} cached, {progress.failed} failed, {progress.running} running"
    return f"{counts}, about {duration(progress.seconds_left)} left"


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(75.2), duration(7400)
    ('1 min 15 s', '2 h 03 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@contextmanager
def shown(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A callback that shows progress as this console can."""
    if console.is_terminal:
        with Bar(BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=console) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda p: bar.update(task, total=p.total, completed=p.cached + p.done, description=describe(p))
    else:
        yield _plain(console)


def _plain(console: Console) -> Callable[[Progress], None]:
    last = -PLAIN_EVERY_SECONDS

    def show(progress: Progress) -> None:
        nonlocal last
        finished = progress.cached + progress.done + progress.failed == progress.total
        if finished or time.monotonic() - last >= PLAIN_EVERY_SECONDS:
            last = time.monotonic()
            console.print(f"{progress.cached + progress.done}/{progress.total}: {describe(progress)}", highlight=False)

    return show

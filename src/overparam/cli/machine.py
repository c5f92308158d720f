"""Commands about this machine and this installation."""

import os
import sys

import typer
from rich.markup import escape

from overparam.cli.tables import console, say


def doctor() -> None:
    """Say what overparam runs on here."""
    from overparam.foundations import paths
    from overparam.foundations.environment import environment
    from overparam.lab.schedule import default_workers
    from overparam.runs.execution import device_named

    device = device_named("auto")
    for name, value in environment(device, 1).items():
        say(f"{name}: {value}")
    say(f"workers by default: {default_workers()}")
    say(f"data: {os.environ.get('OVERPARAM_DATA') or paths.user_cache() / 'data'}")
    say(f"cache: {paths.user_cache()}")
    if device == "cpu" and "+cpu" not in environment(device, 1)["torch"] and sys.platform == "linux":
        say("This torch may be a CUDA build without a GPU; the README names the small CPU build.")


def selftest() -> None:
    """Check this installation against known answers, in seconds."""
    from overparam.cli.selftest import selftest as checks

    failed = 0
    for check in checks():
        mark = "[green]ok[/]" if check.passed else "[bold red]failed[/]"
        figures = f"{check.error:.1e}, allowed {check.allowed:g}"
        console.print(f"{mark} {escape(check.name)}: {figures}", highlight=False, soft_wrap=True)
        failed += not check.passed
    if failed:
        say(f"checks that failed: {failed}. Do not trust this installation; `overparam doctor` says what it is.")
        raise typer.Exit(1)

"""Every file name that overparam writes, in one place."""

import os
from pathlib import Path


def run_dir(store: Path, run_id: str) -> Path:
    """Final home of a finished run; two leading characters keep directories small."""
    return store / "runs" / run_id[:2] / run_id


def partial_dir(store: Path, run_id: str) -> Path:
    """Where an unfinished run keeps its checkpoint."""
    return store / "partial" / run_id


def draft_dir(store: Path, run_id: str, unique: str) -> Path:
    """Where a finished run is laid out before the one rename that publishes it."""
    return store / "partial" / f"draft-{run_id}-{unique}"


def drafts(store: Path, run_id: str) -> list[Path]:
    return sorted((store / "partial").glob(f"draft-{run_id}-*"))


def lock_file(store: Path, run_id: str) -> Path:
    return store / "locks" / f"{run_id}.lock"


def spec_file(run: Path) -> Path:
    return run / "spec.json"


def result_file(run: Path) -> Path:
    return run / "result.json"


def state_file(run: Path, step: int) -> Path:
    return run / "states" / f"{step:09d}.safetensors"


def test_correct_file(run: Path) -> Path:
    """Which test examples a run classified correctly."""
    return run / "test_correct.safetensors"


def measurement_file(run: Path, probe_id: str) -> Path:
    """What a probe measured of a finished run."""
    return run / "measurements" / f"{probe_id}.json"


def checkpoint_file(partial: Path) -> Path:
    return partial / "checkpoint.safetensors"


def failure_file(store: Path, run_id: str) -> Path:
    """The traceback of the last failed attempt at a run."""
    return store / "failures" / f"{run_id}.txt"


def costs_file(store: Path) -> Path:
    return store / "costs.json"


def request_file(store: Path) -> Path:
    """What the last `run` in this store asked for."""
    return store / "request.json"


def report_dir(store: Path) -> Path:
    return store / "report"


def drawn_figures_file(report: Path) -> Path:
    """What each figure of a report was drawn from, so that none is drawn again for nothing."""
    return report / "figures.json"


def user_cache() -> Path:
    """`OVERPARAM_CACHE`, else the platform's usual per-user cache directory."""
    if override := os.environ.get("OVERPARAM_CACHE"):
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "overparam"


def decoded_dir(fingerprint: str) -> Path:
    """Decoded data sets, one directory per fingerprint of their source files."""
    return user_cache() / "decoded" / fingerprint

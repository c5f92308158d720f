"""A directory of runs. Directories are the truth; there is no index to get out of step.

`runs/ab/<run id>/{spec.json, result.json, test_correct.safetensors, states/<step>.safetensors}` appears by one rename
when it is complete; probes add `measurements/<probe id>.json`.
`partial/<run id>/` holds the last checkpoint of an unfinished run. A lock per run, released by the operating
system when its holder dies, keeps two processes from computing the same run.
"""

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import load, save

from overparam.foundations import paths
from overparam.foundations.files import published, replace_bytes, sync_directory, synced
from overparam.identity import RunId, digest_arrays, digest_text
from overparam.runs.result import Columns, Result

SCHEMA = 1
Arrays = dict[str, np.ndarray]


class StoreError(RuntimeError):
    """A stored file is missing, damaged, or belongs to other data."""


@dataclass(frozen=True)
class Store:
    """Content-addressed runs below `root`. Creating a `Store` writes nothing."""

    root: Path

    def has(self, run_id: RunId) -> bool:
        return paths.result_file(paths.run_dir(self.root, run_id)).is_file()

    def run_ids(self) -> Iterator[RunId]:
        """Ids of all finished runs, sorted."""
        for result in sorted(self.root.glob("runs/*/*/result.json")):
            yield RunId(result.parent.name)

    def result(self, run_id: RunId) -> Result:
        """The verified content of `result.json`.

        Raises:
            StoreError: the run is missing or its result does not match its digest.
        """
        file = paths.result_file(paths.run_dir(self.root, run_id))
        result = cast(Result, _read_sealed(file))
        if result["schema"] != SCHEMA:
            raise StoreError(f"{file} has schema {result['schema']}, this version reads {SCHEMA}; use another --store")
        return result

    def spec_json(self, run_id: RunId) -> str:
        """The spec of a finished run, as it was validated."""
        return str(_read_sealed(paths.spec_file(paths.run_dir(self.root, run_id)))["spec"])

    def steps(self, run_id: RunId) -> frozenset[int]:
        """Steps whose states are stored."""
        return frozenset(int(step) for step in self.result(run_id)["states"])

    def state(self, run_id: RunId, step: int) -> Arrays:
        """The verified arrays of a stored state.

        Raises:
            StoreError: the step is not stored, or the file does not match its digest.
        """
        digests = self.result(run_id)["states"]
        if str(step) not in digests:
            raise StoreError(f"run {run_id} holds the steps {', '.join(digests)}, not {step}")
        arrays = _read_arrays(paths.state_file(paths.run_dir(self.root, run_id), step))
        _check(digest_arrays(arrays) == digests[str(step)], f"state {step} of run {run_id}")
        return arrays

    def test_correct(self, run_id: RunId) -> Arrays | None:
        """Which test examples a run classified correctly, eight to a byte, the first in the highest bit.

        "end" is of its end, "early_stopped" of the evaluation of lowest validation loss, an observer's name of one of
        its looks. `None` of runs of older versions.

        Raises:
            StoreError: the run is missing, or the file does not match its digests.
        """
        return self._test_correct(run_id, self.result(run_id))

    def _test_correct(self, run_id: RunId, result: Result) -> Arrays | None:
        """Only what the result names: a file that is extended is there before the result says so."""
        if (digests := result.get("test_correct")) is None:
            return None
        file = paths.test_correct_file(paths.run_dir(self.root, run_id))
        held = _read_arrays(file)
        for name, digest in digests.items():
            _check(name in held and digest_arrays({name: held[name]}) == digest, str(file))
        return {name: held[name] for name in digests}

    def write(
        self,
        run_id: RunId,
        spec_json: str,
        result: Mapping[str, object],
        states: Mapping[int, Arrays],
        correct: Arrays | None = None,
    ) -> None:
        """Add a finished run in one rename. If another process was faster, its result stays.

        The caller holds the run's lock, so drafts of it that are still there belong to processes that died.
        What lies in its place without a result is no run and is removed.
        """
        final = paths.run_dir(self.root, run_id)
        draft = paths.draft_dir(self.root, run_id, uuid.uuid4().hex)
        try:
            with published(final, draft):
                _lay_out(draft, spec_json, result, states, correct or {})
                final.parent.mkdir(parents=True, exist_ok=True)
                sync_directory(final.parent.parent)
                if not self.has(run_id) and final.exists():
                    shutil.rmtree(final)  # what is left of a run without its result would bar the way for ever
        except OSError:
            if not self.has(run_id):
                raise
        sync_directory(final.parent)  # before the checkpoint goes
        for leftover in (paths.partial_dir(self.root, run_id), *paths.drafts(self.root, run_id)):
            shutil.rmtree(leftover, ignore_errors=True)
        paths.failure_file(self.root, run_id).unlink(missing_ok=True)

    def extend(
        self,
        run_id: RunId,
        states: Mapping[int, Arrays],
        observed: Mapping[str, Columns],
        observed_by: Mapping[str, str],
        correct: Arrays | None = None,
    ) -> None:
        """Add replayed states and observations to a finished run; its numbers stay as they are.

        `observed_by` has the digest of the code of each observer by its name. The caller holds the run's lock.

        Raises:
            StoreError: the run is not there.
        """
        self._refuse_absent(run_id, "states and observations")
        run = paths.run_dir(self.root, run_id)
        for step, arrays in states.items():
            replace_bytes(paths.state_file(run, step), save(arrays))
        result = self.result(run_id)
        digests = {int(k): v for k, v in result["states"].items()} | {k: digest_arrays(v) for k, v in states.items()}
        result["states"] = {str(step): digests[step] for step in sorted(digests)}
        result["observed"] = {**result.get("observed", {}), **observed}
        result["observed_by"] = {**result.get("observed_by", {}), **observed_by}
        if correct:
            correct = {**(self._test_correct(run_id, result) or {}), **correct}
            replace_bytes(paths.test_correct_file(run), save(correct))
            result["test_correct"] = _digests(correct)
        _write_sealed(paths.result_file(run), result)

    def has_measurement(self, run_id: RunId, probe_id: str) -> bool:
        return paths.measurement_file(paths.run_dir(self.root, run_id), probe_id).is_file()

    def measurement(self, run_id: RunId, probe_id: str) -> dict[str, Any]:
        """The verified record of a probe on a run."""
        return _read_sealed(paths.measurement_file(paths.run_dir(self.root, run_id), probe_id), "this file")

    def add_measurement(self, run_id: RunId, probe_id: str, record: Mapping[str, Any]) -> None:
        """Keep what a probe measured of a finished run.

        Raises:
            StoreError: the run is not there.
        """
        self._refuse_absent(run_id, "a measurement")
        _write_sealed(paths.measurement_file(paths.run_dir(self.root, run_id), probe_id), record)

    def _refuse_absent(self, run_id: RunId, what: str) -> None:
        """Else writing would make a directory of the run that holds no run."""
        if not self.has(run_id):
            raise StoreError(f"run {run_id} is not in {self.root}, so {what} cannot be added to it; train it first")

    def lock(self, run_id: RunId, probe_id: str | None = None) -> FileLock:
        """Lock of one run, or of one probe of it; it vanishes with the process that holds it."""
        file = paths.lock_file(self.root, run_id if probe_id is None else f"{run_id}-{probe_id}")
        file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(file)

    def save_checkpoint(self, run_id: RunId, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Replace the run's checkpoint, arrays and progress together, in one rename."""
        file = paths.checkpoint_file(paths.partial_dir(self.root, run_id))
        text = json.dumps(meta)
        sealed = {"meta": text, "digest": digest_text(digest_arrays(arrays) + text)}
        replace_bytes(file, save(arrays, metadata=sealed))

    def checkpoint(self, run_id: RunId) -> tuple[Arrays, dict[str, Any]] | None:
        """The last checkpoint and its progress, or `None`. A damaged checkpoint counts as none."""
        file = paths.checkpoint_file(paths.partial_dir(self.root, run_id))
        try:
            content = file.read_bytes()
            arrays = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            meta, digest = header["meta"], header["digest"]
        except (FileNotFoundError, SafetensorError, KeyError):
            return None
        return (arrays, json.loads(meta)) if digest_text(digest_arrays(arrays) + meta) == digest else None

    def save_failure(self, run_id: RunId, text: str) -> Path:
        """Keep the traceback of a failed attempt."""
        file = paths.failure_file(self.root, run_id)
        replace_bytes(file, text.encode())
        return file


def _lay_out(
    draft: Path, spec_json: str, result: Mapping[str, object], states: Mapping[int, Arrays], correct: Arrays
) -> None:
    """Write all files of a run where no reader looks."""
    paths.state_file(draft, 0).parent.mkdir()
    for step, arrays in states.items():
        with synced(paths.state_file(draft, step)) as stream:
            stream.write(save(arrays))
    digests = {str(step): digest_arrays(arrays) for step, arrays in sorted(states.items())}
    _write_sealed(paths.spec_file(draft), {"spec": spec_json})
    kept: dict[str, object] = {"schema": SCHEMA, **result, "states": digests}
    if correct:
        with synced(paths.test_correct_file(draft)) as stream:
            stream.write(save(correct))
        kept["test_correct"] = _digests(correct)
    _write_sealed(paths.result_file(draft), kept)


def _digests(correct: Arrays) -> dict[str, str]:
    """Digests of a run's correct test examples, each of its own: arrays that are added leave the others' valid."""
    return {name: digest_arrays({name: bits}) for name, bits in sorted(correct.items())}


def _check(condition: bool, what: str, unit: str = "the run's directory") -> None:
    if not condition:
        raise StoreError(f"{what} does not match its digest: the file is damaged; delete {unit} to redo it")


def _read_sealed(file: Path, unit: str = "the run's directory") -> dict[str, Any]:
    try:
        sealed = json.loads(file.read_text())
    except FileNotFoundError:
        raise StoreError(f"{file} does not exist: the run is not finished") from None
    except ValueError:
        sealed = {}
    content = sealed.get("content") if isinstance(sealed, dict) else None
    _check(content is not None and digest_text(_text(content)) == sealed.get("digest"), str(file), unit)
    assert isinstance(content, dict)
    return content


def _write_sealed(file: Path, content: Mapping[str, Any]) -> None:
    sealed = {"content": content, "digest": digest_text(_text(content))}
    replace_bytes(file, json.dumps(sealed, indent=1, allow_nan=False).encode())


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _read_arrays(file: Path) -> Arrays:
    try:
        return load(file.read_bytes())
    except (FileNotFoundError, SafetensorError) as error:
        raise StoreError(f"{file} cannot be read ({error}); delete the run's directory to redo it") from None

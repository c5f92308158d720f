"""The store: one rename publishes a run, readers verify, damage is named."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overparam.foundations import paths
from overparam.foundations.files import replace_bytes
from overparam.identity import RunId, digest_arrays, digest_text
from overparam.runs import store as module
from overparam.runs.store import Store, StoreError

ID = RunId("ab" + "0" * 30)
STATES = {0: {"w": np.arange(4, dtype=np.float32)}, 7: {"w": np.ones(4, dtype=np.float32)}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs")
    made.write(ID, '{"a": 1}', {"status": "ok", "seconds": 0.1}, STATES)
    return made


def test_a_written_run_reads_back(store: Store) -> None:
    assert store.has(ID)
    assert list(store.run_ids()) == [ID]
    assert store.result(ID)["seconds"] == 0.1
    assert store.spec_json(ID) == '{"a": 1}'
    assert store.steps(ID) == {0, 7}
    assert (store.state(ID, 7)["w"] == 1).all()
    assert not any((store.root / "partial").iterdir())


def test_creating_a_store_writes_nothing(tmp_path: Path) -> None:
    assert not Store(tmp_path / "runs").has(ID)
    assert not (tmp_path / "runs").exists()


def test_the_first_result_stays_if_two_processes_finish(store: Store) -> None:
    store.write(ID, '{"a": 2}', {"status": "ok", "seconds": 0.2}, STATES)
    assert store.result(ID)["seconds"] == 0.1


def test_the_rest_of_a_run_without_its_result_gives_way(store: Store) -> None:
    run = paths.run_dir(store.root, ID)
    paths.result_file(run).unlink()
    assert not store.has(ID)
    store.write(ID, '{"a": 2}', {"status": "ok", "seconds": 0.2}, {5: STATES[0]})
    assert store.result(ID)["seconds"] == 0.2
    assert store.steps(ID) == {5}
    assert not paths.state_file(run, 7).exists()


def test_nothing_is_added_to_a_run_that_is_not_there(store: Store) -> None:
    absent = RunId("cd" + "0" * 30)
    with pytest.raises(StoreError, match=f"run {absent} is not in .*, so a measurement cannot be added to it"):
        store.add_measurement(absent, "trace", {"rows": [1]})
    with pytest.raises(StoreError, match=f"run {absent} is not in .*, so states and observations cannot be added"):
        store.extend(absent, STATES, {}, {})
    assert not paths.run_dir(store.root, absent).exists()


@pytest.mark.parametrize("file", ["result.json", "spec.json", "states/000000007.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damage_is_found_and_named(store: Store, file: str, damage: str) -> None:
    path = paths.run_dir(store.root, ID) / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-6] ^= 1
    path.write_bytes(bytes(content if damage == "flip" else content[: len(content) // 2]))
    with pytest.raises(StoreError, match=r"delete the run's directory"):
        store.result(ID), store.spec_json(ID), store.state(ID, 7)


@pytest.mark.parametrize("content", ["{", '{"content": {"rows": [2]}, "digest": "x"}'])
def test_a_damaged_measurement_costs_no_training(store: Store, content: str) -> None:
    store.add_measurement(ID, "trace", {"rows": [1]})
    file = paths.measurement_file(paths.run_dir(store.root, ID), "trace")
    file.write_text(content)
    with pytest.raises(StoreError, match=rf"{file} does not match .*; delete this file to redo it$"):
        store.measurement(ID, "trace")
    file.unlink()
    assert store.has(ID) and not store.has_measurement(ID, "trace")


def test_missing_runs_and_steps_are_named(store: Store) -> None:
    with pytest.raises(StoreError, match="not finished"):
        store.result(RunId("cd" + "0" * 30))
    with pytest.raises(StoreError, match="holds the steps 0, 7, not 3"):
        store.state(ID, 3)


def test_a_half_written_draft_is_never_seen(store: Store) -> None:
    draft = paths.draft_dir(store.root, RunId("ef" + "0" * 30), "x")
    draft.mkdir(parents=True)
    paths.result_file(draft).write_text("{")
    assert list(store.run_ids()) == [ID]


def test_results_of_another_schema_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCHEMA", 99)
    with pytest.raises(StoreError, match="has schema 1, this version reads 99"):
        store.result(ID)


def test_states_and_observations_can_be_added(store: Store) -> None:
    store.extend(ID, {3: {"w": np.zeros(4, dtype=np.float32)}}, {"norm": {"step": [3]}}, {"norm": "code"})
    assert store.steps(ID) == {0, 3, 7}
    store.extend(ID, {}, {"trace": {"step": [7]}}, {"trace": "other"})
    assert store.result(ID)["observed"] == {"norm": {"step": [3]}, "trace": {"step": [7]}}
    assert store.result(ID)["observed_by"] == {"norm": "code", "trace": "other"}
    assert store.result(ID)["seconds"] == 0.1


CORRECT = {"end": np.array([255, 128], dtype=np.uint8), "early_stopped": np.array([127, 128], dtype=np.uint8)}


def test_correct_test_examples_read_back_and_others_can_be_added(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(ID, "{}", {"status": "ok"}, STATES, CORRECT)
    assert read_correct(store) == {name: bits.tolist() for name, bits in CORRECT.items()}
    before = store.result(ID)
    store.extend(ID, {}, {}, {}, {"look": np.array([1, 0], dtype=np.uint8)})
    assert read_correct(store)["look"] == [1, 0] and len(read_correct(store)) == 3
    paths.result_file(paths.run_dir(tmp_path, ID)).write_text(sealed(before))
    assert len(read_correct(store)) == 2, "what is added to the file comes before the result that names it"


def test_a_run_of_an_older_version_has_no_correct_test_examples(store: Store) -> None:
    assert store.test_correct(ID) is None
    store.extend(ID, {}, {}, {}, {"look": np.array([1, 0], dtype=np.uint8)})
    assert read_correct(store) == {"look": [1, 0]}


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "missing", "another name"])
def test_damaged_correct_test_examples_are_found_and_named(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.write(ID, "{}", {"status": "ok"}, STATES, CORRECT)
    file = paths.test_correct_file(paths.run_dir(tmp_path, ID))
    content = file.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    changed = {"flip": flipped, "truncate": content[:-2], "empty": b"", "another name": content.replace(b"end", b"eng")}
    file.write_bytes(changed[damage]) if damage in changed else file.unlink()
    with pytest.raises(StoreError, match=r"test_correct.safetensors .*delete the run's directory to redo it"):
        store.test_correct(ID)
    assert store.result(ID)["status"] == "ok", "its numbers can be read all the same"


def read_correct(store: Store) -> dict[str, list[int]]:
    found = store.test_correct(ID)
    assert found is not None
    return {name: bits.tolist() for name, bits in found.items()}


def sealed(content: Mapping[str, object]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({"content": content, "digest": digest_text(text)})


def test_checkpoint_round_trip_and_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.checkpoint(ID) is None
    store.save_checkpoint(ID, STATES[0], {"step": 5})
    found = store.checkpoint(ID)
    assert found is not None
    assert found[1] == {"step": 5}
    file = paths.checkpoint_file(paths.partial_dir(tmp_path, ID))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    assert store.checkpoint(ID) is None
    file.write_bytes(bytes(content[:20]))
    assert store.checkpoint(ID) is None


def test_every_flipped_bit_of_a_checkpoint_makes_it_none(tmp_path: Path) -> None:
    """In the names of its header as in its numbers."""
    store = Store(tmp_path)
    store.save_checkpoint(ID, STATES[0], {"step": 5})
    file = paths.checkpoint_file(paths.partial_dir(tmp_path, ID))
    content = file.read_bytes()
    for place, value in enumerate(content):
        for bit in range(8):
            file.write_bytes(content[:place] + bytes([value ^ 1 << bit]) + content[place + 1 :])
            assert store.checkpoint(ID) is None, (place, bit)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """A draft on a full disk would keep it full."""

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    store = Store(tmp_path)
    with pytest.raises(type(error)):
        replace_bytes(tmp_path / "costs.json", b"{}")
    with pytest.raises(type(error)):
        store.write(ID, '{"a": 1}', {"status": "ok"}, STATES)
    assert not store.has(ID)
    assert [entry for entry in tmp_path.rglob("*") if entry != tmp_path / "partial"] == []


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_digest_depends_on_names_shapes_types_and_bytes(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    digest = digest_arrays({"a": array})
    assert digest == digest_arrays({"a": array.copy()})
    assert digest != digest_arrays({"b": array})
    assert digest != digest_arrays({"a": array.reshape(1, -1)})
    assert digest != digest_arrays({"a": array.astype(np.float64)})
    assert digest != digest_arrays({"a": (array.view(np.uint32) ^ np.uint32(1)).view(np.float32)})  # the last bit


def test_a_run_whose_name_may_not_be_on_the_disk_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename outlasts a crash only once its directory is on the disk; until then the checkpoint is needed."""
    store, fsync = Store(tmp_path), os.fsync
    store.save_checkpoint(ID, STATES[0], {"step": 3})
    home = paths.run_dir(tmp_path, ID).parent

    def fail(descriptor: int) -> None:
        if home.exists() and os.fstat(descriptor).st_ino == home.stat().st_ino:
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        store.write(ID, '{"a": 1}', {"status": "ok"}, STATES)
    assert store.checkpoint(ID) is not None

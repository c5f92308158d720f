"""The archive of correct test examples beside a report's table of runs."""

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from overparam.foundations.numpy_generators import numpy_generator
from overparam.report.correct import correct_npz
from overparam.report.render import render
from tests.report.made_up import result


def table(*rows: tuple[str, int, str | None, bytes | None]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Runs by id, seed and digest of their test examples, and their bits."""
    columns = {"run_id": pl.String, "seed": pl.Int64, "test_digest": pl.String, "test_correct": pl.Binary}
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return frame.drop("test_correct"), frame.select("test_correct", early_stop_correct=pl.lit(None, pl.Binary))


def loaded(content: bytes | None) -> dict[str, list[object]]:
    assert content is not None
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name].tolist() for name in archive.files}


def test_each_run_stands_once_with_its_bits() -> None:
    """Runs that stand in several arms, in any order, with test sets of several sizes, and one without any bits."""
    rows = [("b", 1, "d", b"\x07\x80"), ("c", 0, "e", b"\xf0"), ("b", 1, "d", b"\x07\x80"), ("a", 0, "d", None)]
    expected = {"test_correct": [[7, 128], [240, 0]], "test_correct_run_id": ["b", "c"]}
    assert loaded(correct_npz(*table(*rows), data_varies=False)) == expected


def test_seeds_with_test_examples_of_their_own_are_left_out() -> None:
    own = [("a", 0, "x", b"\x01"), ("b", 0, "x", b"\x02"), ("c", 1, "y", b"\x03"), ("d", 1, None, b"\x03")]
    shared = [("e", 0, "z", b"\x04"), ("f", 1, "z", b"\x05")]
    assert loaded(correct_npz(*table(*own, *shared), data_varies=True))["test_correct_run_id"] == ["e", "f"]
    assert correct_npz(*table(*own), data_varies=True) is None
    assert len(loaded(correct_npz(*table(*own), data_varies=False))["test_correct"]) == 4


def test_the_same_runs_give_the_same_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"{i}", i, "d", bytes([i, 255 - i])) for i in range(50)]
    first = correct_npz(*table(*rows), data_varies=False)
    later = time.localtime(2_000_000_000)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "localtime", lambda *given: later)
    assert correct_npz(*table(*reversed(rows)), data_varies=False) == first


def test_five_hundred_runs_of_ten_thousand_examples_take_less_than_a_megabyte() -> None:
    draws = numpy_generator(0, "bits")
    bits = [np.packbits(draws.random(10_000) < 0.7).tobytes() for _ in range(500)]
    content = correct_npz(*table(*((f"{i:032x}", i, "d", each) for i, each in enumerate(bits))), data_varies=False)
    assert content is not None and len(content) < 1_000_000


@pytest.mark.parametrize("kept", [True, False])
def test_the_page_links_the_archive_where_there_is_one(tmp_path: Path, kept: bool) -> None:
    found = result(missing=True)  # no figures are drawn
    frame = found.frame.with_columns(test_digest=pl.lit("d"))
    bits = [b"\x01" if kept else None] * len(frame)
    correct = pl.DataFrame({"test_correct": bits}, schema={"test_correct": pl.Binary})
    page = render([replace(found, frame=frame, correct=correct)], tmp_path).read_text()
    file = tmp_path / "data" / "batch_size_test_correct.npz"
    assert file.is_file() == kept == ('href="data/batch_size_test_correct.npz"' in page)

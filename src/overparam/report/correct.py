"""The test examples that each run of a study classifies correctly, as a small file beside the table of its runs.

With both, every interval can be computed again, also those that count test examples as a source of error.
"""

import io

import numpy as np
import polars as pl


def correct_npz(frame: pl.DataFrame, correct: pl.DataFrame, *, data_varies: bool) -> bytes | None:
    """A compressed archive with the bits of each run once, for every column of `correct`; None if there are none.

    Under the name of a column an array (runs, bytes) of uint8: eight examples to a byte, the first in the highest bit,
    zeros after the last example. Under `<column>_run_id` the ids of these runs. How many test examples a run has, and a
    digest of them, is in the table of runs. Where each seed drew test examples of its own, their errors are part of
    what differs between seeds, and the bits are left out.

    The same runs give the same bytes.

    Args:
        frame: one row per cell and seed.
        correct: columns of packed bits, row by row as `frame`.
        data_varies: whether seeds draw their own data; some of them may still be tested on the same examples.
    """
    runs = frame.select("run_id", "seed", "test_digest").hstack(correct)
    if data_varies:
        runs = runs.filter(pl.col("seed").n_unique().over("test_digest") > 1, pl.col("test_digest").is_not_null())
    arrays: dict[str, np.ndarray] = {}
    for column in correct.columns:
        kept = runs.drop_nulls(column).unique("run_id", keep="first", maintain_order=True).sort("run_id")
        if len(kept):
            arrays |= {column: _stacked(kept[column].to_list()), f"{column}_run_id": np.array(kept["run_id"].to_list())}
    if not arrays:
        return None
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]  # numpy's stubs take a name for an option
    return archive.getvalue()


def _stacked(bits: list[bytes]) -> np.ndarray:
    """Rows of equal length, the shorter ones filled with zeros."""
    rows = np.zeros((len(bits), max(map(len, bits))), dtype=np.uint8)
    for row, each in zip(rows, bits, strict=True):
        row[: len(each)] = np.frombuffer(each, dtype=np.uint8)
    return rows

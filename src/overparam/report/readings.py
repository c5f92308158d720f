"""All readings of a study as JSON, the file that stands beside the figures of measurements."""

import json
from collections.abc import Iterable

from overparam.foundations.json_values import finite
from overparam.probes.reading import Reading


def readings_json(readings: Iterable[Reading]) -> str:
    """A list of all readings, one on each line: what figures of measurements are drawn from."""
    records = [
        {
            "arm": each.arm,
            "level": each.level,
            "seed": each.seed,
            "probe": each.probe.model_dump(mode="json"),
            "rows": [look.to_json() for look in each.looks],
        }
        for each in readings
    ]
    lines = [json.dumps(finite(record), sort_keys=True, ensure_ascii=False, allow_nan=False) for record in records]
    return "[\n" + ",\n".join(lines) + "\n]\n"

"""Specs → the protocol box: what all runs share, and what differs by arm."""

from collections.abc import Collection
from typing import Any

from overparam.identity import run_id
from overparam.specs.run import RunSpec
from overparam.studies.study import Arm, Design

HIDDEN = ("kind", "semantics")


def flat(spec: RunSpec) -> dict[str, str]:
    """Dotted field → text, without what is empty by default. A run behind this one is a line, not its fields."""
    tree = spec.model_dump(mode="json", exclude={"init": {"of"}, "mask": {"of"}})
    for field in ("init", "mask"):
        if (of := getattr(getattr(spec, field), "of", None)) is not None:
            tree[field]["of"] = _named(of)
    found: dict[str, str] = {}
    _walk("", tree, found)
    return found


def _named(run: RunSpec) -> str:
    """A run by what it is and by the beginning of its id, which goes with its seed."""
    return f"{run.mask.kind} run {run_id(run)[:8]} (seed {run.seed})"


def _walk(prefix: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, dict):
        name = value.get("kind")
        if name and prefix in ("model", "train.optimizer", "init", "mask"):
            found[prefix] = str(name)
        for key, child in value.items():
            if key not in HIDDEN:
                _walk(f"{prefix}.{key}" if prefix else key, child, found)
    elif value not in (None, []):
        found[prefix] = ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"


def shared(design: Design) -> list[tuple[str, str]]:
    """Fields with the same value in every run of the design; seeds apart."""
    specs = [flat(level.spec) for arm in design.arms for level in arm.levels]
    keys = [
        key for key in (specs[0] if specs else ()) if key != "seed" and all(s.get(key) == specs[0][key] for s in specs)
    ]
    own = {"data.data_seed": "the seed of the run"} if design.data_varies else {}
    return [(key, own.get(key, specs[0][key])) for key in keys]


def by_arm(arm: Arm, common: Collection[str]) -> list[tuple[str, str]]:
    """Fields of one arm that the whole design does not have in common: one value, or one for each level, in order."""
    specs = [flat(level.spec) for level in arm.levels]
    hidden = {*common, "seed"}
    keys = dict.fromkeys(key for spec in specs for key in spec if key not in hidden)
    return [(key, _listed([spec.get(key, "–") for spec in specs])) for key in keys]


def _listed(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else " · ".join(values)

"""Experiments: a study at a preset with seeds and overrides settled, or plain runs as a study of one arm."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from overparam.claims.estimand import level_text
from overparam.foundations.words import nearest
from overparam.specs import RunSpec
from overparam.specs.assignments import Assignment, OverrideError, parse_assignments
from overparam.specs.overrides import applies, apply, value_at
from overparam.studies.catalogue import STUDIES
from overparam.studies.study import Arm, Cell, Design, Designs, Level, Preset, Study


@dataclass(frozen=True)
class Experiment:
    """A study at one preset, with seeds and overrides settled: cells of runs and the claims about them.

    `given` is the design before overrides, `preset_seeds` are those of the preset, where other ones could be asked for.
    """

    study: Study
    preset: Preset
    given: Design
    design: Design
    cells: tuple[Cell, ...]
    overrides: tuple[str, ...] = ()
    preset_seeds: tuple[int, ...] | None = None

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        return tuple(cell.spec for cell in self.cells)


def experiment(
    name: str, preset: str = "smoke", *, num_seeds: int | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """Look a study up and settle its seeds and overrides.

    Raises:
        ValueError: no such study or preset, or an override does not fit every run.
    """
    if name not in STUDIES:
        raise ValueError(f'unknown study "{name}"; this version has: {", ".join(STUDIES)}{nearest(name, STUDIES)}')
    study = STUDIES[name]
    known = preset_of(study, preset)
    design = study.designs[known]
    if num_seeds is not None:
        design = design.model_copy(update={"seeds": tuple(range(num_seeds))})
    return replace(of_design(study, known, design, overrides), preset_seeds=study.designs[known].seeds)


def preset_of(study: Study, preset: str) -> Preset:
    """A preset of the study by its name.

    Raises:
        ValueError: the study has no such preset.
    """
    for known in study.designs:
        if known == preset:
            return known
    presets = ", ".join(study.designs)
    raise ValueError(f'study {study.name} has no preset "{preset}"; it has: {presets}{nearest(preset, study.designs)}')


def of_design(study: Study, preset: Preset, design: Design, overrides: Sequence[str] = ()) -> Experiment:
    """A design with its cells laid out, after `--set` assignments to the runs that use their fields.

    Raises:
        ValueError: an assignment is wrong, no run uses it, or it would change what the study compares.
    """
    changed = overridden(design, overrides, study.name)
    designs = {name: partial(study.designs.__getitem__, name) for name in study.designs}  # the others as they were
    study = study.model_copy(update={"designs": Designs({**designs, preset: lambda: changed})})
    return Experiment(study, preset, design, changed, tuple(changed.cells()), tuple(overrides))


def overridden(design: Design, overrides: Sequence[str], study: str) -> Design:
    """The design with assignments applied to its levels, or every error at once."""
    if not overrides:
        return design
    assignments = parse_assignments(overrides)
    places = [(arm, level) for arm in design.arms for level in arm.levels]
    unused = [a for a in assignments if not any(_uses(level, a, assignments) for _, level in places)]
    problems: dict[str, list[str]] = {problem: [] for arm in design.arms for problem in _compared(arm, assignments)}
    changed: dict[str, list[Level]] = {arm.name: [] for arm in design.arms}
    for problem in _errors(places[0][1].spec, unused):
        problems.setdefault(problem, [])
    for arm, level in places:
        try:
            changed[arm.name].append(level.model_copy(update={"spec": _changed(level, level.spec, assignments)}))
        except OverrideError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(f" (arm {arm.name}, level {level_text(level.value)})")
    if not problems and unused:
        problems = {f"{path}: no run uses it (study {study})": [] for path, _ in unused}
    if problems:
        raise OverrideError(problem + "".join(where if len(where) == 1 else ()) for problem, where in problems.items())
    arms = (arm.model_copy(update={"levels": tuple(changed[arm.name])}) for arm in design.arms)
    claims = (claim.model_copy(update={"comparable": False}) for claim in design.claims)
    return design.model_copy(update={"arms": tuple(arms), "claims": tuple(claims)})


def _changed(level: Level, spec: RunSpec, assignments: Sequence[Assignment]) -> RunSpec:
    """A run after what its level uses of the assignments; the runs behind it, too, if it is not where a run starts."""
    used = [each for each in assignments if _uses(level, each, assignments)]
    inherited = [each for each in used if each[0].split(".")[0] not in ("init", "mask")]
    mine = [each for each in used if each not in inherited]
    return apply(spec.with_parents(lambda each: apply(each, inherited)) if inherited else spec, mine)


def _errors(spec: RunSpec, assignments: Sequence[Assignment]) -> tuple[str, ...]:
    """What is wrong with assignments in themselves, such as a misspelled name."""
    try:
        apply(spec, assignments)
    except OverrideError as error:
        return error.problems
    return ()


def _uses(level: Level, assignment: Assignment, assignments: Sequence[Assignment]) -> bool:
    return applies(level.spec, assignment[0], [path for path, _ in assignments])


def _values(level: Level, assignment: Assignment, assignments: Sequence[Assignment]) -> list[object]:
    """What a level's run holds at a path, and what the runs behind it hold that the assignment reaches as well."""
    path = assignment[0]
    if not _uses(level, assignment, assignments):
        return []
    reached = [level.spec] if path.split(".")[0] in ("init", "mask") else level.spec.ancestry()
    return [value_at(each, path) for each in reached]


def _compared(arm: Arm, assignments: Sequence[Assignment]) -> Iterable[str]:
    """Which assignments would change what an arm compares."""
    for assignment in assignments:
        path = assignment[0]
        values = [value for level in arm.levels for value in _values(level, assignment, assignments)]
        if path.split(".")[0] in ("seed", "streams"):
            yield f"{path}: the seeds of a study are its replicates; use --seeds to choose how many"
        elif path.split(".")[0] == "model" and any(level.spec.mask.kind != "dense" for level in arm.levels):
            yield f"{path}: masks in arm {arm.name} keep exact counts of its own networks; leave it as it is"
        elif any(value != values[0] for value in values):
            shown = ", ".join(dict.fromkeys(str(value) for value in values))
            yield f"{path}: its values in arm {arm.name} ({shown}) are what the study compares; leave it as it is"


def of_specs(specs: Sequence[RunSpec], overrides: Sequence[str] = ()) -> Experiment:
    """Plain runs without claims, as a study of one arm: a level is a spec up to its seed.

    Raises:
        ValueError: no run was given.
    """
    if not specs:
        raise ValueError("no runs were given; give at least one RunSpec")
    groups: dict[RunSpec, list[RunSpec]] = {}
    for spec in dict.fromkeys(specs):
        groups.setdefault(_up_to_seed(spec), []).append(spec)
    levels = tuple(Level(value=f"run {number}", spec=spec) for number, spec in enumerate(groups))
    arm = Arm(name="runs", title="Runs", note="", levels=levels)
    all_seeds = tuple(sorted({spec.seed for spec in specs}))
    design = Design(seeds=all_seeds, arms=(arm,), claims=(), caption="Runs as given.")
    study = Study(name="runs", title="Runs", question="", background="", factor="run", designs={"smoke": design})
    item = of_design(study, "smoke", design, overrides)
    assignments = parse_assignments(overrides)
    cells = tuple(
        Cell("runs", level.value, spec.seed, _changed(level, spec, assignments))
        for level, group in zip(levels, groups.values(), strict=True)
        for spec in group
    )
    return replace(item, cells=cells)


def _up_to_seed(spec: RunSpec) -> RunSpec:
    """What replicates share; a run that starts from runs of other seeds is no replicate of any other."""
    if any(each.seed != spec.seed for each in spec.ancestry()):
        return spec
    return spec.with_parents(lambda each: each.model_copy(update={"seed": 0}))

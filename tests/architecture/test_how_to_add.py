"""CONTRIBUTING.md says how to add a thing: each of its sections is carried out on a copy of the package and checked."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import overparam

PACKAGE = Path(overparam.__file__).parent
CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
MOST_LINES = 19

# What is added → how many files are new, and how many are edited.
FILES = {
    "A model": (1, 1),
    "An optimizer": (0, 1),
    "An embedded data set": (1, 1),
    "A probe": (1, 1),
    "A figure": (1, 1),
    "A study": (1, 1),
    "A backend": (1, 1),
}

# Runs checks by their titles in one namespace, after what they share, and writes what those say that fail. There are no
# worker processes, each of which would load torch again; jobs are JSON on their way, as to a worker.
RUN_CHECKS = """
import json, sys, traceback
from overparam.lab.backends import choose, inline, jobs

class InProcess(inline.InlineBackend):
    def submit(self, job):
        super().submit(jobs.Job.from_json(json.loads(json.dumps(job.to_json()))))

choose.BACKENDS["local"] = InProcess
failed, names, checks = {}, {}, json.loads(sys.argv[1])
exec(checks.pop(""), names)
for title, check in checks.items():
    try:
        exec(check, names)
    except Exception:
        failed[title] = traceback.format_exc()
print(json.dumps(failed))
"""


@dataclass
class Section:
    """What a section writes: new files and edits by path, the check at its end, and its lines of text."""

    new: dict[str, list[str]] = field(default_factory=dict)
    edits: dict[str, list[str]] = field(default_factory=dict)
    check: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    @property
    def written(self) -> list[str]:
        """Text, code and added lines: all but fences, paths, empty lines, and what is there before."""
        added = [line[1:] for lines in self.edits.values() for line in lines if line.startswith("+")]
        code = [line for lines in self.new.values() for line in lines]
        return [line for line in (*self.text, *code, *added, *self.check) if line.strip()]


def blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Fenced blocks with their language; text between them has none."""
    language, held = "", list[str]()
    for line in lines:
        if line.startswith("```"):
            yield language, held
            language, held = "" if language else line.removeprefix("```"), []
        else:
            held.append(line)
    yield language, held


def section(lines: list[str]) -> Section:
    found = Section()
    for language, block in blocks(lines):
        match language, block:
            case "python", [first, *rest] if first.startswith("# src/"):
                found.new[first.removeprefix("# ")] = rest
            case "python", _:
                found.check = block
            case "diff", [first, *rest]:
                found.edits[first.removeprefix(" # ")] = rest
            case _:
                found.text += block
    return found


def how_to_add() -> dict[str, Section]:
    """Sections by their titles; what stands before them is under ""."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    (chapter,) = re.findall(r"^## How to add\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    before, *parts = re.split(r"^### ", chapter, flags=re.MULTILINE)
    titled = (part.split("\n") for part in parts)
    return {"": section(before.split("\n"))} | {title: section(lines) for title, *lines in titled}


SECTIONS = how_to_add()


def hunks(lines: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Old and new lines of each place of an edit. Old ones are marked with a minus or, if they stay, a space."""
    old, new = list[str](), list[str]()
    was = "+"
    for line in lines:
        mark, rest = line[:1] or " ", line[1:]
        if was == "+" != mark and (old or new):
            yield old, new
            old, new = [], []
        if mark != "+":
            old.append(rest)
        if mark != "-":
            new.append(rest)
        was = mark
    yield old, new


def edited(text: str, edit: list[str], path: str) -> str:
    """A file after an edit. New lines that stand for no old ones are imports."""
    lines = text.splitlines()
    for old, new in hunks(edit):
        if not old:
            assert all(line.startswith("from ") for line in new), f"{path}: only imports need no place, got {new}"
            old = [next(line for line in lines if line.startswith("from overparam"))]
            new = [*new, *old]
        places = [place for place in range(len(lines)) if lines[place : place + len(old)] == old]
        assert len(places) == 1, f"{path} holds {len(places)} times: {old}"
        lines[places[0] : places[0] + len(old)] = new
    return "\n".join([*lines, ""])


def carry_out(done: Section, root: Path) -> None:
    """Write new files and edits of a section into a copy of the package."""
    for path, lines in done.new.items():
        file = root / path
        assert not file.exists(), f"{path} is there already"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    for path, edit in done.edits.items():
        file = root / path
        file.write_text(edited(file.read_text(encoding="utf-8"), edit, path), encoding="utf-8")


def test_every_kind_of_thing_has_a_section() -> None:
    assert [title for title in SECTIONS if title] == list(FILES)


@pytest.mark.parametrize("title", FILES)
def test_one_list_is_all_that_knows_of_it(title: str) -> None:
    done = SECTIONS[title]
    assert (len(done.new), len(done.edits)) == FILES[title]


@pytest.mark.parametrize("title", FILES)
def test_a_section_is_short(title: str) -> None:
    assert len(SECTIONS[title].written) <= MOST_LINES


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Titles of the checks that fail, with what they say. One copy and one process for all: torch is loaded once."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, root / "src" / "overparam")
    for each in SECTIONS.values():
        carry_out(each, root)
    checks = {title: "\n".join(each.check) for title, each in SECTIONS.items()}
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN_CHECKS, json.dumps(checks)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    failed: dict[str, str] = json.loads(done.stdout)
    return failed


@pytest.mark.parametrize("title", FILES)
def test_what_is_added_works(title: str, failures: dict[str, str]) -> None:
    assert title not in failures, failures[title]


def test_an_edit_must_find_its_place() -> None:
    assert edited("a\nb\nc\n", ["-b", "+d"], "file") == "a\nd\nc\n"
    assert edited("a\nb\nc\n", [" b", "+d", "-c"], "file") == "a\nb\nd\n"
    with pytest.raises(AssertionError, match="holds 0 times"):
        edited("a\nb\nc\n", ["-d", "+e"], "file")
    with pytest.raises(AssertionError, match="holds 2 times"):
        edited("a\nb\nb\n", ["-b", "+e"], "file")

"""What is read of a processor, from made-up files of the system."""

import subprocess
from pathlib import Path

import pytest

from overparam.foundations import processor as module
from overparam.foundations.processor import processor, vector_capability

WIDE = "fpu sse4_1 ssse3 avx avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 amx_tile amx_int8"
INTEL = (
    "processor\t: {}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon\nstepping\t: 8\n"
)
INTEL += f"cpu MHz\t\t: 2000.000\nflags\t\t: {WIDE} md_clear flush_l1d\n\n"
AMD = (
    "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nstepping\t: 1\nflags\t\t: sse4_1 avx avx2 fma sme sev\n"
)
BIG = "CPU implementer\t: 0x41\nCPU variant\t: 0x1\nCPU part\t: 0xd40\nCPU revision\t: 1\n"
ARM = "processor\t: {}\nFeatures\t: fp asimd asimdhp {}\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "cpuinfo"
    file.write_text(text)
    return file


def told(folder: Path, text: str) -> str:
    found = processor(written(folder, text), folder / "none")
    assert found is not None
    return found


def caches(folder: Path, *found: tuple[int, str, str, str]) -> Path:
    for number, values in enumerate(found):
        index = folder / "cache" / f"index{number}"
        index.mkdir(parents=True)
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), values, strict=True):
            (index / name).write_text(f"{value}\n")
    return folder / "cache"


def test_an_intel_is_named_with_its_instructions_and_caches(tmp_path: Path) -> None:
    last, first = (3, "Unified", "107520K", "0-3,8-11"), (1, "Data", "48K", "0")
    folder = caches(tmp_path, last, first, (1, "Instruction", "32K", "0"), (2, "Unified", "1280K", "0"))
    found = processor(written(tmp_path, INTEL.format(0) + INTEL.format(1)), folder)
    assert found is not None and found.startswith("Intel 6/143/8 avx512 vnni bf16 amx flags ")
    assert found.endswith(" caches 48K/1280K/105M for 8")


def test_an_amd_is_named_without_the_encryption_of_its_memory(tmp_path: Path) -> None:
    """`sme` is a matrix extension on ARM."""
    assert told(tmp_path, AMD).startswith("AMD 25/1/1 avx2 flags ")


def test_all_kinds_of_cores_of_an_arm_are_named_with_what_they_share(tmp_path: Path) -> None:
    little = BIG.replace("0xd40", "0xd46")
    text = "\n".join([ARM.format(0, "sve bf16 i8mm") + little, ARM.format(1, "sve i8mm") + BIG + "\n", little])
    assert told(tmp_path, text).startswith("Arm 0xd46/0x1/1 Arm 0xd40/0x1/1 sve fp16 i8mm flags ")
    assert vector_capability("avx2", written(tmp_path, text)) is None


@pytest.mark.parametrize("text", ["", "\n\n", "no colon\n", "flags\t:\n", "vendor_id\t: GenuineIntel\n\xff\x00"])
def test_what_tells_nothing_is_no_processor(tmp_path: Path, text: str) -> None:
    assert processor(written(tmp_path, text), tmp_path) is None
    assert vector_capability("avx2", written(tmp_path, text)) is None


def test_absent_files_are_no_processor(tmp_path: Path) -> None:
    assert processor(tmp_path / "absent", tmp_path / "absent") is None
    assert processor(tmp_path, tmp_path) is None  # a folder


def test_a_name_without_numbers_is_taken(tmp_path: Path) -> None:
    assert told(tmp_path, "processor: 0\ncpu\t: POWER9\n") == "POWER9"


def test_caches_that_are_told_in_part_are_left_out(tmp_path: Path) -> None:
    folder = caches(tmp_path, (1, "Data", "48K", "0"), (2, "Unified", "", "0"))
    (folder / "index2").mkdir()
    found = processor(written(tmp_path, AMD), folder)
    assert found is not None and found.endswith(" caches 48K for 1")


def test_the_digest_changes_with_arithmetic_only(tmp_path: Path) -> None:
    """Another kernel lists other mitigations, and its update must not part a store."""
    texts = [
        INTEL.format(0).replace(*change) for change in (("Xeon", "Xeon"), ("md_clear", "its_no"), ("amx_int8 ", ""))
    ]
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    same, other, less = (told(tmp_path / str(number), text) for number, text in enumerate(texts))
    assert same == other != less


@pytest.mark.parametrize(
    ("flags", "asked", "vector"),
    [
        (WIDE, "", "avx512"),
        (WIDE, "avx2", "avx2"),
        (WIDE, "nonsense", "avx512"),
        ("avx avx2 fma avx512f", "", "avx2"),  # as torch, which needs more than the first of AVX-512
        ("avx avx2", "", "default"),
        ("sse4_1", "", "default"),
    ],
)
def test_the_vector_capability_follows_flags_and_what_is_asked(
    tmp_path: Path, flags: str, asked: str, vector: str
) -> None:
    assert vector_capability(asked, written(tmp_path, f"flags\t\t: {flags}\n")) == vector


@pytest.mark.parametrize(
    ("system", "name"), [("Windows", "Intel64 Family 6 GenuineIntel"), ("Darwin", "Apple M1"), ("Plan9", None)]
)
def test_other_systems_give_a_name_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, name: str | None
) -> None:
    done = subprocess.CompletedProcess([], 0, stdout="Apple M1\n")
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "absent")
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.processor", lambda: "Intel64 Family 6, GenuineIntel")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    assert processor(module.CPUINFO, tmp_path) == name


@pytest.mark.parametrize("failure", [FileNotFoundError("sysctl"), subprocess.TimeoutExpired("sysctl", 5)])
def test_a_sysctl_that_fails_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(module, "CPUINFO", tmp_path / "absent")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("subprocess.run", fail)
    assert processor(module.CPUINFO, tmp_path) is None

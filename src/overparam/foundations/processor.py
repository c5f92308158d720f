"""The processor as libraries see it that choose kernels by it: its model, its instructions, its caches.

Everything is read from the system's own files, and what it does not tell is left out. Nothing loads torch.
"""

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
SYSCTL = "/usr/sbin/sysctl"  # of macOS
NAMES = ("model name", "cpu", "uarch")  # of a processor that is not told by numbers
MAKERS = {
    "GenuineIntel": "Intel",
    "AuthenticAMD": "AMD",
    "HygonGenuine": "Hygon",
    "0x41": "Arm",
    "0x4e": "Nvidia",
    "0x51": "Qualcomm",
    "0x61": "Apple",
    "0xc0": "Ampere",
}

Block = dict[str, str]  # what /proc/cpuinfo says of one processor


@dataclass(frozen=True)
class Family:
    """How /proc/cpuinfo tells a kind of processors: the line of its flags, and those of its maker and numbers.

    `widest` has the words for the instructions, of which the first that is there is said, `others` those said beside
    it. `arithmetic` has how flags of arithmetic begin: the others are of the kernel, which an update may change.
    """

    flags: str
    numbers: tuple[str, ...]
    widest: tuple[tuple[str, frozenset[str]], ...]
    others: Mapping[str, str]
    arithmetic: tuple[str, ...]


X86 = Family(
    "flags",
    ("vendor_id", "cpu family", "model", "stepping"),
    (
        ("avx512", frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"})),
        ("avx2", frozenset({"avx2", "fma"})),
        ("avx", frozenset({"avx"})),
        ("sse4", frozenset({"sse4_1"})),
    ),
    {
        "avx512_vnni": "vnni",
        "avx_vnni": "avx-vnni",
        "avx512_bf16": "bf16",
        "avx512_fp16": "fp16",
        "amx_tile": "amx",
    },
    ("sse", "ssse", "pni", "avx", "fma", "f16c", "bmi", "xop", "amx"),
)
ARM = Family(
    "Features",
    ("CPU implementer", "CPU part", "CPU variant", "CPU revision"),
    (("sve2", frozenset({"sve2"})), ("sve", frozenset({"sve"})), ("neon", frozenset({"asimd"}))),
    {"asimdhp": "fp16", "bf16": "bf16", "i8mm": "i8mm", "sme": "sme"},
    ("fp", "asimd", "sve", "sme", "bf16", "i8mm", "fcma", "jscvt"),
)


@cache
def processor(cpuinfo: Path = CPUINFO, caches: Path = CACHES) -> str | None:
    """Maker and numbers, instructions with a digest of all that are of arithmetic, caches; `None` where not told.

    "Intel 6/143/8 avx512 vnni bf16 fp16 amx flags 36c6d0 caches 48K/2M/105M for 2" shares its last cache among 2.
    """
    blocks = _blocks(cpuinfo)
    named = " ".join(dict.fromkeys(name for block in blocks if (name := _name(block))))
    if not named and cpuinfo == CPUINFO:
        named = _name_elsewhere()
    return " ".join(filter(None, (named, _instructions(blocks), _caches(caches)))) if named else None


@cache
def vector_capability(asked: str = "", cpuinfo: Path = CPUINFO) -> str | None:
    """The kernels that torch takes: those `asked` for in ATEN_CPU_CAPABILITY, else the widest that the flags allow.

    `None` where no x86 flags are listed.
    """
    flags = _flags(_blocks(cpuinfo), X86)
    if not flags or asked in ("default", "avx2", "avx512"):
        return asked if flags else None
    return next((word for word, needed in X86.widest[:2] if needed <= flags), "default")


@cache
def _blocks(cpuinfo: Path) -> tuple[Block, ...]:
    """All blocks of the file; of x86, where it is slow to read and all are alike, the first."""
    return tuple(_read(cpuinfo))


def _read(cpuinfo: Path) -> Iterator[Block]:
    block: Block = {}
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                name, colon, value = line.partition(":")
                if colon:
                    block[name.strip()] = value.strip()
                elif block:
                    yield block
                    if X86.flags in block:
                        return
                    block = {}
    except OSError:
        return
    if block:
        yield block


def _name(block: Block) -> str:
    for family in (X86, ARM):
        if all(block.get(name) for name in family.numbers):
            maker, *numbers = (block[name] for name in family.numbers)
            return f"{MAKERS.get(maker, maker)} {'/'.join(numbers)}"
    return next((block[name] for name in NAMES if block.get(name)), "")


def _flags(blocks: tuple[Block, ...], family: Family) -> frozenset[str]:
    """The flags that every processor has."""
    listed = [frozenset(block[family.flags].split()) for block in blocks if family.flags in block]
    return frozenset.intersection(*listed) if listed else frozenset()


def _instructions(blocks: tuple[Block, ...]) -> str:
    for family in (X86, ARM):
        flags = frozenset(flag for flag in _flags(blocks, family) if flag.startswith(family.arithmetic))
        if flags:
            widest = [word for word, needed in family.widest if needed <= flags][:1]
            others = [word for flag, word in family.others.items() if flag in flags]
            digest = hashlib.blake2b(" ".join(sorted(flags)).encode(), digest_size=3).hexdigest()
            return " ".join([*widest, *others, "flags", digest])
    return ""


def _caches(folder: Path) -> str:
    """Sizes of the data caches, the first level first, and how many processors share the last."""
    found = sorted(_each_cache(folder))
    return f"caches {'/'.join(size for _, size, _ in found)} for {found[-1][2]}" if found else ""


def _each_cache(folder: Path) -> Iterator[tuple[int, str, int]]:
    """Level, size and the number of processors that share it."""
    for index in folder.glob("index*"):
        try:
            kind, level, size, sharing = (
                (index / name).read_text(encoding="utf-8").strip()
                for name in ("type", "level", "size", "shared_cpu_list")
            )
            if kind != "Instruction":
                yield int(level), _size(size), sum(map(_count, sharing.split(",")))
        except (OSError, ValueError):  # not told
            continue


def _size(told: str) -> str:
    """
    >>> _size("48K"), _size("107520K")
    ('48K', '105M')
    """
    kilobytes = int(told.removesuffix("K"))
    return f"{kilobytes}K" if kilobytes % 1024 else f"{kilobytes // 1024}M"


def _count(span: str) -> int:
    first, _, last = span.partition("-")
    return int(last or first) - int(first) + 1


def _name_elsewhere() -> str:
    """The name that Windows and macOS give the processor; empty where they give none."""
    if platform.system() == "Windows":
        return " ".join(platform.processor().replace(",", "").split())
    if platform.system() != "Darwin":
        return ""
    command = [SYSCTL, "-n", "machdep.cpu.brand_string"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return " ".join(found.stdout.split())

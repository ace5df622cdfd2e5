"""What does /proc/cpuinfo say: the CPUs that are online, the model, the instruction sets, and ids as a last resort? Pure.

Each architecture writes its own form (arch/*/kernel/{proc,setup,processor,cpu}.c of Linux); nothing but the keys below is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

KEYS = (
    *("processor", "physical id", "core id", "vendor_id", "model name", "flags"),
    *("Features", "CPU implementer", "CPU part", "CPU architecture", "Processor"),
    *("cpu", "isa", "uarch", "mvendorid", "hart", "features", "Model Name", "cpu model", "cpu number"),
)
"""What the parser reads; a capture keeps these lines and no other (no serial numbers)."""

_ISA = re.compile(
    r"(?:sse\d?|ssse3|sse4_\d|avx|avx2|avx512\w*|avx_\w+|avx10\w*|amx_\w+|fma|fma4|f16c|bmi[12]"
    r"|neon|asimd\w*|fphp|sve\w*|sme|sme[2a-z]\w{2,}|i8mm|bf16|fhm|altivec|vsx|mma|vx\w*|nnpa|dfp|rvv|zv\w+|lsx|lasx|msa)\Z"
)

# Source: arch/arm64/include/asm/cputype.h of Linux (implementer, part).
_ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x43, 0x0A1): "ThunderX",
    (0x43, 0x0AF): "ThunderX2",
    (0x46, 0x001): "A64FX",
    (0x48, 0xD01): "Kunpeng-920",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xC0E): "Cortex-A17",
    (0x41, 0xD80): "Cortex-A520",
    (0x61, 0x022): "Apple M1 Icestorm",
    (0x61, 0x023): "Apple M1 Firestorm",
    (0x61, 0x032): "Apple M2 Blizzard",
    (0x61, 0x033): "Apple M2 Avalanche",
}
_ARM_LITTLE = frozenset(
    {
        (0x41, 0xC07),
        (0x41, 0xD03),
        (0x41, 0xD04),
        (0x41, 0xD05),
        (0x41, 0xD46),
        (0x41, 0xD80),
        (0x61, 0x022),
        (0x61, 0x032),
    }
)
"""Parts that are the efficiency half where a machine has both (big.LITTLE, DynamIQ); for kernels without cpu_capacity."""


@dataclass(frozen=True, slots=True)
class ProcessorLine:
    """What cpuinfo says of one online CPU."""

    cpu: int
    package_id: int | None
    core_id: int | None
    little: bool | None
    """Arm: whether its part is an efficiency core; None elsewhere and for parts not known."""


@dataclass(frozen=True, slots=True)
class CpuInfo:
    processors: tuple[ProcessorLine, ...]
    """The online CPUs, ascending."""
    model_name: str
    isa: tuple[str, ...]
    """Instruction sets that every CPU has, sorted."""
    arch: str


def parse_cpuinfo(text: str) -> CpuInfo:
    """Never fails: what is not understood is left out, as another architecture's form would be."""
    fields: dict[str, str] = {}
    blocks: list[dict[str, str]] = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key = key.strip()
        if not colon:
            continue
        value = value.strip()
        short = re.fullmatch(r"processor (\d+)", key)  # s390: one line per CPU, its data behind the number
        if short:
            blocks.append({"processor": short[1], "s390": value})
        elif key in ("processor", "cpu number") and value.isdigit():  # s390 gives its ids under `cpu number`
            blocks.append({"processor": value})
        elif blocks and key not in blocks[-1]:
            blocks[-1][key] = value
        fields.setdefault(key, value)
    processors = {
        int(block["processor"]): ProcessorLine(
            int(block["processor"]),
            _integer(block.get("physical id")),
            _integer(block.get("core id")),
            None if (part := _arm_part(block)) is None else part in _ARM_LITTLE,
        )
        for block in blocks
    }
    arch = _arch(fields)
    return CpuInfo(
        processors=tuple(processors[cpu] for cpu in sorted(processors)),
        model_name=_model_name(fields, blocks, arch),
        isa=_isa(fields, blocks, arch),
        arch=arch,
    )


def known_isa(flags: Sequence[str]) -> tuple[str, ...]:
    """Those of the kernel's flags that name instruction sets which matter to a model server, sorted."""
    return tuple(sorted({flag for flag in flags if _ISA.match(flag)}))


def sanitized(text: str) -> str:
    """The same text with only the lines the parser reads, and of their flags only the instruction sets."""
    lines = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        name = key.strip()
        if not line.strip():
            lines.append("")
        elif re.fullmatch(r"processor \d+", name):
            machine = re.search(r"machine\s*=\s*\w+", value)
            lines.append(f"{name}: {machine[0] if machine else ''}")
        elif name in ("flags", "Features"):
            # `lm` and `fp` tell 64 bits from 32 on x86 and Arm.
            lines.append(f"{name}\t: {' '.join(f for f in value.split() if _ISA.match(f) or f in ('lm', 'fp'))}")
        elif colon and name in KEYS:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _arm_part(block: dict[str, str]) -> tuple[int, int] | None:
    try:
        return int(block["CPU implementer"], 16), int(block["CPU part"], 16)
    except (KeyError, ValueError):
        return None


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _arch(fields: dict[str, str]) -> str:
    if "CPU implementer" in fields:
        features = fields.get("Features", "").split()
        return "aarch64" if "asimd" in features or "fp" in features else "arm"
    if fields.get("vendor_id", "").startswith("IBM/S390"):
        return "s390x"
    if "flags" in fields:
        return "x86_64" if "lm" in fields["flags"].split() else "i686"
    if re.match(r"POWER|PPC|ppc", fields.get("cpu", "")):
        return "ppc64"
    if fields.get("isa", "").startswith("rv"):
        return "riscv64" if fields["isa"].startswith("rv64") else "riscv32"
    if "loongarch" in fields.get("isa", "").lower() or "Loongson" in fields.get("Model Name", ""):
        return "loongarch64"
    return ""


def _model_name(fields: dict[str, str], blocks: list[dict[str, str]], arch: str) -> str:
    if arch in ("aarch64", "arm"):
        parts = []
        for block in blocks or [fields]:
            part = _arm_part(block)
            if part is None:
                continue
            name = _ARM_PARTS.get(part, f"Arm implementer {part[0]:#04x} part {part[1]:#05x}")
            if name not in parts:
                parts.append(name)
        if parts:
            return " + ".join(parts)
    if arch == "s390x":
        machine = next((m[1] for b in blocks if (m := re.search(r"machine\s*=\s*(\w+)", b.get("s390", "")))), None)
        return f"IBM/S390 {machine}" if machine else "IBM/S390"
    for key in ("model name", "Model Name", "Processor", "cpu model", "cpu", "uarch"):
        if fields.get(key):
            return fields[key]
    return ""


def _isa(fields: dict[str, str], blocks: list[dict[str, str]], arch: str) -> tuple[str, ...]:
    if arch == "ppc64":
        # cpuinfo names no features there; the architecture does: VSX since POWER7 (ISA 2.06), MMA since POWER10 (ISA 3.1).
        generation = re.match(r"POWER(\d+)", fields.get("cpu", ""))
        number = int(generation[1]) if generation else 0
        altivec = "altivec" in fields.get("cpu", "")
        return tuple(
            name for name, known in (("altivec", altivec), ("mma", number >= 10), ("vsx", number >= 7)) if known
        )
    if arch.startswith("riscv"):
        letters, *extensions = fields["isa"].lower().split("_")
        vector = ["rvv"] if "v" in re.sub(r"^rv\d+", "", letters) else []
        return known_isa([*vector, *extensions])
    described = [block for block in blocks if {"flags", "Features", "features"} & block.keys()] or [fields]
    # Nearly always one text for all CPUs: each is taken apart once.
    texts = {block.get("flags") or block.get("Features") or block.get("features") or "" for block in described}
    common = set.intersection(*(set(text.split()) for text in texts))
    return known_isa(sorted(common))

"""Which integer and vector instructions this CPU has: the same int8 graph can answer differently without them."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

INTERESTING = ("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")


@functools.cache
def features() -> tuple[str, ...]:
    """The flags of ``INTERESTING`` that this CPU reports, or () where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            have = set(value.split())
            return tuple(f for f in INTERESTING if f in have)
    return ()


def has_vnni() -> bool:
    """Whether u8 × s8 products are summed without saturating at 16 bits (x86 VNNI, AMX or Arm dot products)."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"} & set(features()))


def description() -> str:
    """Processor name, or its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.machine()
    return platform.machine()

"""The properties of the processor that choices between kernels depend on: its maker and its instruction sets."""

import platform
from functools import cache
from pathlib import Path

import torch
from attrs import field

from funcnet.errors import flag, one_of
from funcnet.value import Value, frozen

MAKERS = ("amd", "intel", "arm", "other")
_VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel", "CPU implementer": "arm"}
_CPUINFO = Path("/proc/cpuinfo")


@frozen
class Processor(Value):
    """A processor: its maker and the instruction sets that torch may use on it.

    Args:
        maker: ``"amd"``, ``"intel"``, ``"arm"`` or ``"other"``.
        avx512: Whether it has the parts of AVX-512 that torch's kernels require.
        bf16: Whether it has instructions that multiply bfloat16: AVX512-BF16, AMX, or ARM's BF16.
        amx: Whether it has AMX, whose tiles multiply bfloat16 about eight times as fast as float32.
        vp2intersect: Whether it has AVX512-VP2INTERSECT, which identifies AMD processors from Zen 5 on. Their AVX-512 units have
            512 bits; those of Zen 4 have 256, and multiply float32 half as fast.

    >>> Processor("amd", avx512=True)
    Processor(maker='amd', avx512=True)
    """

    maker: str = field(validator=one_of(*MAKERS))
    avx512: bool = field(default=False, validator=flag)
    bf16: bool = field(default=False, validator=flag)
    amx: bool = field(default=False, validator=flag)
    vp2intersect: bool = field(default=False, validator=flag)


@cache
def this_processor() -> Processor:
    """Return the processor of this process, read once.

    With ``ATEN_CPU_CAPABILITY=avx2`` in the environment, torch does not use AVX-512, and ``avx512`` is ``False``. Only Linux
    reports the maker; elsewhere it is ``"arm"`` or ``"other"``, and ``avx512`` is what torch reports.
    """
    return processor_of(_cpuinfo(), torch.backends.cpu.get_cpu_capability(), platform.machine())


def processor_of(cpuinfo: str, capability: str, machine: str) -> Processor:
    """Parse the processor from a text like ``/proc/cpuinfo``.

    Args:
        cpuinfo: The text; empty if the system has no such file.
        capability: The instruction set of torch's kernels: ``"AVX512"``, ``"AVX2"``, ``"DEFAULT"``.
        machine: The machine's architecture, from ``platform.machine()``.
    """
    is_arm = machine.lower() in ("aarch64", "arm64")
    maker = next((maker for vendor, maker in _VENDORS.items() if vendor in cpuinfo), "arm" if is_arm else "other")
    flags = _flags(cpuinfo)
    avx512 = capability.startswith("AVX512")
    amx = avx512 and {"amx_tile", "amx_bf16"} <= flags
    bf16 = amx or (avx512 and "avx512_bf16" in flags) or (maker == "arm" and "bf16" in flags)
    return Processor(maker, avx512, bf16, amx, avx512 and "avx512_vp2intersect" in flags)


def _flags(cpuinfo: str) -> set[str]:
    """Return the instruction sets of the first core."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return next((set(flags.split()) for name, _, flags in lines if name.strip() in ("flags", "Features")), set())


def _cpuinfo() -> str:
    try:
        return _CPUINFO.read_text(errors="replace")
    except OSError:
        return ""

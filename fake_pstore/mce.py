# SPDX-License-Identifier: Apache-2.0
"""struct mce as the ERST backend stores it for a fatal machine check: four lengths, by kernel (uapi asm/mce.h)."""

import struct

LENGTHS = (88, 112, 120, 128)
"""Up to v4.8; v4.10 to v4.13; v4.15 to v5.7; since v5.8."""

#   status misc addr mcgstatus ip tsc time | cpuvendor inject_flags severity pad cpuid cs bank cpu finished
#   extcpu socketid apicid mcgcap | synd ipid ppin | microcode (pad) | kflags
_STRUCT = struct.Struct("<7Q4BI4B3IQ3QI4xQ")

STATUS = 0xBE00000000800400
"""Valid, uncorrected, enabled, with address and miscellaneous data, context corrupt: the core lost power."""


def mce_record(length: int, *, time: int, ip: int, cpu: int = 1, bank: int = 4) -> bytes:
    """The first *length* bytes of a struct mce, which is all an older kernel has.

    Args:
        time: Unix seconds by the clock of the boot that crashed.
    """
    full = _STRUCT.pack(
        STATUS, 0x86, 0xDEADB000, 5, ip, 0x4C5740EE6, time,
        2, 0, 0, 0, 0x60FB1, 0x10, bank, cpu, 0,
        cpu, 0, cpu, 0x0100010A,
        0, 0, 0,
        0x01000065,
        0,
    )  # fmt: skip
    assert len(full) == LENGTHS[-1]
    return full[:length]

# SPDX-License-Identifier: Apache-2.0
"""What the codes of a machine check mean: the error code, and the unit that AMD's identifier of a bank names.

Source: Intel SDM volume 3B ("Interpreting Machine-Check Error Codes"); AMD APM volume 2 ("Machine Check Architecture")
and the Processor Programming References; arch/x86/kernel/cpu/mce/amd.c, smca_hwid_mcatypes[].
"""

_SIMPLE = {
    0x0000: "no error code",
    0x0001: "unclassified error",
    0x0002: "microcode ROM parity error",
    0x0003: "external error (BINIT# of another processor)",
    0x0004: "functional redundancy check error",
    0x0005: "internal parity error",
    0x0006: "SMM handler code access violation",
    0x0400: "internal timer error",
    0x0E0B: "generic I/O error",
}
_FILTERED = 0x1000  # Intel's F bit, in compound codes

_REQUESTS = (
    "any request",
    "read",
    "write",
    "data read",
    "data write",
    "instruction fetch",
    "prefetch",
    "eviction",
    "snoop",
)
_TRANSACTIONS = ("instruction", "data", "generic", "reserved-type")
_LEVELS = ("level 0", "level 1", "level 2", "generic level")
_MEMORY_REQUESTS = ("undefined request", "read", "write", "address or command", "scrubbing")
_PARTICIPANTS = ("requested by this processor", "answered by this processor", "seen by a third party", "any party")
_BUS_TARGETS = ("memory", "reserved target", "I/O", "other transaction")


def error_words(code: int, *, is_amd: bool) -> str:
    """An MCA error code in words, as the vendor defines it."""
    if is_amd:
        return _amd_words(code)
    if code in _SIMPLE:
        return _SIMPLE[code]
    if code & 0xFC00 == 0x0400:
        return "internal unclassified error"
    words = _compound_words(code & ~_FILTERED)
    if words is None:
        return f"error of unknown class {code:#06x}"
    return f"{words} (further reports filtered)" if code & _FILTERED else words


#   code of AMD = 0000 0001 RRRR TTLL / 0000 0000 0001 TTLL / 0000 1PPT RRRR IILL / 0000 01UU 0000 0000
def _amd_words(code: int) -> str:
    if code == 0:
        return "no error code"
    if code & 0xFCFF == 0x0400:
        return "hardware assertion" if code & 0x0300 == 0x0200 else "internal unclassified error"
    words = None
    if code & 0xFFF0 == 0x0010 or code & 0xFF00 == 0x0100 or code & 0xF800 == 0x0800:
        words = _compound_words(code)
    return words or f"error of unknown class {code:#06x}"


#   compound code = 0000 0000 0000 11LL     generic cache hierarchy
#                 / 0000 0000 0001 TTLL     TLB
#                 / 0000 0000 1MMM CCCC     memory controller
#                 / 0000 0001 RRRR TTLL     cache hierarchy
#                 / 0000 0010 1MMM CCCC     extended memory (memory used as cache)
#                 / 0000 1PPT RRRR IILL     bus and interconnect
def _compound_words(code: int) -> str | None:
    level = _LEVELS[code & 3]
    kind = _TRANSACTIONS[code >> 2 & 3]
    request = _named(_REQUESTS, code >> 4 & 0xF)
    if code & 0xFFFC == 0x000C:
        return f"{level} cache hierarchy error"
    if code & 0xFFF0 == 0x0010:
        return f"{level} {kind} TLB error"
    if code & 0xFF80 == 0x0080:
        return f"memory controller error on {_memory_words(code)}"
    if code & 0xFF00 == 0x0100:
        return f"{level} {kind} cache error on {request}"
    if code & 0xFF80 == 0x0280:
        return f"extended memory error on {_memory_words(code)}"
    if code & 0xF800 == 0x0800:
        timeout = ", timed out" if code & 0x0100 else ""
        target = _BUS_TARGETS[code >> 2 & 3]
        return f"bus or interconnect error on {request} ({target}, {level}, {_PARTICIPANTS[code >> 9 & 3]}{timeout})"
    return None


def _memory_words(code: int) -> str:
    channel = code & 0xF
    where = "channel not given" if channel == 0xF else f"channel {channel}"
    return f"{_named(_MEMORY_REQUESTS, code >> 4 & 7)}, {where}"


def _named(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else f"reserved request {index}"


# --- units -----------------------------------------------------------------------------------------------------------

_UNITS = {
    (0xB0, 0x0): "load-store unit",
    (0xB0, 0x10): "load-store unit",
    (0xB0, 0x1): "instruction fetch unit",
    (0xB0, 0x2): "L2 cache",
    (0xB0, 0x3): "decode unit",
    (0xB0, 0x5): "execution unit",
    (0xB0, 0x6): "floating point unit",
    (0xB0, 0x7): "L3 cache",
    (0x2E, 0x0): "coherent slave of the data fabric",
    (0x2E, 0x2): "coherent slave of the data fabric",
    (0x2E, 0x1): "power, interrupts and others of the data fabric",
    (0x2E, 0x4): "memory attached last level cache",
    (0x96, 0x0): "memory controller",
    (0x96, 0x1): "memory controller",
    (0x05, 0x0): "parameter block",
    (0xFF, 0x0): "platform security processor",
    (0xFF, 0x1): "platform security processor",
    (0x01, 0x0): "system management unit",
    (0x01, 0x1): "system management unit",
    (0x01, 0x2): "microprocessor 5",
    (0x01, 0x3): "MPDMA unit",
    (0x18, 0x0): "northbridge I/O unit",
    (0x46, 0x0): "PCI Express unit",
    (0x46, 0x1): "PCI Express unit",
    (0x50, 0x0): "xGMI link",
    (0x6C, 0x0): "NBIF unit",
    (0x80, 0x0): "system hub unit",
    (0xA8, 0x0): "SATA unit",
    (0xAA, 0x0): "USB unit",
    (0x241, 0x0): "GMI link",
    (0x259, 0x0): "xGMI PHY",
    (0x267, 0x0): "WAFL PHY",
    (0x269, 0x0): "GMI PHY",
}


def smca_unit(ipid: int) -> str | None:
    """The unit that MCA_IPID names, as AMD's Scalable MCA has it: hardware id and type; None if it is not known."""
    return _UNITS.get((ipid >> 32 & 0xFFF, ipid >> 48))

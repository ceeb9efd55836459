# SPDX-License-Identifier: Apache-2.0
r"""Machine checks: the binary ``struct mce`` that a dying x86 kernel stores through ACPI ERST, in words.

The record is the struct as it was in memory, without any header (arch/x86/kernel/cpu/mce/apei.c, apei_write_mce();
arch/x86/include/uapi/asm/mce.h), little-endian with natural alignment.  It only ever grew at its end, so its length
says which fields are there:

======  ==========  ==================================
bytes   kernels     last fields
======  ==========  ==================================
88      up to 4.8   mcgcap
112     4.10-4.13   synd, ipid, ppin
120     4.15-5.7    microcode, 4 bytes of padding
128     since 5.8   kflags
======  ==========  ==================================

What the bits mean is Intel's SDM volume 3B ("Machine-Check Architecture", "Interpreting Machine-Check Error Codes")
and AMD's APM volume 2 ("Machine Check Architecture").  The vendors share the upper status bits and most error codes;
where they differ, the vendor in the record decides.  Banks and model-specific codes differ from model to model and are
given as numbers.

Contract: a record of 88 bytes or more gives an :class:`Mce`, a shorter one :class:`DamagedError`.
"""

import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pstored.errors import DamagedError
from pstored.parse.mcecodes import error_words, smca_unit

_BASE = struct.Struct("<7Q4BI4B3IQ")  # 88 bytes
_SYND = struct.Struct("<3Q")
_MICROCODE = struct.Struct("<I4x")
_KFLAGS = struct.Struct("<Q")
_LENGTHS = (88, 112, 120, 128)

_TIME_MAX = 253_402_300_799
"""9999-12-31: the last second that datetime knows; a later one is damage."""

_VENDORS = {  # arch/x86/include/asm/processor.h
    0: "Intel",
    1: "Cyrix",
    2: "AMD",
    3: "UMC",
    5: "Centaur",
    7: "Transmeta",
    8: "National Semiconductor",
    9: "Hygon",
    10: "Zhaoxin",
    11: "Vortex86",
}
_AMD = 2
_AMD_VENDORS = frozenset((_AMD, 9))
_SMCA_FAMILY = 0x17  # Zen and later: Scalable MCA

# MCi_STATUS
_VAL, _OVER, _UC, _EN, _MISCV, _ADDRV, _PCC, _S, _AR = (1 << bit for bit in range(63, 54, -1))
_AMD_SYNDV, _AMD_CECC, _AMD_UECC, _AMD_DEFERRED, _AMD_POISON = (1 << bit for bit in (53, 46, 45, 44, 43))
_AMD_TCC = _AR
# MCG_STATUS
_RIPV, _EIPV, _MCIP, _LMCE = 1, 2, 4, 8
# MCG_CAP
_CMCI_P = 1 << 10
_TES_P = 1 << 11
_SER_P = 1 << 24

_STATUS_BITS = (
    (_VAL, "VAL", "the bank holds an error"),
    (_OVER, "OVER", "an earlier error was overwritten or a later one lost"),
    (_UC, "UC", "not corrected"),
    (_EN, "EN", "reporting of this error was enabled"),
    (_MISCV, "MISCV", "misc is valid"),
    (_ADDRV, "ADDRV", "the address is valid"),
    (_PCC, "PCC", "the processor's context may be corrupt"),
)
_RECOVERY_BITS = (
    (_S, "S", "signalled by a machine-check exception"),
    (_AR, "AR", "software must act before it goes on"),
)
_AMD_BITS = (
    (_AMD_CECC, "CECC", "corrected by ECC"),
    (_AMD_UECC, "UECC", "found, but not corrected by ECC"),
    (_AMD_DEFERRED, "DEFERRED", "not corrected, and not yet used"),
    (_AMD_POISON, "POISON", "poisoned data was used"),
)
_SMCA_BITS = (
    (_AMD_TCC, "TCC", "the task's context may be corrupt"),
    (_AMD_SYNDV, "SYNDV", "the syndrome is valid"),
)
_MCG_BITS = (
    (_RIPV, "RIPV", "the program could be restarted at ip"),
    (_EIPV, "EIPV", "ip belongs to the error"),
    (_MCIP, "MCIP", "a machine check was in progress"),
    (_LMCE, "LMCE", "only this CPU was told"),
)


class Severity(StrEnum):
    """How bad the error in the bank was, by its status bits."""

    NONE = "no"
    """VAL is not set: the bank held no error."""
    CORRECTED = "corrected"
    DEFERRED = "deferred"
    """AMD: not corrected, but the bad data had not been used."""
    UNCORRECTED = "uncorrected"
    """Not corrected, though a kernel may be able to go on."""
    FATAL = "fatal"
    """Nothing can go on: the processor's context is corrupt, or cannot be resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mce:
    """One machine check.  The kernel leaves 0 where it does not know a value."""

    status: int
    """MCi_STATUS."""
    misc: int
    """MCi_MISC; means something only with MISCV in ``status``."""
    addr: int
    """MCi_ADDR; means something only with ADDRV in ``status``, see ``address``."""
    mcgstatus: int
    """MCG_STATUS."""
    ip: int
    """Instruction pointer when the check was raised; the error's own only with EIPV in ``mcgstatus``."""
    tsc: int
    """Time stamp counter of the CPU."""
    time_s: int
    """Wall clock of the crashed kernel, seconds since 1970; see ``time``."""
    cpuvendor: int
    """X86_VENDOR_*."""
    inject_flags: int
    """MCJ_*: set by some tools that inject machine checks for a test."""
    kernel_severity: int
    """The kernel's own grade, enum severity_level of that kernel; often 0, and padding before about v4.1."""
    cpuid: int
    """EAX of CPUID leaf 1: family, model, stepping."""
    cs: int
    """Code segment of ``ip``."""
    bank: int
    """The MCA bank; from 128 on one of the kernel's own (128 is thermal)."""
    cpu: int
    """Linux number of the CPU that noticed it (``extcpu``)."""
    finished: int
    """1 once the kernel had filled the entry; not used since 4.x."""
    socketid: int
    apicid: int
    mcgcap: int
    """MCG_CAP; its low byte is the number of banks."""
    synd: int | None
    """AMD's syndrome; None before Linux v4.10, as are the next two."""
    ipid: int | None
    """AMD's MCA_IPID: which kind of unit the bank belongs to."""
    ppin: int | None
    """Protected processor inventory number."""
    microcode: int | None
    """Revision; None before Linux v4.15."""
    kflags: int | None
    """Which decoders of the kernel saw it; None before Linux v5.8."""
    damage: tuple[str, ...]
    """What is missing or in doubt; one sentence each."""

    @property
    def is_amd(self) -> bool:
        """The bits are to be read as AMD (and Hygon) defines them."""
        return self.cpuvendor in _AMD_VENDORS

    @property
    def is_smca(self) -> bool:
        """The CPU has AMD's Scalable MCA."""
        return self.is_amd and (bool(self.ipid) or self.cpu_signature[0] >= _SMCA_FAMILY)

    @property
    def vendor(self) -> str:
        """The maker of the CPU."""
        return _VENDORS.get(self.cpuvendor, f"vendor {self.cpuvendor}")

    @property
    def cpu_signature(self) -> tuple[int, int, int]:
        """Family, model and stepping as the kernel counts them (arch/x86/lib/cpu.c, x86_family(), x86_model())."""
        family = self.cpuid >> 8 & 0xF
        model = self.cpuid >> 4 & 0xF
        if family == 0xF:
            family += self.cpuid >> 20 & 0xFF
        if family >= 6:
            model += (self.cpuid >> 16 & 0xF) << 4
        return family, model, self.cpuid & 0xF

    @property
    def time(self) -> datetime | None:
        """When, by the clock of the crashed kernel; None if it did not know or the value cannot be."""
        return datetime.fromtimestamp(self.time_s, UTC) if 0 < self.time_s <= _TIME_MAX else None

    @property
    def address(self) -> int | None:
        """The address of the error; None if the bank gives none.  It is not always a physical one."""
        return self.addr if self.status & _ADDRV else None

    @property
    def error_code(self) -> int:
        """The MCA error code: status bits 0 to 15."""
        return self.status & 0xFFFF

    @property
    def model_code(self) -> int:
        """The model-specific error code: status bits 16 to 31."""
        return self.status >> 16 & 0xFFFF

    @property
    def error(self) -> str:
        """The error code in words."""
        return error_words(self.error_code, is_amd=self.is_amd)

    @property
    def extended_code(self) -> int | None:
        """AMD's extended error code, bits 16 to 21 since Scalable MCA: what it means depends on the unit."""
        return self.status >> 16 & 0x3F if self.is_smca else None

    @property
    def unit(self) -> str | None:
        """The unit whose bank it is, where the record says so: AMD's Scalable MCA."""
        return smca_unit(self.ipid) if self.ipid else None

    @property
    def tracking(self) -> str | None:
        """How the hardware rates the corrected errors so far (Intel, MCG_TES_P): green or yellow; None: not at all."""
        if self.is_amd or not self.mcgcap & _TES_P or self.status & _UC:
            return None
        return (None, "green: below the threshold", "yellow: above the threshold", None)[self.status >> 53 & 3]

    @property
    def corrected_count(self) -> int | None:
        """How many corrected errors the bank had counted; None where it does not count (Intel, MCG_CMCI_P)."""
        if self.is_amd or not self.mcgcap & _CMCI_P or self.status & _UC:
            return None
        return self.status >> 38 & 0x7FFF

    @property
    def flags(self) -> tuple[tuple[str, str], ...]:
        """The status bits that are set: name and meaning."""
        known: tuple[tuple[int, str, str], ...] = _STATUS_BITS
        if self.is_amd:
            known += _AMD_BITS + (_SMCA_BITS if self.is_smca else ())
        elif self.mcgcap & _SER_P:
            known += _RECOVERY_BITS
        return _set_bits(self.status, known)

    @property
    def mcg_flags(self) -> tuple[tuple[str, str], ...]:
        """The bits of ``mcgstatus`` that are set: name and meaning."""
        return _set_bits(self.mcgstatus, _MCG_BITS)

    @property
    def severity(self) -> Severity:
        """How bad it was."""
        return _graded(self)[0]

    @property
    def reason(self) -> str | None:
        """Why it has this severity, where more can be said."""
        return _graded(self)[1]

    @property
    def summary(self) -> str:
        """One sentence, e.g. ``fatal machine check on CPU 0, bank 4: internal timer error, address 0xdeadb000``."""
        where = f"machine check on CPU {self.cpu}, bank {self.bank}"
        if self.severity is Severity.NONE:
            return f"{where}: the bank held no error"
        parts = [self.error]
        if self.reason:
            parts.append(self.reason)
        if self.address is not None:
            parts.append(f"address {self.address:#x}")
        return f"{self.severity} {where}: {', '.join(parts)}"

    def render(self) -> bytes:
        """Give what a person reads: the summary, then every field with its meaning, ASCII."""
        lines = [self.summary, ""]
        for name, value in _shown(self):
            lines.append(f"{name:<12}{value}")
        return "\n".join([*lines, ""]).encode("ascii")


def parse_mce(data: bytes) -> Mce:
    """Read a machine check record.

    Args:
        data: the struct, 88 bytes or longer.

    Raises:
        DamagedError: fewer bytes than the oldest kernel's struct has.
    """
    size = len(data)
    if size < _BASE.size:
        raise DamagedError(f"no machine check: {size} bytes, where {_BASE.size} are the least", offset=size)
    known = max(length for length in _LENGTHS if length <= size)
    base = _BASE.unpack_from(data)
    status, misc, addr, mcgstatus, ip, tsc, time_s, cpuvendor, inject_flags, severity, _, cpuid = base[:12]
    cs, bank, _, finished, extcpu, socketid, apicid, mcgcap = base[12:]
    synd, ipid, ppin = _SYND.unpack_from(data, 88) if known >= 112 else (None, None, None)
    (microcode,) = _MICROCODE.unpack_from(data, 112) if known >= 120 else (None,)
    (kflags,) = _KFLAGS.unpack_from(data, 120) if known >= 128 else (None,)
    return Mce(
        status=status,
        misc=misc,
        addr=addr,
        mcgstatus=mcgstatus,
        ip=ip,
        tsc=tsc,
        time_s=time_s,
        cpuvendor=cpuvendor,
        inject_flags=inject_flags,
        kernel_severity=severity,
        cpuid=cpuid,
        cs=cs,
        bank=bank,
        cpu=extcpu,
        finished=finished,
        socketid=socketid,
        apicid=apicid,
        mcgcap=mcgcap,
        synd=synd,
        ipid=ipid,
        ppin=ppin,
        microcode=microcode,
        kflags=kflags,
        damage=_damage(size, known, status, time_s),
    )


def mce_of_bank(*, bank: int, status: int, address: int, misc: int, ipid: int, synd: int) -> Mce:
    """A machine check of which only the registers of AMD's bank are known: from firmware's records."""
    return Mce(
        status=status,
        misc=misc,
        addr=address,
        mcgstatus=_RIPV,
        ip=0,
        tsc=0,
        time_s=0,
        cpuvendor=_AMD,
        inject_flags=0,
        kernel_severity=0,
        cpuid=0,
        cs=0,
        bank=bank,
        cpu=0,
        finished=0,
        socketid=0,
        apicid=0,
        mcgcap=0,
        synd=synd,
        ipid=ipid,
        ppin=None,
        microcode=None,
        kflags=None,
        damage=(),
    )


def _damage(size: int, known: int, status: int, time_s: int) -> tuple[str, ...]:
    damage = []
    if size > _LENGTHS[-1]:
        damage.append(f"the struct has {size} bytes, more than any known kernel's: the first {known} were read")
    elif size != known:
        damage.append(f"{size} bytes are no known kernel's struct: the first {known} were read")
    if not status & _VAL:
        damage.append("the bank held no error: VAL is not set in its status")
    if time_s > _TIME_MAX:
        damage.append(f"the time cannot be: {time_s} seconds since 1970")
    return tuple(damage)


def _set_bits(value: int, known: tuple[tuple[int, str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, meaning) for bit, name, meaning in known if value & bit)


def _graded(mce: Mce) -> tuple[Severity, str | None]:
    # The rules of arch/x86/kernel/cpu/mce/severity.c that need nothing but the registers.
    status = mce.status
    if not status & _VAL:
        return Severity.NONE, None
    if not status & _UC:
        return (Severity.DEFERRED if mce.is_amd and status & _AMD_DEFERRED else Severity.CORRECTED), None
    if status & _PCC:
        return Severity.FATAL, "processor context corrupt"
    if mce.mcgstatus & _MCIP and not mce.mcgstatus & (_RIPV | _EIPV):
        return Severity.FATAL, "no address to resume at"
    if mce.is_smca and status & _AMD_TCC:
        return Severity.UNCORRECTED, "task context corrupt"
    if mce.is_amd or not mce.mcgcap & _SER_P:
        return Severity.UNCORRECTED, None
    if not status & _S:
        return Severity.UNCORRECTED, "no action required"
    if not status & _AR:
        return Severity.UNCORRECTED, "action optional"
    if status & _OVER:
        return Severity.FATAL, "action required and errors lost"
    return Severity.UNCORRECTED, "action required"


# --- what a person reads ---------------------------------------------------------------------------------------------


def _shown(mce: Mce) -> list[tuple[str, str]]:
    family, model, stepping = mce.cpu_signature
    time = mce.time
    rows = [
        ("time", "unknown" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"),
        ("cpu", f"{mce.cpu}, socket {mce.socketid}, APIC id {mce.apicid}"),
        ("processor", f"{mce.vendor}, family {family}, model {model}, stepping {stepping} (cpuid {mce.cpuid:#x})"),
        ("microcode", _hex(mce.microcode)),
        ("bank", f"{mce.bank} of {mce.mcgcap & 0xFF}{'' if mce.unit is None else f', {mce.unit}'}"),
        ("error", f"{mce.severity}{'' if mce.reason is None else f': {mce.reason}'}"),
        ("status", f"{mce.status:#018x}"),
        *_flag_rows(mce.flags),
        ("error code", f"{mce.error_code:#06x}  {mce.error}"),
        ("model code", f"{mce.model_code:#06x}  as the model defines it"),
        ("extended", "" if mce.extended_code is None else f"{mce.extended_code:#x}  as the unit defines it"),
        ("corrected", "" if mce.corrected_count is None else f"{mce.corrected_count} counted"),
        ("tracking", mce.tracking or ""),
        ("address", "not given" if mce.address is None else f"{mce.address:#x}{_address_kind(mce)}"),
        ("misc", f"{mce.misc:#x}" if mce.status & _MISCV else ""),
        ("mcgstatus", f"{mce.mcgstatus:#x}"),
        *_flag_rows(mce.mcg_flags),
        ("ip", f"{mce.cs:#x}:{mce.ip:#018x}{'' if mce.mcgstatus & _EIPV else '  not exact: where the CPU was'}"),
        ("mcgcap", f"{mce.mcgcap:#x}"),
        ("tsc", f"{mce.tsc:#x}"),
        ("synd", _hex(mce.synd)),
        ("ipid", _hex(mce.ipid)),
        ("ppin", _hex(mce.ppin)),
        ("kflags", _hex(mce.kflags)),
        ("injected", f"{mce.inject_flags:#x}" if mce.inject_flags else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _flag_rows(flags: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [("", f"{name:<9}{meaning}") for name, meaning in flags]


def _hex(value: int | None) -> str:
    # 0 is the kernel's word for not known
    return f"{value:#x}" if value else ""


def _address_kind(mce: Mce) -> str:
    # arch/x86/include/asm/mce.h, MCI_MISC_ADDR_LSB() and _MODE(); Intel with MCG_SER_P only
    if mce.is_amd or not mce.mcgcap & _SER_P or not mce.status & _MISCV:
        return ""
    modes = {0: "segment offset", 1: "linear", 2: "physical", 3: "memory", 7: "generic"}
    mode = modes.get(mce.misc >> 6 & 7)
    return f"  {mode}, bits below {mce.misc & 0x3F} not known" if mode else ""

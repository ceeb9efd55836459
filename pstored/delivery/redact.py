# SPDX-License-Identifier: Apache-2.0
r"""What is left out of all that goes out: what identifies a machine or its owner, and what an attacker could use.

Each thing becomes a mark that says what it was, numbered where equal ones must be told from others: a register that
holds the address that faulted still does, ``RAX: <pointer-1> ... CR2: <pointer-1>``.  Versions, times, sizes, offsets,
``function+0x12/0x34``, error codes, taint, registers that hold small or poisoned values, PCI ids and boot ids stay.

When in doubt a thing goes; but what makes a crash worth sending is told apart by where it stands: a dotted number
behind "version" is one, and a value within 4095 of the top is an error number (include/linux/err.h), not an address.

Pure.  Linear in the text: every repetition has an upper bound, and what may begin a match is looked at once.
"""

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

KINDS = {
    "pointer": "addresses of the kernel and of programs",
    "mac": "hardware addresses of networks, also in the names of interfaces",
    "ip": "IPv4 and IPv6 addresses, but for loopback, masks and the unspecified one",
    "serial": "serial numbers and the like: of devices, disks, modems",
    "secret": "passwords, keys, tokens and credentials, on the command line and elsewhere",
    "word": "what `redact_words` names",
}
"""Kind to what it covers; the README has this table."""

KEPT = frozenset(
    (
        "id",
        "boot",
        "boot_id",
        "machine_id",
        "signature",
        "signature_loose",
        "sha256",
        "digest",
        "harvest_id",
        "harvests",
    )
)
"""Keys of a report whose values are digests and ids of ours: one in 4096 looks like a pointer."""

#   pointer = ["0x"] 16 hexadecimal digits: of the kernel's half (57 bits with five levels of page tables), also with a
#   memory tag (arm64); of a program's, where x86-64 and arm64 put stacks, libraries and executables
_POINTER = re.compile(
    r"(?<![0-9a-z_.])(?:0x)?(ff[0-9a-f]{14}|f[0-9a-e]ff[0-9a-f]{12}"
    r"|0000(?:7[ef]|5[56])[0-9a-f]{10}|0000(?:aaaa|ffff)[0-9a-f]{8}|(?<=0x)7[ef][0-9a-f]{10})(?![0-9a-z_])",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"\[<([0-9a-f]{8,16})>\]", re.IGNORECASE)
_ERROR = re.compile(r"f{13}[0-9a-f]{3}", re.IGNORECASE)
#   where other machines have their kernel; looked for only if the log is one of theirs
_ELSEWHERE = (
    (re.compile(r"\bNIP\b"), re.compile(r"(?<![0-9a-z_.])(?:0x)?([cd]0[0-9a-f]{14})(?![0-9a-z_])")),
    (
        re.compile(r"\bepc +:|\bera +:|\bERA:"),
        re.compile(r"(?<![0-9a-z_.])(?:0x)?([89a][0-9a-f]00[0-9a-f]{12})(?![0-9a-z_])"),
    ),
    (re.compile(r"\bKrnl PSW\b"), re.compile(r"(?<![0-9a-z_.])(?:0x)?(000003[0-9a-f]{10})(?![0-9a-z_])")),
)
_32_BIT = re.compile(r"\bEIP:|\bpc : \[<[0-9a-f]{8}>|\bPC is at |\bepc +: [0-9a-f]{8}\b|\bNIP:? +\[?[0-9a-f]{8}\b")
_POINTER_32 = re.compile(r"(?<![0-9a-z_.])(?:0x)?([89a-f][0-9a-f]{7})(?![0-9a-z_])")
_ERROR_32 = re.compile(r"f{5}[0-9a-f]{3}")
#   what stands before a word that is flags, or a code
_FLAGS = re.compile(
    r"(?:psr|cr0|cr4|msr|status|cause|flags|code|error|dac|control)[ \t]{0,4}[:=]?[ \t]{0,4}$", re.IGNORECASE
)

_MAC = re.compile(
    r"(?<![0-9a-z.-])(?<![^0-9a-f][0-9a-f]{2}:)(?:(?:[0-9a-f]{2}:){5,19}|(?:[0-9a-f]{2}-){5})[0-9a-f]{2}"
    r"(?![0-9a-z]|[:-][0-9a-f])",
    re.IGNORECASE,
)
_NO_MAC = re.compile(r"[0:-]{2,}|[f:-]{2,}", re.IGNORECASE)
_MAC_NAME = re.compile(r"(?<![0-9a-z])((?:en|wl|ww|ib)x)([0-9a-f]{12})(?![0-9a-z])")

_IPV4 = re.compile(
    r"(?<![\w.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:-(?:[0-9]{1,3}\.){3}[0-9]{1,3})?(?![\w]|\.[0-9]|-[a-z])", re.IGNORECASE
)
_VERSION = re.compile(
    r"\b(?:version|vers?|v|firmware|fw|rev|revision|release|bios|driver|microcode|nvm|build|api|abi)[ \t.:=#]{0,4}v?$",
    re.IGNORECASE,
)
#   four numbers that are a kernel's: 2.6.0 to 2.6.39 had stable releases of this form; Ubuntu's banner has them, too
_KERNEL = re.compile(r"2\.6\.[1-3]?[0-9]\.[0-9]{1,2}\Z")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9a-f]{0,4}:[0-9a-f]{0,4}:)[0-9a-f:]{2,40}(?![\w:])", re.IGNORECASE)

_SERIAL = re.compile(
    r"(?<![a-z])((?:serial[ _-]?(?:number|num|no)|serial(?==)|s/n|iserial|imei|imsi|iccid|meid|asset[ _-]?tag"
    r"|wwid|nguid)"
    r"[\"']?[ \t]{0,8}[:=#]?[ \t]{0,8}[\"']?)([\w./+-]{4,64})(?![\w:])",
    re.IGNORECASE,
)
_SERIAL_LINE = re.compile(r"(?<![a-z])(serial[ \t]{0,16}:[ \t]{0,16})([0-9a-f]{8,16})(?![\w/])", re.IGNORECASE)
_WWN = re.compile(r"(?<![\w])((?:eui|naa|wwn)[.-](?:0x)?)([0-9a-f]{12,32})(?![\w])", re.IGNORECASE)

_SECRET = re.compile(
    r"(?<![\w.-])([\w.-]{0,64}(?:passw(?:or)?d|passphrase|pwd|secret|token|credentials?(?:_binary)?|psk|key)[\"']?"
    r"(?:[ \t]?=[ \t]?|(?<!key)[\"']?:[ \t]{1,4}))(\"[^\"\n]{0,512}\"|'[^'\n]{0,512}'|[^\s\"']{1,512})",
    re.IGNORECASE,
)
_CRYPT = re.compile(
    r"(\b(?:crypt|aes-[\w:-]{1,40}|capi:[^\s]{1,60})[ \t])([0-9a-f]{32,256})(?![0-9a-z])", re.IGNORECASE
)
_USERINFO = re.compile(r"(://)[^\s/@:]{1,128}:[^\s/@]{1,256}(@)")
_BEARER = re.compile(r"(\bauthorization:[ \t]{0,4}\w{1,16}[ \t]|\bbearer[ \t])([\w.~+/=-]{16,2048})", re.IGNORECASE)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,2048}\.[\w-]{8,2048}\.[\w-]{0,1024}")
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^-]{1,8192}")

_WORD = re.compile(r"[^\s\"'(),;=\[\]<>{}]{1,256}")


class Redactor:
    """Redacts the texts of one parcel; equal things get equal numbers in all of them."""

    def __init__(self, words: Iterable[str] = (), *, of: str = "") -> None:
        """Take further *words*, shell patterns; *of* is the whole log, which tells what machine it is of."""
        self.counts: Counter[str] = Counter()
        """Kind to how many were left out."""
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()
        patterns = [fnmatch.translate(word) for word in words if word]
        self._words = re.compile("|".join(patterns)) if patterns else None
        self._elsewhere = [pointer for marker, pointer in _ELSEWHERE if marker.search(of)]
        self._is_32_bit = _32_BIT.search(of) is not None

    def text(self, text: str) -> str:
        """*text* with marks in the place of what must not go out."""
        if self._words is not None:
            text = _WORD.sub(self._word, text)
        for pattern in (_PEM, _CRYPT, _BEARER):
            text = pattern.sub(lambda m: m[1] + self._mark("secret"), text)
        text = _SECRET.sub(lambda m: m[1] + self._mark("secret"), text)
        text = _USERINFO.sub(lambda m: m[1] + self._mark("secret") + m[2], text)
        text = _JWT.sub(lambda _: self._mark("secret"), text)
        text = _SERIAL.sub(self._serial, text)
        for pattern in (_SERIAL_LINE, _WWN):
            text = pattern.sub(lambda m: m[1] + self._mark("serial", m[2]), text)
        text = _MAC.sub(self._mac, text)
        text = _MAC_NAME.sub(lambda m: m[1] + self._mark("mac", m[2]), text)
        text = _IPV4.sub(self._ipv4, text)
        text = _IPV6.sub(self._ipv6, text)
        text = _BRACKETED.sub(lambda m: f"[{self._mark('pointer', m[1])}]", text)
        for pattern in (_POINTER, *self._elsewhere):
            text = pattern.sub(self._pointer, text)
        return "".join(map(self._line_32, text.splitlines(keepends=True))) if self._is_32_bit else text

    def value(self, value: Any) -> Any:
        """The same for all strings in a JSON value, but for our own ids and digests."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {
                key: item if key in KEPT and not isinstance(item, dict) else self.value(item)
                for key, item in value.items()
            }
        return value

    # -- one thing

    def _mark(self, kind: str, what: str | None = None) -> str:
        """A mark, counted; with a number if *what* it was may stand elsewhere, too."""
        self.counts[kind] += 1
        if what is None:
            return f"<{kind}>"
        key = (kind, what.lower())
        if key not in self._numbers:
            self._last[kind] += 1
            self._numbers[key] = self._last[kind]
        return f"<{kind}-{self._numbers[key]}>"

    def _word(self, match: re.Match[str]) -> str:
        assert self._words is not None
        return self._mark("word", match[0]) if self._words.fullmatch(match[0].strip(".:")) else match[0]

    def _serial(self, match: re.Match[str]) -> str:
        if not any(c.isdigit() for c in match[2]):
            return match[0]
        return match[1] + self._mark("serial", match[2])

    def _mac(self, match: re.Match[str]) -> str:
        return match[0] if _NO_MAC.fullmatch(match[0]) else self._mark("mac", match[0])

    def _ipv4(self, match: re.Match[str]) -> str:
        octets = re.split(r"[.-]", match[0])
        is_address = all(int(o) < 256 and o == str(int(o)) for o in octets)
        plain = octets[0] in ("127", "255") or match[0] == "0.0.0.0" or _KERNEL.match(match[0])
        if not is_address or plain or _VERSION.search(match.string, max(0, match.start() - 24), match.start()):
            return match[0]
        return self._mark("ip", match[0])

    def _ipv6(self, match: re.Match[str]) -> str:
        groups = match[0].split(":")
        short = match[0].count("::")
        if any(len(group) > 4 for group in groups) or match[0] in ("::", "::1") or ":::" in match[0]:
            return match[0]
        whole = short == 0 and len(groups) == 8
        cut = short == 1 and len(groups) <= 9 and (len(groups) > 4 or any(c.isdigit() for c in match[0]))
        return self._mark("ip", match[0]) if whole or cut else match[0]

    def _pointer(self, match: re.Match[str]) -> str:
        return match[0] if _ERROR.fullmatch(match[1]) else self._mark("pointer", match[1])

    def _line_32(self, line: str) -> str:
        """A line of a 32-bit kernel's log: a word of the upper half is an address, unless it is code or flags."""
        return line if "Code:" in line else _POINTER_32.sub(self._pointer_32, line)

    def _pointer_32(self, match: re.Match[str]) -> str:
        before = match.string[max(0, match.start() - 16) : match.start()]
        if _ERROR_32.fullmatch(match[1]) or _FLAGS.search(before):
            return match[0]
        return self._mark("pointer", match[1])

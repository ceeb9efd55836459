# SPDX-License-Identifier: Apache-2.0
r"""VMCOREINFO: what a kernel says of itself for those who read its dump.

Source: kernel/crash_core.c (since 6.9 vmcore_info.c), include/linux/crash_core.h; Documentation/admin-guide/kdump/
vmcoreinfo.rst.  Lines of text::

    OSRELEASE=6.1.0-56-amd64        SYMBOL(prb)=ffffffffb8a643e0          LENGTH(printk_info_device)=48
    CRASHTIME=1795801598            OFFSET(printk_info.ts_nsec)=8         NUMBER(phys_base)=-654311424
    KERNELOFFSET=36000000           SIZE(printk_info)=88                  NUMBER(kimage_voffset)=0xffff800008000000
"""

import re

from pstored.errors import DamagedError

MAX_INFO = 1 << 16
"""Bytes.  The kernel fills at most one page, and no page is larger."""
NOTE = b"VMCOREINFO"
"""The name of its ELF note."""

#   line = key "=" value; no value of ours is longer
_LINE = re.compile(rb"^([A-Z0-9_-]{1,40}(?:\([\w.]{1,80}\))?)=([^\n]{0,128})", re.MULTILINE)


class VmcoreInfo:
    """Its keys; what a value is made of depends on the kind of key."""

    def __init__(self, text: bytes) -> None:
        self.text = text[:MAX_INFO].rstrip(b"\0")
        self._values = {key.decode(): value for key, value in _LINE.findall(self.text)}

    def word(self, key: str) -> str | None:
        """The text of a key without parentheses: ``OSRELEASE``, ``BUILD-ID``."""
        value = self._values.get(key)
        return value.decode(errors="backslashreplace") if value else None

    def plain(self, key: str, base: int) -> int | None:
        """The number of a key without parentheses: ``CRASHTIME`` (10), ``KERNELOFFSET`` (16)."""
        return self._number(key, base)

    def symbol(self, name: str) -> int | None:
        """The address of a variable."""
        return self._number(f"SYMBOL({name})", 16)

    def number(self, name: str) -> int | None:
        """A value; it may be negative."""
        return self._number(f"NUMBER({name})", 0)

    def size(self, name: str) -> int:
        """Bytes of a structure.

        Raises:
            DamagedError: it does not say.
        """
        return self._need(f"SIZE({name})")

    def offset(self, name: str) -> int:
        """The place of a field, such as ``printk_info.seq``.

        Raises:
            DamagedError: it does not say.
        """
        return self._need(f"OFFSET({name})")

    def has_offset(self, name: str) -> bool:
        """Whether it says where the field is."""
        return self._number(f"OFFSET({name})", 10) is not None

    def address(self, name: str) -> int:
        """The address of a variable that must be there.

        Raises:
            DamagedError: it does not say.
        """
        value = self.symbol(name)
        if value is None:
            raise DamagedError(f"VMCOREINFO has no SYMBOL({name})")
        return value

    def _need(self, key: str) -> int:
        value = self._number(key, 10)
        if value is None or not 0 <= value < MAX_INFO:
            raise DamagedError(f"VMCOREINFO has no {key}")
        return value

    def _number(self, key: str, base: int) -> int | None:
        value = self._values.get(key, b"")
        try:
            return int(value, base)
        except ValueError:
            return None

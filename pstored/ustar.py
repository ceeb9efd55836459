# SPDX-License-Identifier: Apache-2.0
"""Headers of a tar's members, as tarfile writes them, which the harvest has no time to import.

::

    member = [extended header] header data padding          all in blocks of 512 bytes (POSIX.1-2017, pax, "ustar")
    extended header = header of type x, *(length " " keyword "=" value LF), padding

An extended header tells what a plain one cannot: a fraction of a second, a time before 1970, a name that is long or no
ASCII.  What has no encoding in UTF-8 stands there as it is, as ``hdrcharset=BINARY`` says.
"""

BLOCK = 512
END = bytes(2 * BLOCK)
"""Behind the last member."""

_NAME, _OCTAL_12 = 100, 8**11
_MAGIC = b"ustar\x0000"


def member_header(name: str, size: int, mtime_ns: int) -> bytes:
    """All that stands before a record's bytes.

    Args:
        name: of the file; bytes that are no UTF-8 as surrogates (os.fsdecode()).
        size: bytes.
        mtime_ns: nanoseconds since 1970; kept exactly, as a decimal, which no float can be.
    """
    seconds, fraction = divmod(mtime_ns, 1_000_000_000)
    extended = {}
    if fraction:
        extended["mtime"] = decimal_seconds(mtime_ns)
    if not name.isascii() or len(name) > _NAME:
        extended["path"] = name
    for keyword, number in (("size", size), ("mtime", seconds)):
        if not 0 <= number < _OCTAL_12:
            extended.setdefault(keyword, str(number))
    plain = _header(name, b"0", 0o444, size if size < _OCTAL_12 else 0, seconds if 0 <= seconds < _OCTAL_12 else 0)
    return _extended_header(extended) + plain if extended else plain


def padding(size: int) -> bytes:
    """What fills the last block behind so many bytes."""
    return bytes(-size % BLOCK)


def decimal_seconds(time_ns: int) -> str:
    """Seconds as extended headers have them: ``1795407522.000000001``, ``-0.5``."""
    sign, whole = ("-", -time_ns) if time_ns < 0 else ("", time_ns)
    return f"{sign}{whole // 1_000_000_000}.{whole % 1_000_000_000:09d}".rstrip("0").rstrip(".")


def _extended_header(pairs: dict[str, str]) -> bytes:
    is_binary = any(not _is_utf8(value) for value in pairs.values())
    records = b"21 hdrcharset=BINARY\n" if is_binary else b""
    for keyword, value in pairs.items():
        pair = b" %b=%b\n" % (keyword.encode(), value.encode(errors="surrogateescape"))
        length = len(pair)
        while len(str(length)) + len(pair) != length:  # it counts itself
            length = len(str(length)) + len(pair)
        records += b"%d%b" % (length, pair)
    return _header("././@PaxHeader", b"x", 0, len(records), 0) + records + padding(len(records))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _header(name: str, kind: bytes, mode: int, size: int, mtime: int) -> bytes:
    fields = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0%b%b%b%b" % (
        name.encode("ascii", "replace")[:_NAME].ljust(_NAME, b"\0"),
        mode,
        0,  # owner and group: root
        0,
        size,
        mtime,
        b" " * 8,  # the sum of all bytes, with blanks in its own place
        kind,
        bytes(100),
        _MAGIC,
    )
    block = fields.ljust(BLOCK, b"\0")
    return b"%b%06o\0%b" % (block[:148], sum(block), block[155:])

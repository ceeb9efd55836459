# SPDX-License-Identifier: Apache-2.0
"""File names in pstorefs, and the ids of each backend, as kernels form them."""

NAME_BUFFER = 64
"""fs/pstore/inode.c: PSTORE_NAMELEN.  Longer names are cut off, the terminating NUL included."""

ERST_LAYOUT_CHANGE = 1 << 31
"""From this second on (2038), ERST ids have the time elsewhere: drivers/firmware/efi/cper.c."""


def record_name(record_type: str, backend: str, record_id: int | None, *, compressed: bool = False) -> str:
    """The file name of a record, e.g. ``dmesg-ramoops-0``, ``console-ramoops`` (up to v3.18, *record_id* None)."""
    number = "" if record_id is None else f"-{record_id}"
    suffix = ".enc.z" if compressed else ""
    return f"{record_type}-{backend}{number}{suffix}"[: NAME_BUFFER - 1]


def efi_id(seconds: int, part: int, count: int) -> int:
    """Id of an EFI record since v3.12; part >= 100 runs over into the seconds, count >= 1000 into the part."""
    return (seconds * 100 + part) * 1000 + count


def efi_variable(part: int, count: int, seconds: int, *, compressed: bool) -> str:
    """Name of the EFI variable behind a record, which stays unique where the id does not."""
    return f"dump-type0-{part}-{count}-{seconds}-{'C' if compressed else 'D'}"


def erst_id(first_record: int, number: int) -> int:
    """CPER record id: *first_record* is when the boot wrote its first record (Unix s), *number* counts from 1."""
    if first_record < ERST_LAYOUT_CHANGE:
        return (first_record << 32) + number
    return (1 << 63 | first_record << 24) + number


def nvram_id(record_type: str, sequence: int) -> int:
    """powerpc: dmesg and rtas carry the sequence number of their error-log header, the others are fixed."""
    return {"powerpc-ofw": 5, "powerpc-common": 6, "powerpc-opal": 8}.get(record_type, sequence)

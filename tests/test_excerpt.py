# SPDX-License-Identifier: Apache-2.0
"""The kernel's own words on a page: what stays, what is left to the file, what is dimmed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.page.excerpt import BEFORE, LINES, excerpt
from pstored.terminal import Style

COLOR = Style(color=True)
PLAIN = Style()
OOPS = [
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "Oops: 0000 [#1] PREEMPT SMP",
    "CPU: 3 PID: 83 Comm: gauged Not tainted 6.1.192 #1",
    "RIP: 0010:gauge_store+0x5/0x7 [gauge]",
    "Call Trace:",
    " <TASK>",
    " ? __die+0x1f/0x60",
    " kernfs_fop_write_iter+0x11b/0x1f0",
    " </TASK>",
    "---[ end trace 0000000000000000 ]---",
]


def log(*lines: str) -> dict[str, bytes]:
    """A dmesg.txt of some lines."""
    return {"dmesg.txt": "".join(f"<4>[{n + 10:5d}.000000] {line}\n" for n, line in enumerate(lines)).encode()}


def test_a_report_is_there_from_its_first_line_to_its_last() -> None:
    """And nothing of what was before."""
    shown = excerpt(log("before", *OOPS), PLAIN)
    assert [line.split("] ", 1)[1] for line in shown] == OOPS


@pytest.mark.parametrize(
    "line",
    [
        "RSP: 0018:ff446b25c0603e10 EFLAGS: 00000282",
        "RAX: ffffffff97960d3d RBX: ff3c22551baa1000 RCX: 0000000000000003",
        "x29: ffff80000a5b3c60 x28: 0000000000000000 x27: ffffffc0",
        "r7 : c0a03d48  r6 : 00000000  r5 : c0a03d48  r4 : c0a03d48",
        "GPR00: c000000000a1b2c3 c0000000ffeeddcc c000000000a1b2c3 0000000000000000",
        "$ 0   : 00000000 00000001 80a1b2c3 00000000",
        "3d40:                   c0a03d48 00000000 c0a03d48 00000000 c0a03d48 00000000",
        "Code: 0b c3 0f 1f 44 00 00 <0f> 0b 0f 1f",
        "Modules linked in: gauge(O) lkdtm",
    ],
)
def test_registers_bytes_and_modules_are_left_to_the_file(line: str) -> None:
    """On all architectures; how many lines, is said."""
    shown = excerpt(log(*OOPS[:4], line, *OOPS[4:]), PLAIN)
    assert [text.split("] ", 1)[1] for text in shown[:-1]] == OOPS
    assert shown[-1] == "  (1 lines more in dmesg.txt)"


@pytest.mark.parametrize(
    "line",
    [
        "PC is at gauge_store+0x5/0x7 [gauge]",
        "pc : gauge_store+0x5/0x7 [gauge]",
        "NIP [c0000000000a1b2c] gauge_store+0x5/0x7",
        "Hardware name: QEMU Standard PC",
        "#PF: supervisor read access in kernel mode",
        "[<c0a03d48>] (gauge_store) from [<c0a03d48>] (vfs_write+0x1/0x20)",
        "Process gauged (pid: 83, stack limit = 0xc0a02210)",
    ],
)
def test_what_says_where_and_who_stays(line: str) -> None:
    """A line that names a function is no register's."""
    assert line in "\n".join(excerpt(log(*OOPS[:4], line, *OOPS[4:]), PLAIN))


def test_frames_that_the_kernel_does_not_vouch_for_are_dimmed() -> None:
    """x86 marks them with a question mark, powerpc in words; no other line is."""
    line = "[c000000012345678] [c0000000000a1b2c] old_thing+0x1/0x20 (unreliable)"
    shown = excerpt(log(*OOPS[:7], line, *OOPS[7:]), COLOR)
    dimmed = [text for text in shown if "\x1b[2m" in text]
    assert len(dimmed) == 2
    assert "? __die" in dimmed[0]
    assert "old_thing" in dimmed[1]


def test_the_report_before_the_last_is_there_shorter() -> None:
    """An oops, and then the panic."""
    long = [f" f{n}+0x1/0x20" for n in range(80)]
    first = [*OOPS[:6], *long, *OOPS[8:]]
    second = ["Kernel panic - not syncing: sysrq triggered crash", *OOPS[2:6], *long, *OOPS[8:]]
    shown = excerpt(log(*first, *["between"] * 300, *second), PLAIN)
    at = shown.index("")
    assert at == BEFORE + 1
    assert len(shown) - at - 1 == LINES + 1
    assert shown[at - 1].endswith("lines more in dmesg.txt)")


@given(st.binary(max_size=300), st.sampled_from(["dmesg.txt", "console.txt", "mce.txt", "end.txt"]))
def test_any_text_is_shown_harmlessly(rubbish: bytes, name: str) -> None:
    """Printable lines, whatever stands in it."""
    for text in (rubbish, b"Kernel panic - not syncing: x\n" + rubbish):
        assert all(line.isprintable() for line in excerpt({name: text}, PLAIN))


def test_line_without_end_is_cut() -> None:
    """A bomb's text is one line of some MiB."""
    text = b"[    1.000000] Kernel panic - not syncing: " + bytes(100_000) + b"\n"
    (line,) = excerpt({"dmesg.txt": text}, Style())
    assert line.endswith(r"\x00 (91836 bytes more)")
    assert len(line) < 5 * 8192

# SPDX-License-Identifier: Apache-2.0
"""What must not go out, and what must stay: a table of cases, real captures, and any text at all in linear time."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture
from pstored.delivery.redact import KEPT, KINDS, Redactor
from tests.conftest import MakeRoot, Pstored

GOES = [
    # pointers of the kernel: four and five levels of page tables, tags, brackets
    ("RAX: ffff888104a2c000 RBX: ffff888104a2c000", "RAX: <pointer-1> RBX: <pointer-1>"),
    ("RSP: 0018:ff446b25c0603e10 EFLAGS: 00000282", "RSP: 0018:<pointer-1> EFLAGS: 00000282"),
    ("GS:ff3c22551d200000(0000) knlGS:0000000000000000", "GS:<pointer-1>(0000) knlGS:0000000000000000"),
    ("pc : [<ffffffc0081a2b3c>] lr : [<ffffffc0081a2b40>]", "pc : [<pointer-1>] lr : [<pointer-2>]"),
    ("at virtual address f5ff000812345678", "at virtual address <pointer-1>"),
    ("page fault for address: 0xffffc90000123456", "page fault for address: <pointer-1>"),
    (
        "from 0xffffffff81000000 (relocation range: 0xffffffff80000000-0xffffffffbfffffff)",
        "from <pointer-1> (relocation range: <pointer-2>-<pointer-3>)",
    ),
    ("FFFF888104A2C000", "<pointer-1>"),
    # of programs
    ("RSP: 002b:00007ffd5c0e1a98 EFLAGS: 00000246", "RSP: 002b:<pointer-1> EFLAGS: 00000246"),
    (
        "init[1]: segfault at 0 ip 000055d0c1a2b3c4 sp 00007ffe12345678",
        "init[1]: segfault at 0 ip <pointer-1> sp <pointer-2>",
    ),
    ("in libc.so.6[0x7f1234567890+1000]", "in libc.so.6[<pointer-1>+1000]"),
    # other machines, known by their words
    ("NIP:  c00000000091c2b8 LR: c00000000091c2b0", "NIP:  <pointer-1> LR: <pointer-2>"),
    ("Krnl PSW : 0704c00180000000 000003ff801ec2ba", "Krnl PSW : 0704c00180000000 <pointer-1>"),
    ("epc   : 980000000012a3b4 ra: 980000000012a3b0", "epc   : <pointer-1> ra: <pointer-2>"),
    # 32 bits: registers and stack, not code and flags
    (
        "PC is at foo+0x4/0x8\npc : [<c0108a3c>]    lr : [<c0108a38>]    psr: a0000013\nsp : c7837e40  ip : 00000000",
        (
            "PC is at foo+0x4/0x8\npc : [<pointer-1>]    lr : [<pointer-2>]    psr: a0000013\n"
            "sp : <pointer-3>  ip : 00000000"
        ),
    ),
    (
        "EIP: foo+0x4/0x8\nEAX: c0123456 CR0: 80050033\nCode: e5913000 e5833000",
        "EIP: foo+0x4/0x8\nEAX: <pointer-1> CR0: 80050033\nCode: e5913000 e5833000",
    ),
    # networks
    ("eth0: link up 00:1A:2B:3C:4d:5e", "eth0: link up <mac-1>"),
    (
        "MAC=00:11:22:33:44:55:66:77:88:99:aa:bb:08:00 SRC=10.0.0.7 DST=192.168.1.20",
        "MAC=<mac-1> SRC=<ip-1> DST=<ip-2>",
    ),
    ("addr 00-1a-2b-3c-4d-5e", "addr <mac-1>"),
    ("rev:2 macaddr:00:90:f5:9b:3f:c4", "rev:2 macaddr:<mac-1>"),
    ("iface:00:90:f5:9b:3f:c4 (addr:aa:aa:aa:aa:aa:0c, vlan:0)", "iface:<mac-1> (addr:<mac-2>, vlan:0)"),
    ("enx001a2b3c4d5e: renamed from eth0", "enx<mac-1>: renamed from eth0"),
    (
        "ip=192.168.7.2:192.168.7.1:192.168.7.1:255.255.255.0:board:eth0:off",
        "ip=<ip-1>:<ip-2>:<ip-2>:255.255.255.0:board:eth0:off",
    ),
    ("nfs: server 10.1.2.3 not responding", "nfs: server <ip-1> not responding"),
    ("root=/dev/nfs nfsroot=10.1.2.3:/srv", "root=/dev/nfs nfsroot=<ip-1>:/srv"),
    ("netconsole: 6665@10.0.0.2/eth0,6666@10.0.0.1/", "netconsole: 6665@<ip-1>/eth0,6666@<ip-2>/"),
    ("range 10.0.0.1-10.0.0.9", "range <ip-1>"),
    ("SRC=fe80:0000:0000:0000:021a:2bff:fe3c:4d5e", "SRC=<ip-1>"),
    ("from fe80::21a:2bff:fe3c:4d5e%eth0", "from <ip-1>%eth0"),
    ("to [2001:db8::1]:4317", "to [<ip-1>]:4317"),
    # serial numbers
    ("usb 1-1: SerialNumber: 4C530001230617102162", "usb 1-1: SerialNumber: <serial-1>"),
    ("androidboot.serialno=HT85A1A01234 quiet", "androidboot.serialno=<serial-1> quiet"),
    ("Serial number 'S3Z9NB0K123456A'", "Serial number '<serial-1>'"),
    ("S/N: WD-WCC4N1234567", "S/N: <serial-1>"),
    ("Serial          : 00000000a1b2c3d4", "Serial          : <serial-1>"),
    ("modem IMEI=356938035643809", "modem IMEI=<serial-1>"),
    ("nvme0: eui.0025385b71b0a1b2", "nvme0: eui.<serial-1>"),
    ("wwn-0x5002538d42a3b1c2", "wwn-0x<serial-1>"),
    # secrets
    ("Command line: quiet rootpassword=hunter2 ro", "Command line: quiet rootpassword=<secret> ro"),
    ('wifi.psk="correct horse battery" rw', "wifi.psk=<secret> rw"),
    ("rd.luks.key=/keys/root.key:UUID=12 init=/init", "rd.luks.key=<secret> init=/init"),
    ("root_key=0123456789abcdef quiet", "root_key=<secret> quiet"),
    ("key=abc rw", "key=<secret> rw"),
    ("api-key=abcdef token=xyz API_TOKEN=1", "api-key=<secret> token=<secret> API_TOKEN=<secret>"),
    ("systemd.set_credential=passwd.hashed-password.root:$y$j9T$ x", "systemd.set_credential=<secret> x"),
    ('{"password": "x y", "user": "u"}', '{"password": <secret>, "user": "u"}'),
    ("Password: hunter2", "Password: <secret>"),
    ("http://user:pass@host.example/x", "http://<secret>@host.example/x"),
    ("Authorization: Bearer abcdefghijklmnopqrstuvwxyz.0123456789", "Authorization: Bearer <secret>"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", "<secret>"),
    (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----<secret>-----END RSA PRIVATE KEY-----",
    ),
    (
        'dm-mod.create="c,,,rw,0 4 crypt aes-xts-plain64 00112233445566778899aabbccddeeff 0 /dev/sda 0"',
        'dm-mod.create="c,,,rw,0 4 crypt aes-xts-plain64 <secret> 0 /dev/sda 0"',
    ),
]

STAYS = [
    # versions, builds, dates and times
    "Linux version 6.1.0-25-amd64 (debian-kernel@lists.debian.org) #1 SMP Debian 6.1.106-3 (2024-08-26)",
    "CPU: 0 Not tainted 2.6.32.53 #1", "#42-Ubuntu SMP (Ubuntu 2.6.38-8.42-generic 2.6.38.2)",
    "ixgbe: driver version 5.1.0.2", "firmware: 17.3.216.4", "BIOS 1.14.0.3 04/01/2014", "fw v10.2.4.70",
    "e1000e 3.2.6-k", "igb 5.6.0.1-k",
    "[    3.093846] 12:34:56 up, 2026-11-23T04:18:57Z, 23:59:59.999", "linux-5.4.0.1/kernel/panic.c:42",
    # offsets, sizes, functions, traces
    " ? lkdtm_BUG+0x5/0x7 [lkdtm]", "RIP: 0010:do_syscall_64+0x39/0x46", "Kernel Offset: 0x16600000",
    "free:0x1000 size=4096",
    "---[ end trace 0000000000000000 ]---", "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    # what a register holds that is no address: small numbers, errors, poison, text
    "RAX: 0000000000000000 RBX: fffffffffffffff4 RCX: 0000000000000147",
    "R10: 6520746365726b6c R11: dead000000000100",
    "R8: 6b6b6b6b6b6b6b6b", "RDX: ffffffffffffffff",
    "CR2: 0000000000559c5a CR3: 000000001bb57000 CR4: 00000000007516f0",
    # codes, flags, machine checks, taint
    "error_code(0x0002) - not-present page", "Internal error: Oops: 96000004 [#1] PREEMPT SMP",
    "ESR = 0x0000000096000004",
    "MCE: CPU 0: Machine Check: 5 Bank 4: b200000000070f0f", "TSC 0 ADDR 1ffc0 MISC c0080000",
    "failed with error -110 (0xffffff92)",
    "error code 0x80070005", "CPU: 0 PID: 83 Comm: init Tainted: G        W  OE      6.1.192 #1", "EFLAGS: 00010246",
    "Code: 0b c3 0f 1f 44 00 00 8b 05 a7 eb d9 00 <0f> 0b 0f 1f", "Code: f9400000 aa0003f3 (d4210000)",
    "exitcode=0x0000000b",
    # names of devices
    "pci 0000:00:1f.2: [8086:2922] type 00 class 0x010601",
    "usb 1-1: New USB device found, idVendor=0781, idProduct=5581",
    "usb usb1: SerialNumber: 0000:00:1a.0",
    "usb 1-1: New USB device strings: Mfr=1, Product=2, SerialNumber=3",
    "ata1.00: ATA-9: Samsung SSD 850, EMT02B6Q",
    "Serial: 8250/16550 driver, 4 ports, IRQ sharing enabled", "serial8250: ttyS0 at I/O 0x3f8 (irq = 4)",
    "console=ttyS0,115200n8",
    # ids that tell crashes, boots and disks apart
    "pstored: boot 29ba41b6-8626-4f73-9871-3d09cbfdd92a", "root=UUID=3f1b2c4d-0000-4a6e-ab69-2029de08b3f6",
    "roothash=00ff",
    # networks that are nobody's
    "lo: 127.0.0.1/8 ::1/128", "netmask 255.255.255.0", "0.0.0.0:22", "link 00:00:00:00:00:00 ff:ff:ff:ff:ff:ff",
    # words that look like more than they are
    "keymap=us vconsole.keymap=de", "core::panicking::panic", "a key: the third one",
    "lockdep: (&sb->s_type->i_mutex_key){+.+.}",
    "Workqueue: events_unbound flush_to_ldisc", "Call Trace:", "[mem 0x00000000feffc000-0x00000000feffffff] reserved",
    "",
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), GOES, ids=[text[:40] for text, _ in GOES])
def test_what_must_go_goes(text: str, wanted: str) -> None:
    """Each becomes a mark; equal ones equal marks; how many is counted."""
    redactor = Redactor(of=text)
    assert redactor.text(text) == wanted
    marks = re.findall(r"<([a-z]+)(?:-\d+)?>", wanted)
    assert redactor.counts == {kind: marks.count(kind) for kind in marks}
    assert redactor.counts.keys() <= KINDS.keys()


@pytest.mark.parametrize("text", STAYS, ids=[text[:40] for text in STAYS])
def test_what_must_stay_stays(text: str) -> None:
    """To the letter, and nothing is counted."""
    redactor = Redactor(of=text)
    assert redactor.text(text) == text
    assert not redactor.counts


def test_words_of_the_owner_go_too() -> None:
    """Shell patterns for whole words, whatever stands around them."""
    redactor = Redactor(["board-[0-9]*", "*.customer.example", "ACME*"])
    text = 'host=board-17, "board-17" dashboard-17 (x.customer.example): ACME9000 acme'
    assert redactor.text(text) == 'host=<word-1>, "<word-1>" dashboard-17 (<word-2>): <word-3> acme'
    assert redactor.counts == {"word": 4}


def test_ids_in_a_report_stay() -> None:
    """A signature may look like a pointer; text beside it is redacted all the same, in whatever depth."""
    digest = "ffff888104a2c000"
    value = {
        "event": {"signature": digest, "title": f"at {digest}"},
        "boot": {"id": digest, "evidence": [digest]},
        "n": 1,
    }
    assert Redactor().value(value) == {
        "event": {"signature": digest, "title": "at <pointer-1>"},
        "boot": {"id": digest, "evidence": ["<pointer-1>"]},
        "n": 1,
    }
    assert "signature" in KEPT


CAPTURES = [
    "lab-efi-twoboots", "lab-erst", "lk-CORRUPT_STACK", "lk-WRITE_RO", "x86_64-6.1deb-efi", "x86_64-6.1-ramoops-all"
]  # fmt: skip


@pytest.mark.parametrize("name", CAPTURES)
def test_of_a_real_crash_no_address_is_left_and_all_else_is(root: MakeRoot, pstored: Pstored, name: str) -> None:
    """Looked at by another rule: no 16 digits of the kernel's half; and what was taken was digits, nothing else."""
    assert name in capture.names()
    made = root(name)
    pstored("collect", root=made)
    for crash in made.crashes():
        text = (crash / "dmesg.txt").read_text(errors="backslashreplace") if (crash / "dmesg.txt").exists() else ""
        redacted = Redactor(of=text).text(text)
        left = re.findall(r"\b(?:0x)?(f[0-9a-f]{15})\b", redacted)
        assert [word for word in left if not re.fullmatch("f{13}[0-9a-f]{3}", word)] == []
        assert redacted.count("\n") == text.count("\n")
        for line, original in zip(redacted.splitlines(), text.splitlines(), strict=True):
            pattern = re.sub(r"<(pointer|mac|ip|serial|secret)(\\-\d+)?>", "[0-9A-Za-z:.<>]{2,64}", re.escape(line))
            assert re.fullmatch(pattern, original)


@given(st.text(max_size=300))
def test_any_text_can_be_redacted(text: str) -> None:
    """Nothing is raised, lines stay lines, and what is redacted already has nothing more to give."""
    once = Redactor(["x*"], of=text).text(text)
    assert once.count("\n") <= text.count("\n")
    assert len(once) < 20 * len(text) + 20


HOSTILE = [
    "a", "f", "0", ":", "0:", "00:", "1.", "1.1.1.1", "ff:", "f:", "::", "key", "password", "password=", "secret-",
    "://a:", "eyJ", "eyJa.", "-----BEGIN PRIVATE KEY-----",
    "serial number ", "Serial: ", "aes-", "capi:", "Bearer ", "\"", "'", "<", "[<", "ffff888104a2c00", "c0123456 ",
    "EIP: ", "NIP ", "version 1.1.", "wwn-0x5", "x ", " ", "\n", "_key.",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_is_linear_in_the_text(unit: str) -> None:
    """Twice the text takes no more than some three times as long, whatever it repeats; the minimum of several runs."""

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        best = float("inf")
        for _ in range(5):
            redactor = Redactor(["board-*", "*.example"], of=text)
            begin = time.process_time()
            redactor.text(text)
            best = min(best, time.process_time() - begin)
        return best

    small, large = seconds(30_000), seconds(120_000)
    assert large < 0.02 or large < 10 * small, (small, large)
    assert large < 3.0

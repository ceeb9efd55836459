# SPDX-License-Identifier: Apache-2.0
"""What kdump has saved on this machine: the log of each crash is archived once, and nothing there is touched."""

import os
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture, kmemory, vmcore
from fake_pstore.kdumptext import dmesg
from fake_pstore.klog import Message
from pstored.config import Config
from pstored.config import Kdump as Settings
from pstored.host import Host
from pstored.intake import kdump
from pstored.intake.bundles import Import
from pstored.intake.kdump import MAX_CRASHES, collect_kdump
from tests.conftest import MakeRoot, Pstored, Root, require
from tests.readers import panic_in_region

DEBIAN = "202611230418"
FEDORA = "127.0.0.1-2026-11-23-04:18:57"
CRASHED_AT = 1_795_407_537
PANIC = [
    Message(5, 0, "T0", "Linux version 6.1.0-9-fake (fake@fake) #1 SMP Debian 6.1.192-1 (2026-11-20)"),
    *(Message(6, 100_000 + 7_919 * i, "T1", f"pci 0000:00:{i:02x}.0: found") for i in range(20)),
    Message(2, 4_000_123, "T83", "Kernel panic - not syncing: sysrq triggered crash"),
    Message(2, 4_000_456, "T83", "CPU: 0 PID: 83 Comm: bash Not tainted 6.1.0-9-fake #1"),
    Message(2, 4_000_789, "T83", "---[ end Kernel panic - not syncing: sysrq triggered crash ]---"),
]


def dump(messages: list[Message] = PANIC, *, crash_time: int = CRASHED_AT, flat: bool = True) -> bytes:
    """A memory dump as kdump-tools has makedumpfile write it; not *flat*: as kdump-utils has it."""
    memory = kmemory.crashed(kmemory.MACHINES["x86_64"], messages, crash_time=crash_time, bits=(9, 17))
    return vmcore.flattened(vmcore.kdump(memory)) if flat else vmcore.kdump(memory)


def save(root: Root, directory: str, files: dict[str, bytes], *, mtime_ns: int = CRASHED_AT * 10**9) -> Path:
    """A crash, as kdump leaves it."""
    where = root.path / "var/crash" / directory
    where.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (where / name).write_bytes(data)
        os.utime(where / name, ns=(mtime_ns, mtime_ns))
    return where


def look(root: Root, **settings: Any) -> Import | None:
    """One look at what there is."""
    config = Config(kdump=Settings(**settings))
    return collect_kdump(Host(str(root.path)), config)


def state(top: Path) -> dict[str, tuple[bytes, int, int]]:
    """All that a look could change."""
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_mode) for p in top.rglob("*") if p.is_file()}


# -- one crash, both sources


@pytest.mark.parametrize("stamp_prefix", ["pstored: boot ", ""], ids=["stamped", "unstamped"])
@pytest.mark.parametrize("backend", ["ramoops", "erst", "efi_pstore"])
def test_pstore_and_kdump_tell_of_one_crash(backend: str, stamp_prefix: str, root: MakeRoot, pstored: Pstored) -> None:
    """Of the same boot by the stamp, or by equal lines at equal times: one crash, with the records of both."""
    made = root("panic", backend=backend, stamp_prefix=stamp_prefix)
    (boot, *_) = [b for b in made.boots if b.events]
    last = boot.messages[-1].time_us
    more = [Message(2, last + 500, "T83", "crash_kexec: Starting crashdump kernel...")]
    where = save(made, DEBIAN, {f"dump.{DEBIAN}": dump([*boot.messages, *more])})
    before = state(where)
    done = pstored("collect", "--json", root=made)
    assert done.status == 0, done.stderr
    assert done.json["kdump"]["archived"] == [f"dmesg-kdump-{CRASHED_AT}"]
    (crash,) = done.json["crashes"]
    assert not stamp_prefix or crash["boot"]["id"] == boot.boot_id
    assert {r["name"].split("-")[1] for r in crash["records"]} == {backend, "kdump"}
    assert (crash["severity"], crash["complete"]) == ("panic", True)
    text = (made.crashes()[0] / "dmesg.txt").read_bytes()
    lines = text.splitlines()
    assert len(lines) == len(set(lines))
    assert lines[-1].endswith(b"crash_kexec: Starting crashdump kernel...")
    assert lines[0].startswith(b"<5>[    0.000000] Linux version")
    assert state(where) == before
    again = pstored("collect", "--json", root=made).json
    assert (again["kdump"], again["crashes"]) == (None, [])


@pytest.mark.parametrize("name", [n for n in capture.names() if n.endswith("-kdump")])
def test_a_real_panic_from_both(name: str, root: MakeRoot, pstored: Pstored) -> None:
    """Of one boot by its stamp; the text is the kernel's whole log, each line once."""
    made = root()
    loaded = capture.load(name)
    made.add("dmesg-ramoops-0", panic_in_region(loaded), mtime_ns=(loaded.crash_boot_time + 4) * 10**9)
    save(
        made,
        DEBIAN,
        {f"dump.{DEBIAN}": vmcore.flattened(loaded.raw("vmcore")), f"dmesg.{DEBIAN}": loaded.raw("dmesg.txt")},
    )
    done = pstored("collect", "--json", root=made)
    assert done.status == 0, done.stderr
    (crash,) = done.json["crashes"]
    assert (crash["boot"]["id"], crash["boot"]["method"]) == (loaded.crash_boot_id, "stamp")
    assert sorted(r["name"].split("-")[1] for r in crash["records"]) == ["kdump", "ramoops"]
    assert (crash["title"], crash["kernel"]["release"]) == ("Kernel panic: sysrq triggered crash", loaded.crash_kernel)
    text = (made.crashes()[0] / "dmesg.txt").read_bytes()
    assert [line.partition(b">")[2] for line in text.splitlines()] == loaded.raw("dmesg.txt").splitlines()


def test_kdump_comes_later_than_pstore(root: MakeRoot, pstored: Pstored) -> None:
    """A crash that is known already gets the dump's log; that is told once more only if it tells more."""
    made = root("panic", backend="erst")
    (first,) = pstored("collect", "--json", root=made).json["crashes"]
    (boot, *_) = [b for b in made.boots if b.events]
    save(made, DEBIAN, {f"dump.{DEBIAN}": dump(list(boot.messages))})
    done = pstored("collect", "--json", root=made)
    assert done.json["kdump"]["archived"] == [f"dmesg-kdump-{CRASHED_AT}"]
    assert done.json["crashes"] == []
    (crash,) = pstored("list", "--json", root=made).json["crashes"]
    assert crash["id"] == first["id"]
    assert len(list(made.crashes())) == 1
    assert len(pstored("show", "--json", root=made).json["records"]) == len(first["records"]) + 1


def test_kdump_alone(root: MakeRoot, pstored: Pstored) -> None:
    """As it is without crash_kexec_post_notifiers: pstore has nothing, and the dump has all."""
    made = root()
    save(made, DEBIAN, {f"dump.{DEBIAN}": dump(), f"dmesg.{DEBIAN}": dmesg(PANIC)})
    done = pstored("collect", root=made)
    assert done.status == 0, done.stderr
    assert "/var/crash (kdump): 1 new record imported" in done.stdout
    shown = pstored("show", root=made).stdout
    assert shown.startswith("Kernel panic: sysrq triggered crash\n")
    assert "2026-11-23 04:18:57" in shown
    crash = made.load(f"crashes/{made.crashes()[0].name}/crash.json")
    (note,) = [n for n in crash["notes"] if "the memory dump is" in n]
    size = (made.path / f"var/crash/{DEBIAN}/dump.{DEBIAN}").stat().st_size
    assert f"the memory dump is /var/crash/{DEBIAN}/dump.{DEBIAN}, {size} bytes, fingerprint " in note
    assert f"/var/crash/{DEBIAN}/dump.{DEBIAN}" in shown
    assert crash["complete"]


def test_text_alone(root: MakeRoot, pstored: Pstored) -> None:
    """The dump was given away, or never written: the text tells of the crash, but not when it was."""
    made = root()
    save(made, FEDORA, {"vmcore-dmesg.txt": dmesg(PANIC, indented=False), "kexec-dmesg.log": b"[    0.000000] other\n"})
    save(made, "2026-11-20-01:02", {"dmesg.txt": dmesg([m._replace(time_us=m.time_us + 77) for m in PANIC])})
    done = pstored("collect", "--json", root=made)
    assert done.status == 0, done.stderr
    assert sorted(done.json["kdump"]["archived"]) == ["console-kdump-202611200102", "console-kdump-20261123041857"]
    assert [c["title"] for c in done.json["crashes"]] == ["Kernel panic: sysrq triggered crash"] * 2
    assert {c["time"]["wall"] for c in done.json["crashes"]} == {None}


def test_directories_of_others_are_imported(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """All of what kdump has left on another machine, whoever's kdump it was; a crash's files are one crash."""
    made = root()
    top = tmp_path / "crash"
    suse = "2026-11-23-04:18"
    later = [m._replace(time_us=m.time_us + 77) for m in PANIC]
    files = {
        f"{DEBIAN}/dump.{DEBIAN}": dump(),
        f"{DEBIAN}/dmesg.{DEBIAN}": dmesg(PANIC),
        f"{suse}/vmcore": dump(later, flat=False),
        f"{suse}/dmesg.txt": dmesg(later),
    }
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    done = pstored("import", "--json", str(top), root=made)
    assert done.status == 0, done.stderr
    assert {i["path"].removeprefix(f"{top}/"): i["kind"] for i in done.json["imports"]} == {
        f"{DEBIAN}/dump.{DEBIAN}": "vmcore",
        f"{DEBIAN}/dmesg.{DEBIAN}": "vmcore-dmesg",
        f"{suse}/vmcore": "vmcore",
        f"{suse}/dmesg.txt": "vmcore-dmesg",
    }
    assert len(made.crashes()) == 2
    again = pstored("import", "--json", str(top), root=made)
    assert not any(i["archived"] for i in again.json["imports"])


# -- what is there


def test_each_crash_is_taken_once(root: MakeRoot) -> None:
    """Whatever comes to the directory; and if what was seen there is forgotten, the archive knows."""
    made = root()
    assert look(made) is None
    save(made, DEBIAN, {f"dump.{DEBIAN}": dump()})
    first = look(made)
    assert first is not None
    assert [r.name for r in first.archived] == [f"dmesg-kdump-{CRASHED_AT}"]
    assert look(made) is None
    later = [m._replace(time_us=m.time_us + 1) for m in PANIC]
    save(made, FEDORA, {"vmcore": dump(later, crash_time=CRASHED_AT + 9, flat=False)})
    second = look(made)
    assert second is not None
    assert [r.name for r in second.archived] == [f"dmesg-kdump-{CRASHED_AT + 9}"]
    (made.archive / kdump.MEMORY).unlink()
    third = look(made)
    assert third is not None
    assert (third.archived, third.known) == ((), 2)
    for path in (made.path / "var/crash" / FEDORA).iterdir():
        path.unlink()
    fourth = look(made)
    assert fourth is not None
    assert list(made.load(kdump.MEMORY)["crashes"]) == [DEBIAN]
    assert look(made) is None


def test_other_programs_files_are_passed_over(root: MakeRoot) -> None:
    """apport's reports, kdump-tools' own state; no link is followed, no FIFO waited for."""
    made = root()
    top = save(
        made, "", {"_usr_bin_x.0.crash": b"ProblemType: Crash\n", "kexec_cmd": b"/sbin/kexec\n", "kdump_lock": b""}
    )
    secret = made.path / "secret"
    secret.write_bytes(dmesg(PANIC))
    (top / "1").mkdir()
    (top / "1/vmcore-dmesg.txt").symlink_to(secret)
    os.mkfifo(top / "1/vmcore")
    assert look(made) is None


def test_other_users_files_are_passed_over(root: MakeRoot) -> None:
    """Where all may write, anybody can write down a crash that never was."""
    require(os.geteuid() == 0, "giving a file to another user needs root")
    made = root()
    where = save(made, DEBIAN, {f"dmesg.{DEBIAN}": dmesg(PANIC), f"dump.{DEBIAN}": dump()})
    for path in where.iterdir():
        os.chown(path, 65534, 65534)
    assert look(made) is None
    os.chown(where / f"dmesg.{DEBIAN}", 0, 0)
    found = look(made)
    assert found is not None
    assert [r.name for r in found.archived] == [f"console-kdump-{DEBIAN}"]


def test_where_nothing_is_to_be_looked_at(root: MakeRoot) -> None:
    """Switched off; elsewhere; and never in the crash kernel itself."""
    made = root()
    where = save(made, DEBIAN, {f"dump.{DEBIAN}": dump()})
    assert look(made, enabled=False) is None
    assert look(made, path="/srv/dumps") is None
    made.write("proc/vmcore", "")
    assert look(made) is None
    (made.path / "proc/vmcore").unlink()
    (made.path / "srv").mkdir()
    where.parent.rename(made.path / "srv/dumps")
    found = look(made, path="/srv/dumps")
    assert found is not None
    assert found.path == "/srv/dumps"
    assert len(found.archived) == 1


def test_what_is_being_written_is_left_alone(root: MakeRoot) -> None:
    """Until two looks find the same: then nobody writes any more, and what there is of it is taken."""
    made = root()
    now_ns = Host(str(made.path)).facts().wall_ns
    whole = dump(flat=False)
    files = {"vmcore-incomplete": whole[:-3000], "vmcore-dmesg-incomplete.txt": dmesg(PANIC[:-2])}
    save(made, FEDORA, files, mtime_ns=now_ns)
    first = look(made)
    assert first is not None
    assert (first.archived, first.problems) == ((), ())
    assert first.notes == (f"/var/crash/{FEDORA}: is being written, it seems: left alone until the next look",)
    save(made, FEDORA, {"vmcore-incomplete": whole[:-2000]}, mtime_ns=now_ns + 10**9)
    second = look(made)
    assert second is not None
    assert (second.archived, second.notes) == ((), first.notes)
    third = look(made)
    assert third is not None
    names = [r.name for r in third.archived]
    assert "console-kdump-20261123041857" in names
    assert look(made) is None


def test_what_kdump_died_over_is_taken_at_once(root: MakeRoot) -> None:
    """If nobody has written to it since this boot began; that it is not whole is said."""
    made = root()
    save(made, FEDORA, {"vmcore-incomplete": dump(flat=False)}, mtime_ns=10**18)
    found = look(made)
    assert found is not None
    assert [r.name for r in found.archived] == [f"dmesg-kdump-{CRASHED_AT}"]
    assert found.listed[0].damage == ("kdump did not write the dump to its end",)


def test_a_damaged_dump_and_the_text_beside_it(root: MakeRoot, pstored: Pstored) -> None:
    """Both are taken if the dump's log has damage; of one that gives none, why not."""
    made = root()
    memory = kmemory.crashed(kmemory.MACHINES["x86_64"], PANIC, crash_time=CRASHED_AT)
    partly = vmcore.kdump(memory, status=vmcore.INCOMPLETE)
    save(made, DEBIAN, {f"dump.{DEBIAN}": partly, f"dmesg.{DEBIAN}": dmesg(PANIC)})
    later = [m._replace(time_us=m.time_us + 99) for m in PANIC]
    save(made, FEDORA, {"vmcore": b"\x7fELF, or so", "vmcore-dmesg.txt": dmesg(later)})
    done = pstored("collect", "--json", root=made)
    assert sorted(done.json["kdump"]["archived"]) == [
        f"console-kdump-{DEBIAN}",
        "console-kdump-20261123041857",
        f"dmesg-kdump-{CRASHED_AT}",
    ]
    assert len(done.json["crashes"]) == 2
    notes = [n for c in done.json["crashes"] for n in c["notes"]]
    assert any("not read from vmcore: it is no vmcore" in n for n in notes)
    assert any("fingerprint" in n and FEDORA in n for n in notes)


def test_a_dump_without_a_log_is_told_once(root: MakeRoot, pstored: Pstored) -> None:
    """Packed, or none at all: it is in the exit status, and then it is known."""
    made = root()
    save(made, DEBIAN, {f"dump.{DEBIAN}.gz": b"\x1f\x8b\x08 and so on"})
    save(made, FEDORA, {"vmcore": b"rubbish", "vmcore-dmesg.txt": b""})
    done = pstored("collect", root=made)
    assert done.status == 1
    assert f"/var/crash/{DEBIAN}: no log can be had: it is packed" in done.stderr
    assert f"/var/crash/{FEDORA}: no log can be had: vmcore: it is no vmcore" in done.stderr
    assert pstored("collect", root=made).status == 0


def test_many_crashes_take_several_runs(root: MakeRoot) -> None:
    """The newest first; the rest is said to be left, so that there is another run."""
    made = root()
    for i in range(MAX_CRASHES + 3):
        messages = [m._replace(time_us=m.time_us + i) for m in PANIC]
        name = f"2026112304{i:02d}"
        save(made, name, {f"dmesg.{name}": dmesg(messages)}, mtime_ns=(CRASHED_AT + i) * 10**9)
    first = look(made)
    assert first is not None
    assert len(first.archived) == MAX_CRASHES
    assert "left for the next import" in first.problems[0]
    assert f"2026112304{MAX_CRASHES + 2}" in "".join(r.name for r in first.archived)
    second = look(made)
    assert second is not None
    assert (len(second.archived), second.problems) == (3, ())
    assert look(made) is None


def test_what_the_archive_has_forgotten_is_not_told_again(root: MakeRoot, pstored: Pstored) -> None:
    """Its limits have removed it: as long as the dump is there, that is remembered."""
    made = root()
    save(made, DEBIAN, {f"dump.{DEBIAN}": dump()})
    assert len(pstored("collect", "--json", root=made).json["crashes"]) == 1
    for directory in (*made.harvests(), *made.crashes()):
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
    (made.archive / "index.json").unlink(missing_ok=True)
    assert pstored("collect", "--json", root=made).json["kdump"] is None

# SPDX-License-Identifier: Apache-2.0
"""The round to all outgoing sinks, with real processes: programs that fail and hang, files that cannot be written."""

import contextlib
import io
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pstored.cli.collect
import pstored.cli.outbox
import pstored.cli.outgoing
import pstored.page.excerpt
import pstored.sinks.exec
import pstored.sinks.file  # noqa: F401 - a user who may not read them needs them loaded
from pstored.archive import Archive
from pstored.cli import run
from pstored.delivery.outgoing import Item, Outgoing, State
from tests.conftest import REPOSITORY, Done, MakeRoot, Pstored, Root, forked, require, run_pstored
from tests.outgoing import copy_crashes, crash_id, lines, uids

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def three(root: MakeRoot) -> Root:
    """Three crashes, none like another."""
    made = root("panic", backend="efi_pstore")
    copy_crashes(made, 3)
    return made


IDS = [crash_id(n) for n in range(3)]


def script(path: Path, text: str) -> str:
    """A program for the exec sink."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def configure(root: Root, **tables: dict[str, Any]) -> None:
    """Write the configuration; JSON's scalars and lists are TOML's."""
    text = ""
    for name, table in tables.items():
        text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    root.configure(text)


def states(root: Root, sink: str) -> dict[Item, State]:
    """What is noted of a sink."""
    return Outgoing(Archive(str(root.archive)), sink).entries()


def test_a_file_gets_all_of_a_crash(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """One JSON object a line, oldest first, each once; the report, the kernel's log, who sends."""
    path = tmp_path / "out.jsonl"
    configure(three, file={"path": str(path)})
    done = pstored("deliver", root=three)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"file: has crash {one}" for one in IDS]
    found = lines(path)
    assert [one["crash"]["id"] for one in found] == IDS
    assert "Kernel panic - not syncing" in found[0]["text"]
    assert found[0]["reporter"]["kernel"] == (three.path / "proc/sys/kernel/osrelease").read_text().strip()
    assert (found[0]["count"], found[0]["schema"]) == (1, 1)
    assert pstored("deliver", root=three).stdout == ""
    assert len(lines(path)) == 3
    assert path.stat().st_mode & 0o777 == 0o640


def test_collect_delivers_too(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """All stages, and what goes out behind them; the JSON says so."""
    made = root("panic", backend="efi_pstore")
    configure(made, file={"path": str(tmp_path / "out")})
    done = pstored("collect", "--json", root=made)
    assert done.status == 0
    (one,) = done.json["outgoing"]["delivered"]
    assert one["crash"] == done.json["crashes"][0]["id"]
    assert len(lines(tmp_path / "out")) == 1


@pytest.mark.parametrize(("text", "size"), [("full", 1000), ("trace", 50), ("none", 0)])
def test_as_much_text_as_is_wanted(three: Root, pstored: Pstored, tmp_path: Path, text: str, size: int) -> None:
    """The sink's own word counts more than the general one."""
    configure(three, delivery={"text": "none"}, file={"path": str(tmp_path / "out"), "text": text})
    pstored("deliver", root=three)
    found = lines(tmp_path / "out")[0]
    assert len(found["text"] or "") >= size
    assert (found["text"] is None) is (text == "none")
    log = (three.crashes()[0] / "dmesg.txt").stat().st_size
    assert found["text_left_out"] == {"full": 0, "none": log}.get(text, log - len(found["text"] or ""))


def test_a_program_gets_it_on_standard_input(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """With the ids in its environment; exit status 0: it has it."""
    program = script(
        tmp_path / "take", f'cat >>{tmp_path}/got; echo >>{tmp_path}/got; echo "$PSTORED_UID $1" >>{tmp_path}/ids'
    )
    configure(three, exec={"command": [program, "word"]})
    assert pstored("deliver", root=three).status == 0
    assert [one["crash"]["id"] for one in lines(tmp_path / "got")] == IDS
    assert [line.split() for line in (tmp_path / "ids").read_text().splitlines()] == [
        [one["uid"], "word"] for one in lines(tmp_path / "got")
    ]


@pytest.mark.parametrize(
    ("text", "status", "state", "why"),
    [
        ("exit 65", 0, State.REFUSED, "refuses it: exit status 65"),
        ("exit 1", 75, State.FAILED, "ended with 1"),
        ("exit 75", 75, State.FAILED, "ended with 75"),
        ("kill -9 $$", 75, State.FAILED, "ended with -9"),
        ("sleep 60 & sleep 60", 75, State.FAILED, "takes longer than 1 s, and was ended"),
    ],
)
def test_a_program_that_does_not_take_it(
    three: Root, pstored: Pstored, tmp_path: Path, text: str, status: int, state: State, why: str
) -> None:
    """65 is for good, all else is tried again; what it has started ends with it."""
    configure(three, delivery={"timeout_s": 1}, exec={"command": [script(tmp_path / "program", text)]})
    done = pstored("deliver", root=three)
    assert done.status == status
    assert states(three, "exec")[Item(IDS[0], 1)] is state
    row = pstored("outbox", "--json", root=three).json["outbox"][0]
    assert (row["sink"], row["crash"], row["state"], row["attempts"]) == ("exec", IDS[0], state.value, 1)
    assert why in row["why"]
    assert "sleep 60" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def test_without_a_program_nothing_is_lost(three: Root, pstored: Pstored) -> None:
    """A command that is none, or not there: kept, with the reason."""
    for command, why in (([], "must name a program by its absolute path"), (["/nowhere"], "cannot run '/nowhere'")):
        configure(three, exec={"command": command})
        done = pstored("deliver", root=three)
        assert done.status == 75
        assert why in done.stderr
        pstored("outbox", "--retry", root=three)


def test_a_sink_that_hangs_costs_only_itself(three: Root, tmp_path: Path) -> None:
    """It is ended when its time is up, and left alone for a while; the others have all of theirs."""
    program = script(tmp_path / "hang", "trap '' TERM; exec sleep 60")
    configure(
        three,
        delivery={"timeout_s": 50, "sink_timeout_s": 6},
        exec={"command": [program]},
        file={"path": str(tmp_path / "out")},
    )
    begin = time.monotonic()
    done = run_pstored("deliver", "--json", root=three)
    assert time.monotonic() - begin < 30
    assert done.status == 75
    assert [one["sink"] for one in done.json["outgoing"]["delivered"]] == ["file"] * 3
    sinks = {one["sink"]: one for one in done.json["outgoing"]["sinks"]}
    assert "took longer than 6 s" in sinks["exec"]["error"]
    assert sinks["exec"]["failures"] == 1
    assert 20 < done.json["outgoing"]["next_s"] <= 60


def test_a_process_that_dies_is_said(three: Root, tmp_path: Path) -> None:
    """A sink's process that is killed from outside: what it had delivered counts, the rest waits."""
    program = script(tmp_path / "murder", 'test -e "$0.once" && exec kill -9 $PPID; touch "$0.once"; exit 0')
    configure(three, exec={"command": [program]})
    done = run_pstored("deliver", root=three)
    assert done.status == 75
    assert "exec: its process ended with -9" in done.stderr
    assert states(three, "exec") == {Item(IDS[0], 1): State.SENT}


def test_a_file_that_cannot_be_written_is_tried_again(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """No such directory; then there is one."""
    configure(three, file={"path": str(tmp_path / "there/out")})
    done = pstored("deliver", root=three)
    assert done.status == 75
    assert "No such file or directory" in done.stderr
    (tmp_path / "there").mkdir()
    assert pstored("deliver", root=three).status == 75
    pstored("outbox", "--retry", root=three)
    assert pstored("deliver", root=three).status == 0
    assert [one["crash"]["id"] for one in lines(tmp_path / "there/out")] == IDS


def test_a_full_disk_leaves_no_half_line(three: Root, tmp_path: Path, own_mounts: Callable[[Any], Any]) -> None:
    """What did not fit is taken back, and is written once there is room; no line is torn, none is there twice."""
    from tests.conftest import mount

    configure(three, file={"path": str(tmp_path / "small/out")})

    def child() -> tuple[Done, str, Done, list[str]]:
        (tmp_path / "small").mkdir()
        mount("-t", "tmpfs", "-o", "size=64k", "none", tmp_path / "small")
        (tmp_path / "small/ballast").write_bytes(b"x" * 40960)
        first = run_pstored("deliver", root=three)
        text = (tmp_path / "small/out").read_text()
        (tmp_path / "small/ballast").unlink()
        mount("-o", "remount,size=1m", tmp_path / "small")
        run_pstored("outbox", "--retry", root=three)
        return first, text, run_pstored("deliver", root=three), uids(tmp_path / "small/out")

    first, text, second, found = own_mounts(child)
    assert first.status == 75
    assert "No space left on device" in first.stderr
    assert text == "" or text.endswith("\n")
    assert second.status == 0
    assert [uid.partition(".")[0] for uid in found] == IDS


def test_a_torn_line_is_taken_away(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """What a power cut has left of a line; whole lines of whoever stay."""
    path = tmp_path / "out"
    path.write_text('{"uid": "other"}\n{"uid": "to')
    configure(three, file={"path": str(path)})
    pstored("deliver", root=three)
    assert [uid.partition(".")[0] for uid in uids(path)] == ["other", *IDS]


def test_a_broken_table_turns_its_sink_off(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """What goes out by default might be more than was meant to; the other sinks are not touched."""
    configure(three, exec={"command": [script(tmp_path / "p", f"touch {tmp_path}/ran")], "text": "nothing"})
    with (three.path / "etc/pstored.conf").open("a") as f:
        f.write(f'[file]\npath = "{tmp_path}/out"\nwhat = 1\n')
    done = pstored("deliver", root=three)
    assert "'text' in [exec] must be one of 'full', 'trace', 'none', not 'nothing'; it is turned off" in done.stderr
    assert "unknown key 'what' in [file]" in done.stderr
    assert len(lines(tmp_path / "out")) == 3
    assert not (tmp_path / "ran").exists()
    three.configure(f'[delivery]\nredact = "no"\n[file]\npath = "{tmp_path}/never"\n')
    pstored("deliver", root=three)
    assert not (tmp_path / "never").exists()


# -- the outbox


def test_outbox_shows_what_waits_and_why(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """A table, and JSON; nothing, once all has arrived."""
    program = script(tmp_path / "p", f"cat >/dev/null; exit $(cat {tmp_path}/status)")
    (tmp_path / "status").write_text("3")
    configure(three, exec={"command": [program]}, file={"path": str(tmp_path / "out")})
    pstored("deliver", root=three)
    shown = pstored("outbox", root=three).stdout.splitlines()
    assert shown[0].split() == ["SINK", "CRASH", "CRASHES", "STATE", "TRIES", "NEXT", "(UTC)", "WHY"]
    assert [line.split()[:5] for line in shown[1:]] == [
        ["exec", "00000000", "1", "failed", "1"],
        ["exec", "00000000", "1", "new", "0"],
        ["exec", "00000000", "1", "new", "0"],
    ]
    assert all("ended with 3" in line for line in shown[1:])
    (tmp_path / "status").write_text("0")
    assert pstored("deliver", root=three).status == 75  # its time has not come
    assert pstored("outbox", "--retry", "exec", root=three).stdout == "1 to be tried again: pstored deliver\n"
    assert pstored("deliver", root=three).status == 0
    assert pstored("outbox", root=three).stdout == "nothing waits to be delivered\n"


def test_refused_ones_can_be_tried_again(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """One by its id; all by nothing; what was dropped only by its id."""
    program = script(tmp_path / "p", f"cat >/dev/null; exit $(cat {tmp_path}/status)")
    (tmp_path / "status").write_text("65")
    configure(three, exec={"command": [program]})
    done = pstored("deliver", root=three)
    assert "exec: 3 refused, and set aside: see pstored outbox" in done.stderr
    (tmp_path / "status").write_text("0")
    assert pstored("deliver", root=three).stdout == ""
    pstored("outbox", "--retry", IDS[1], root=three)
    assert pstored("deliver", root=three).stdout == f"exec: has crash {IDS[1]}\n"
    pstored("outbox", "--drop", IDS[0], root=three)
    assert [row["crash"] for row in pstored("outbox", "--json", root=three).json["outbox"]] == [IDS[2]]
    pstored("outbox", "--retry", root=three)
    assert pstored("deliver", root=three).stdout == f"exec: has crash {IDS[2]}\n"
    pstored("outbox", "--retry", IDS[0], root=three)
    assert pstored("deliver", root=three).stdout == f"exec: has crash {IDS[0]}\n"


def test_a_new_sink_can_be_spared_the_past(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """``--drop`` before its first delivery; what comes later goes out.  A crash that is not there is an error."""
    configure(three, file={"path": str(tmp_path / "out")})
    assert pstored("outbox", "--drop", "file", root=three).stdout == "3 taken out of the outbox\n"
    assert pstored("deliver", root=three).stdout == ""
    assert not (tmp_path / "out").exists()
    done = pstored("outbox", "--drop", "nothing", root=three)
    assert (done.status, done.stderr.splitlines()[0]) == (1, "error: no crash 'nothing'")


def test_held_repeats_are_shown_and_dropped(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """They wait to be counted: a row that says how many, and until when."""
    made = root("panic", backend="efi_pstore")
    now = int(time.time())
    copy_crashes(made, 7, signature=lambda _: "loop", every_s=1)
    for path in made.crashes():  # just now
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)) + "-" + path.name.split("-")[1]
        path.rename(path.with_name(name))
        report = made.archive / "crashes" / name / "crash.json"
        report.write_text(report.read_text().replace(path.name, name))
    configure(made, file={"path": str(tmp_path / "out")})
    pstored("deliver", root=made)
    assert [one["count"] for one in lines(tmp_path / "out")] == [1, 1, 1, 4]
    third = made.crashes()[-1]
    for number in range(3):
        shutil.copytree(third, third.with_name(f"{third.name[:-1]}{number + 7}"))
        report = third.with_name(f"{third.name[:-1]}{number + 7}") / "crash.json"
        report.write_text(report.read_text().replace(third.name, report.parent.name))
    assert pstored("deliver", root=made).status == 75
    (row,) = pstored("outbox", "--json", root=made).json["outbox"]
    assert (row["state"], row["crashes"], row["why"]) == ("held", 3, "repeats of what was delivered, to be counted")
    assert pstored("outbox", root=made).stdout.splitlines()[1].split()[:4] == ["file", "-", "3", "held"]
    assert pstored("outbox", "--drop", "file", root=made).stdout == "1 taken out of the outbox\n"
    assert pstored("deliver", root=made).status == 0


# -- who delivers


def test_root_delivers_as_who_owns_the_directory(three: Root, tmp_path: Path) -> None:
    """A program runs as that user, and what is noted is that user's; the archive it can only read."""
    require(os.geteuid() == 0, "root, to become another user")
    hand_over(three, tmp_path)
    program = script(
        tmp_path / "p", f"id -un >>{tmp_path}/who; touch {three.archive}/crashes/x 2>/dev/null && exit 1; exit 0"
    )
    (tmp_path / "who").touch()
    os.chown(tmp_path / "who", NOBODY.pw_uid, NOBODY.pw_gid)
    configure(three, exec={"command": [program]})
    done = run_forked(three, "deliver")
    assert (done.status, done.stderr) == (0, "")
    assert (tmp_path / "who").read_text().split() == ["nobody"] * 3
    found = list((three.archive / "outgoing/exec").iterdir())
    assert {path.stat().st_uid for path in found} == {NOBODY.pw_uid}
    assert {path.stat().st_mode & 0o777 for path in found} == {0o644}
    (three.archive / "outgoing/exec/x").touch()
    assert run_forked(three, "outbox", "--retry", "exec").status == 0


def hand_over(root: Root, tmp_path: Path) -> None:
    """Give outgoing/ to nobody, and the archive to be read by nobody's group."""
    for path in (tmp_path, *tmp_path.parents[:-1]):
        if path.stat().st_mode & 0o005 != 0o005 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o005)
    for directory, _, files in os.walk(root.archive):
        os.chown(directory, 0, NOBODY.pw_gid)
        for name in files:
            os.chown(os.path.join(directory, name), 0, NOBODY.pw_gid)
            os.chmod(os.path.join(directory, name), 0o640)
    (root.archive / "outgoing").mkdir(mode=0o755)
    os.chown(root.archive / "outgoing", NOBODY.pw_uid, NOBODY.pw_gid)


def run_forked(root: Root, *arguments: str, nobody: bool = False) -> Done:
    """The program in a fork, with all that it needs loaded: the interpreter may be in root's own directory."""

    def child() -> Done:
        if nobody:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(["--root", str(root.path), *arguments])
        return Done(status, out.getvalue(), err.getvalue())

    return forked(child)


def test_who_may_only_read_the_archive_can_deliver(three: Root, tmp_path: Path) -> None:
    """What the service does: no right to write in the archive is needed; the local sinks are not touched."""
    require(os.geteuid() == 0, "root, to become another user")
    hand_over(three, tmp_path)
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    configure(three, file={"path": str(tmp_path / "open/out")})
    before = three.snapshot()
    done = run_forked(three, "deliver", "--outgoing", nobody=True)
    assert (done.status, done.stderr) == (0, "")
    assert len(lines(tmp_path / "open/out")) == 3
    assert {k: v for k, v in three.snapshot().items() if not k.startswith("outgoing/")} == before
    shown = run_forked(three, "outbox", nobody=True)
    assert shown.stdout == "nothing waits to be delivered\n"


def test_who_may_not_write_what_was_delivered_delivers_nothing(three: Root, tmp_path: Path) -> None:
    """Else it would be delivered again and again."""
    require(os.geteuid() == 0, "root, to become another user")
    hand_over(three, tmp_path)
    os.chown(three.archive / "outgoing", 0, 0)
    configure(three, exec={"command": [script(tmp_path / "p", f"touch {tmp_path}/ran")]})
    done = run_forked(three, "deliver", "--outgoing", nobody=True)
    assert done.status == 75
    assert "exec: cannot make the directory" in done.stderr
    assert not (tmp_path / "ran").exists()


# -- the service


@pytest.fixture
def service(three: Root, tmp_path: Path) -> Any:
    """pstored-deliver.socket and its service, as systemd would run them: started by a connection, one at a time."""
    activate = shutil.which("systemd-socket-activate")
    require(activate, "systemd-socket-activate (apt-get install systemd)")
    (three.path / "run/pstored").mkdir(parents=True, exist_ok=True)
    path = three.path / "run/pstored/deliver"
    command = [sys.executable, "-m", "pstored", "--root", str(three.path), "deliver", "--outgoing"]
    with (tmp_path / "service.out").open("w") as f:
        process = subprocess.Popen([str(activate), f"--listen={path}", *command], cwd=REPOSITORY, stdout=f, stderr=f)
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


def test_the_service_is_asked_and_answers(three: Root, tmp_path: Path, service: "subprocess.Popen[bytes]") -> None:
    """Who asks prints what became of it, and does nothing itself; then the service ends."""
    configure(
        three,
        exec={"command": [script(tmp_path / "p", f'cat /proc/$PPID/cmdline | tr "\\0" " " >>{tmp_path}/who; exit 0')]},
    )
    done = run_pstored("deliver", "--json", root=three)
    assert done.status == 0, done.stderr
    assert [one["crash"] for one in done.json["outgoing"]["delivered"]] == IDS
    assert service.wait(30) == 0
    assert (tmp_path / "who").read_text().count("deliver --outgoing") == 3
    # the socket is there, and nobody listens: it is done here
    assert run_pstored("deliver", root=three).status == 0


def test_a_service_that_dies_is_said(three: Root, tmp_path: Path, service: "subprocess.Popen[bytes]") -> None:
    """No answer is no delivery; what waits, waits."""
    configure(three, exec={"command": [script(tmp_path / "p", f"kill -9 {service.pid}; sleep 1; exit 1")]})
    done = run_pstored("deliver", root=three)
    assert done.status == 75
    assert "the service that delivers gave no answer" in done.stderr
    assert "exec: 3 not delivered yet, kept" in done.stderr
    assert service.wait(30) == -signal.SIGKILL


def test_the_status_descriptor_says_when_the_next_round_is_due(three: Root, tmp_path: Path) -> None:
    """For the daemon: what waits, in words, and in how many seconds it is tried; collect leaves the delivery to it."""
    configure(three, exec={"command": [script(tmp_path / "p", f"touch {tmp_path}/ran; exit 1")]})

    def told(*arguments: str) -> list[str]:
        def child() -> list[str]:
            read_fd, write_fd = os.pipe()
            os.set_inheritable(write_fd, True)
            command = [
                sys.executable,
                "-m",
                "pstored",
                "--root",
                str(three.path),
                *arguments,
                f"--status-fd={write_fd}",
            ]
            subprocess.run(command, pass_fds=[write_fd], capture_output=True, cwd=REPOSITORY, check=False)
            os.close(write_fd)
            with open(read_fd) as f:
                return f.read().splitlines()

        return forked(child)

    assert told("collect")[-1] == "deliver 0.0"
    assert not (tmp_path / "ran").exists()
    first, second = told("deliver", "--outgoing")
    assert first.startswith("3 to be delivered: exec (")
    assert 20 < float(second.removeprefix("deliver ")) <= 60
    three.configure("")
    assert told("deliver", "--outgoing") == [""]

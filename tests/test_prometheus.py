# SPDX-License-Identifier: Apache-2.0
"""The file for node_exporter: as Prometheus' own tools read it, whole at any moment, and counters that only grow."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.archive import Archive
from pstored.boots.ends import EndKind
from pstored.boots.ledger import read_ledger, write_ledger
from pstored.config import load
from pstored.delivery.exposition import parse_counters, render, sample
from pstored.delivery.metrics import ENDS, REASONS, Family
from pstored.delivery.outgoing import Outgoing
from pstored.oops.model import Severity
from pstored.sinks import settings
from pstored.sinks.prometheus import FILE
from tests.conftest import Done, MakeRoot, Pstored, Root, require, run_pstored
from tests.loopback import PATIENCE_S, free_port
from tests.outgoing import copy_crashes, crash_id
from tests.test_courier import run_killed
from tests.test_dispatch import NOBODY, hand_over, run_forked
from tests.test_quota import SAME

DIRECTORY = settings.Prometheus().directory
PANICS = 'pstored_crashes_total{reason="panic"}'


@pytest.fixture
def board(root: MakeRoot) -> Root:
    """A board with one crash in its store, and the directory that systemd makes for the service."""
    made = root("panic", backend="efi_pstore")
    made.configure("[prometheus]\n")
    (made.path / DIRECTORY[1:]).mkdir(parents=True)
    return made


def path(root: Root) -> Path:
    """The file."""
    return root.path / DIRECTORY[1:] / FILE


def samples(root: Root) -> dict[str, float]:
    """What is in it."""
    lines = [line for line in path(root).read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def deliver(root: Root) -> Done:
    """A round."""
    return run_pstored("deliver", root=root)


# -- the text


def test_the_words_are_all_there_are() -> None:
    """What a crash came to, and how a boot ends: pstored's own lists."""
    assert set(REASONS) == set(Severity)
    assert {*ENDS, EndKind.RUNNING} == set(EndKind)


def family(name: str, value: float, **labels: str) -> Family:
    """One with one sample."""
    return Family(name, name, 'Of "this"\\\nand that.', "1", name.endswith("_total"), ((labels, value),))


def test_help_and_labels_are_escaped() -> None:
    """Text format 0.0.4: backslash and line feed in help, and the quote in labels, too."""
    text = render([family("pstored_x", 1, version='a"b\\c\nd')], {}).decode()
    assert text == (
        '# HELP pstored_x Of "this"\\\\\\nand that.\n# TYPE pstored_x gauge\npstored_x{version="a\\"b\\\\c\\nd"} 1\n'
    )


@given(st.dictionaries(st.sampled_from(["sink", "end"]), st.text()), st.integers(0, 10**14))
def test_counters_are_read_back(labels: dict[str, str], value: int) -> None:
    """Whatever their labels, each as itself; a gauge is none."""
    families = [family("pstored_x_total", value, **labels), family("pstored_y", 7)]
    assert parse_counters(render(families, {}).decode()) == {sample("pstored_x_total", labels): value}


@given(st.text())
def test_any_text_gives_counters_or_none(text: str) -> None:
    """A file that somebody else wrote stops nothing."""
    assert all(isinstance(value, int) for value in parse_counters(text).values())


def test_a_counter_is_never_less_than_shown() -> None:
    """A gauge may be."""
    shown = {"pstored_x_total": 5, "pstored_y": 5}
    text = render([family("pstored_x_total", 3), family("pstored_y", 3)], shown).decode()
    assert "pstored_x_total 5\n" in text
    assert "pstored_y 3\n" in text


# -- the file


def test_collect_writes_the_file(board: Root, pstored: Pstored) -> None:
    """Every family, also of what never happened; readable by another user; nothing waits for it."""
    done = pstored("collect", root=board)
    assert (done.status, done.stderr) == (0, "")
    assert path(board).stat().st_mode & 0o777 == 0o644
    assert os.listdir(path(board).parent) == [FILE]
    found = samples(board)
    assert {name: value for name, value in found.items() if name.startswith("pstored_crashes_total")} == {
        f'pstored_crashes_total{{reason="{reason}"}}': float(reason == "panic") for reason in REASONS
    }
    assert {name for name in found if name.startswith("pstored_boots_total")} == {
        f'pstored_boots_total{{end="{end}"}}' for end in ENDS
    }
    assert found["pstored_last_crash_timestamp_seconds"] > 1.7e9
    assert pstored("outbox", root=board).stdout == "nothing waits to be delivered\n"


def test_other_sinks_are_counted(board: Root, pstored: Pstored) -> None:
    """After their round: what they still do not have, and how often they failed."""
    board.configure('[prometheus]\n[exec]\ncommand = ["/bin/false"]\n')
    assert pstored("collect", root=board).status == 75
    found = samples(board)
    assert found['pstored_sink_pending{sink="exec"}'] == found['pstored_sink_failures_total{sink="exec"}'] == 1
    board.configure("[delivery]\nretry_s = 0\n[prometheus]\n[exec]\ncommand = ['/bin/true']\n")
    assert pstored("outbox", "--retry", root=board).status == 0
    deliver(board)
    found = samples(board)
    assert found['pstored_sink_pending{sink="exec"}'] == 0
    assert found['pstored_sink_failures_total{sink="exec"}'] == 1


def test_promtool_finds_nothing(board: Root, pstored: Pstored) -> None:
    """``promtool check metrics``: names, types, help and form."""
    board.configure('[prometheus]\n[exec]\ncommand = ["/bin/false"]\n')
    pstored("collect", root=board)
    program = shutil.which("promtool")
    require(program, "promtool (apt-get install prometheus)")
    assert program is not None
    done = subprocess.run(
        [program, "check", "metrics"], input=path(board).read_bytes(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    broken = path(board).read_bytes().replace(b"pstored_boots_total", b"pstored_boots")
    done = subprocess.run([program, "check", "metrics"], input=broken, capture_output=True, check=False)
    assert done.returncode != 0  # it does look


@contextlib.contextmanager
def node_exporter(directory: Path) -> Iterator[int]:
    """Run the real one, with its textfile collector alone; gives the port."""
    program = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
    require(program, "node_exporter (apt-get install prometheus-node-exporter, which starts it, too)")
    assert program is not None
    port = free_port()
    arguments = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={directory}"]
    command = [program, f"--web.listen-address=127.0.0.1:{port}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                scrape(port)
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def scrape(port: int) -> list[str]:
    """What it exports."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
    return text.splitlines()


@pytest.mark.servers
def test_node_exporter_exports_it(board: Root, pstored: Pstored, tmp_path: Path) -> None:
    """Through a link in the directory that it reads, as README says; what is half written it does not see."""
    pstored("collect", root=board)
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / FILE).symlink_to(path(board))
    (path(board).parent / f".new-{FILE}.new").write_text("pstored_crashes_to")
    for directory in (tmp_path / "read", path(board).parent):
        with node_exporter(directory) as port:
            found = scrape(port)
        assert f"{PANICS} 1" in found
        assert "node_textfile_scrape_error 0" in found
        assert "# TYPE pstored_crashes_total counter" in found
        assert any(line.startswith("node_textfile_mtime_seconds") and FILE in line for line in found)
        assert {line.partition(" ")[0] for line in found if line.startswith("pstored_")} == set(samples(board))
    path(board).unlink()
    with node_exporter(tmp_path / "read") as port:  # as it is after a boot, before the first delivery
        found = scrape(port)
    assert "node_textfile_scrape_error 1" in found
    assert not any(line.startswith("pstored_") for line in found)


# -- what goes wrong


def test_a_missing_directory_is_said(board: Root, pstored: Pstored) -> None:
    """What, where, and what to do; the crash is archived, and nothing is tried over and over."""
    path(board).parent.rmdir()
    done = pstored("collect", root=board)
    assert done.status == 0
    (line,) = done.stderr.splitlines()
    assert f"prometheus: its metrics are not delivered: cannot write to '{path(board).parent}': No such file" in line
    assert "ReadWritePaths=" in line
    assert '"next_s": null' in pstored("deliver", "--outgoing", "--json", root=board).stdout


@pytest.mark.parametrize("directory", ["metrics", "/", "/a\\u0000b"])
def test_a_wrong_directory_is_said(root: MakeRoot, directory: str) -> None:
    """check-config tells; nothing is written anywhere."""
    made = root()
    made.configure(f'[prometheus]\ndirectory = "{directory}"\n')
    loaded = load(str(made.path))
    (problem,) = loaded.problems
    assert "'directory' in [prometheus] must be an absolute path, and not /" in problem
    assert settings.meters(loaded.config.outgoing) == []


def test_who_delivers_is_who_writes(board: Root, pstored: Pstored, tmp_path: Path) -> None:
    """Not root: without the right to write it says so, with it the file is that user's, and everybody's to read."""
    require(os.geteuid() == 0, "root, to become another user")
    board.configure("")
    pstored("collect", root=board)
    board.configure("[prometheus]\n")
    hand_over(board, tmp_path)
    done = run_forked(board, "deliver", "--outgoing", nobody=True)
    assert done.status == 0
    assert f"cannot write to '{path(board).parent}': Permission denied" in done.stderr
    os.chown(path(board).parent, NOBODY.pw_uid, NOBODY.pw_gid)
    done = run_forked(board, "deliver", "--outgoing")
    assert (done.status, done.stderr) == (0, "")
    state = path(board).stat()
    assert (state.st_uid, state.st_mode & 0o777) == (NOBODY.pw_uid, 0o644)
    assert samples(board)[PANICS] == 1


def test_a_file_in_the_place_of_the_directory_is_said(board: Root, pstored: Pstored) -> None:
    """And left as it is."""
    path(board).parent.rmdir()
    path(board).parent.write_text("mine")
    assert "Not a directory" in pstored("collect", root=board).stderr
    assert path(board).parent.read_text() == "mine"


def test_delivery_turned_off_is_off(board: Root, pstored: Pstored) -> None:
    """``[delivery] enabled``: to any sink."""
    board.configure("[delivery]\nenabled = false\n[prometheus]\n")
    assert pstored("collect", root=board).stderr == ""
    assert not path(board).exists()


def test_the_daemon_is_told_when_there_is_something_to_count(board: Root, pstored: Pstored) -> None:
    """A crash that is not counted is due at once; when it is, nothing is due."""
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-m", "pstored", "--root", str(board.path), "collect", f"--status-fd={write_fd}"]
    subprocess.run(command, pass_fds=[write_fd], check=True)
    os.close(write_fd)
    with open(read_fd) as f:
        assert [line for line in f.read().splitlines() if line.startswith("deliver")] == ["deliver 0.0"]
    assert '"next_s": null' in pstored("deliver", "--outgoing", "--json", root=board).stdout
    assert samples(board)[PANICS] == 1


# -- counters


def test_counters_outlive_the_archive(board: Root) -> None:
    """What the quota takes, an archive that is made anew, notes that are lost: nothing goes back, and news counts."""
    records = {name: (board.store / name).read_bytes() for name in board.names()}
    archive = copy_crashes(board, 3)
    deliver(board)
    assert samples(board)[PANICS] == 4  # the one that was copied was delivered, too
    shutil.rmtree(archive.crash_directory(crash_id(0)))
    deliver(board)
    assert samples(board)[PANICS] == 4
    shutil.rmtree(archive.outgoing)
    deliver(board)
    assert samples(board)[PANICS] == 4
    shutil.rmtree(board.archive)
    deliver(board)
    assert samples(board)[PANICS] == 4
    for name, data in records.items():
        board.add(name, data)
    assert run_pstored("collect", root=board).status == 0
    assert samples(board)[PANICS] == 5


def test_counters_outlive_the_quota(root: MakeRoot, pstored: Pstored) -> None:
    """A board that crashes on every boot, with room for two: all are counted, each once."""
    made = root()
    made.configure("[archive]\nmax_harvests = 2\n[prometheus]\n")
    (made.path / DIRECTORY[1:]).mkdir(parents=True)
    for number in range(1, 5):
        made.add_erst_crash(number, SAME % (100 + number))
        assert pstored("collect", root=made).status == 0
        assert samples(made)[PANICS] == number
    assert samples(made)['pstored_records{state="archived"}'] == len(made.crashes()) == 2


def test_killed_at_every_step_the_file_is_whole_and_counts_each_crash_once(board: Root) -> None:
    """Before, between counting and writing, or after."""
    copy_crashes(board, 2)
    shutil.rmtree(Archive(str(board.archive)).outgoing)
    path(board).unlink()
    for at in range(1, 60):
        before = path(board).read_bytes() if path(board).exists() else b""
        status = run_killed(lambda: measure_once(board), at)
        after = path(board).read_bytes() if path(board).exists() else b""
        assert after == before or after.endswith(b"\n")
        measure_once(board)
        assert samples(board)[PANICS] == 2
        assert os.listdir(path(board).parent) == [FILE]
        if status == 0:
            break
        shutil.rmtree(Archive(str(board.archive)).outgoing)
    assert at > 8


def measure_once(root: Root) -> None:
    """What the sink's process does."""
    from pstored.delivery.tally import measure
    from pstored.host import Host
    from pstored.sinks.prometheus import Textfile

    host, archive = Host(str(root.path)), Archive(str(root.archive))
    textfile = Textfile(host.path(DIRECTORY))
    with Outgoing(archive, "prometheus").lock(wait=False):
        config = load(str(root.path)).config
        textfile.write(measure(host, archive, config, "prometheus", shown=textfile.counters()))


# -- boots


def test_boots_are_counted_by_their_end(board: Root, pstored: Pstored) -> None:
    """Each once, when it is over and its witnesses were asked; the running one is not over."""
    pstored("collect", root=board)
    assert ends(board) == {}
    archive = Archive(str(board.archive))
    close(archive)
    board.reboot()
    pstored("collect", root=board)
    assert ends(board) == {"clean": 1}
    pstored("collect", root=board)
    assert ends(board) == {"clean": 1}
    board.reboot("88888888-8888-4777-8666-555555555555")
    pstored("collect", root=board)
    assert ends(board) == {"clean": 1}  # nobody saw how the second ended: that may still turn up
    board.reboot("77777777-8888-4777-8666-555555555555")
    pstored("collect", root=board)
    assert ends(board) == {"clean": 1, "unknown": 1}


def test_a_boot_that_ended_without_a_word_is_counted_twice(board: Root, pstored: Pstored) -> None:
    """As a boot that was reset, and as the event that it is; each once."""
    pstored("collect", root=board)
    close(Archive(str(board.archive)), in_order=False)
    board.reboot()
    for _ in range(2):
        pstored("collect", root=board)
        assert ends(board) == {"reset": 1}
        assert samples(board)['pstored_crashes_total{reason="reset"}'] == 1


def test_a_boot_is_not_judged_before_its_witnesses(board: Root, pstored: Pstored) -> None:
    """A round that comes before the collection leaves it alone."""
    pstored("collect", root=board)
    board.reboot()
    pstored("harvest", root=board)
    deliver(board)
    assert ends(board) == {}
    assert samples(board)[PANICS] == 1


def close(archive: Archive, *, in_order: bool = True) -> None:
    """The unit that notes an orderly end is there, and notes one, or none."""
    ledger = read_ledger(archive)
    write_ledger(archive, [*ledger[:-1], replace(ledger[-1], closes=True, closed=in_order)])


def ends(root: Root) -> dict[str, float]:
    """How boots ended, and how many."""
    found = {name: value for name, value in samples(root).items() if name.startswith("pstored_boots_total") and value}
    return {name.split('"')[1]: value for name, value in found.items()}

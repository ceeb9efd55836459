# SPDX-License-Identifier: Apache-2.0
"""The daemon and what goes out: delivered when it is due, beside the harvest, and tried again by itself."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeRoot, Root
from tests.outgoing import lines
from tests.test_dispatch import configure, script
from tests.test_watch import PATIENCE_S, Daemon, start  # noqa: F401 - a fixture

Start = Callable[..., Daemon]


@pytest.fixture
def crashed(root: MakeRoot) -> Root:
    """A tree with one crash in its store."""
    return root("panic", backend="efi_pstore")


def test_a_crash_goes_out_once_it_is_collected(crashed: Root, start: Start, tmp_path: Path) -> None:  # noqa: F811
    """Nothing else is asked for."""
    configure(crashed, file={"path": str(tmp_path / "out")})
    daemon = start(crashed)
    daemon.wait_until(lambda: (tmp_path / "out").exists() and lines(tmp_path / "out"))
    assert "nothing due" in daemon.wait_for_end_of_run()
    assert daemon.end() == 0
    assert len(lines(tmp_path / "out")) == 1


def test_what_fails_is_in_the_status_and_tried_again(crashed: Root, start: Start, tmp_path: Path) -> None:  # noqa: F811
    """The daemon wakes when its time has come; then nothing is due; no harvest is made for it."""
    program = script(tmp_path / "p", f"echo . >>{tmp_path}/tries; test -e {tmp_path}/up")
    configure(crashed, delivery={"retry_s": 1}, exec={"command": [program]})
    daemon = start(crashed)
    while "1 to be delivered: exec" not in daemon.wait_for_end_of_run():
        pass
    assert "ended with 1" in daemon.told[-1]
    (tmp_path / "up").touch()
    while "to be delivered" in daemon.wait_for_end_of_run():
        pass
    assert len((tmp_path / "tries").read_text().split()) == 2
    assert len(daemon.runs()) == 1  # of the harvest


def test_a_sink_that_hangs_holds_up_no_harvest(crashed: Root, start: Start, tmp_path: Path) -> None:  # noqa: F811
    """A run begins and ends while a delivery hangs; SIGTERM ends both at once."""
    program = script(tmp_path / "p", f"touch {tmp_path}/hangs; exec sleep 1000")
    configure(crashed, delivery={"timeout_s": 1000, "sink_timeout_s": 1000}, exec={"command": [program]})
    daemon = start(crashed)
    daemon.wait_until((tmp_path / "hangs").exists)
    before = len(daemon.runs())
    daemon.hup()
    daemon.wait_until(lambda: len(daemon.runs()) > before)
    daemon.wait_for_end_of_run()
    begin = time.monotonic()
    assert daemon.end() == 0
    assert time.monotonic() - begin < PATIENCE_S / 2


def test_without_a_sink_no_delivery_is_made(crashed: Root, start: Start) -> None:  # noqa: F811
    """Nor with one that has been turned off by a reload."""
    daemon = start(crashed)
    assert daemon.wait_for_end_of_run()
    assert daemon.end() == 0
    assert not (crashed.archive / "outgoing").exists()

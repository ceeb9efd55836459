# SPDX-License-Identifier: Apache-2.0
"""What the daemon has done in other processes; the rest of it is tested with the daemon."""

import os

from hypothesis import given
from hypothesis import strategies as st

from pstored.child import MOST_S, printable, read_settings
from tests.conftest import MakeRoot


def test_settings_are_those_of_the_configuration(root: MakeRoot) -> None:
    """Read in a fork, of which nothing is left; times that no clock can hold are cut."""
    made = root()
    found = read_settings(str(made.path))
    assert (found.timeout_s, found.retry_s, found.retry_max_s, found.store) == (300, 60, 3600, "/sys/fs/pstore")
    made.configure(f'[watch]\ntimeout_s = {10**30}\nretry_s = 5\nretry_max_s = 0\n[harvest]\nstore = "/srv/x"\n')
    descriptors = os.listdir("/proc/self/fd")
    found = read_settings(str(made.path))
    assert (found.timeout_s, found.retry_s, found.retry_max_s, found.store) == (MOST_S, 5, 0, "/srv/x")
    assert os.listdir("/proc/self/fd") == descriptors


def test_broken_configuration_gives_the_defaults(root: MakeRoot) -> None:
    """As for every other command."""
    made = root()
    made.configure("[watch\n")
    assert read_settings(str(made.path)).retry_s == 60


@given(st.binary())
def test_a_line_controls_nothing(line: bytes) -> None:
    """Neither terminal nor service manager: one line, all of it printable."""
    text = printable(line)
    assert text.isprintable()
    assert "\n" not in text


def test_a_line_that_is_fine_stays_as_it_is() -> None:
    """Not only ASCII."""
    assert printable("2 crashes, neueste: Fehler in größe()".encode()) == "2 crashes, neueste: Fehler in größe()"

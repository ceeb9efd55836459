# SPDX-License-Identifier: Apache-2.0
"""How much was proven: each test counts what it tried, and the end of the run says it."""

from collections.abc import Callable

import pytest

_tallies: dict[str, int] = {}

Tally = Callable[[str, int], None]


@pytest.fixture
def tally(capsys: pytest.CaptureFixture[str]) -> Tally:
    """Count points of a kind that were tried, and have passed."""

    def add(what: str, number: int) -> None:
        _tallies[what] = _tallies.get(what, 0) + number

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each kind, and the sum."""
    if _tallies:
        terminalreporter.section("proof: tried, and passed")
        for what, number in _tallies.items():
            terminalreporter.write_line(f"{number:7} {what}")
        terminalreporter.write_line(f"{sum(_tallies.values()):7} in all")

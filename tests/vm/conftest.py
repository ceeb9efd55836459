# SPDX-License-Identifier: Apache-2.0
"""A lost machine is an error, not a failure: it says nothing about the program."""

from collections.abc import Callable, Generator

import pytest

from tests.vm.vm import LostVmError

pytest.register_assert_rewrite("tests.vm.checks", "tests.vm.scenarios")


Found = Callable[[str], None]


@pytest.fixture
def found(request: pytest.FixtureRequest) -> Found:
    """Say what a scenario found: a line, shown as soon as it has ended."""
    return lambda text: request.node.user_properties.append(("found", text))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print the line, with the time that it took."""
    for name, text in report.user_properties:
        if name == "found" and report.when == "call":
            print(f"\n{report.nodeid.partition('::')[2]}: {text} ({report.duration:.0f} s)", flush=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Mark the report of a test that has lost its machine."""
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(LostVmError):
        report.user_properties.append(("lost", True))
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show it as what it is; the exit status of pytest is that of a failure all the same."""
    if report.failed and ("lost", True) in report.user_properties:
        return "error", "L", "LOST"
    return None

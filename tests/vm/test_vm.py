# SPDX-License-Identifier: Apache-2.0
"""Real kernels crash, and this checkout collects: one test a line of scenarios.SCENARIOS."""

import compileall
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import kernels
from tests.vm.conftest import Found
from tests.vm.kdump import KDUMP_SCENARIOS
from tests.vm.scenarios import SCENARIOS, Scenario
from tests.vm.service import SERVICE_SCENARIOS
from tests.vm.vm import CRASH, LostVmError, Machine, Start

pytestmark = pytest.mark.vm


@pytest.fixture(scope="session", autouse=True)
def _ready() -> None:
    """Have the bytecode beside the modules: an emulated CPU compiles them anew at every start, for seconds."""
    with kernels.alone():
        compileall.compile_dir(kernels.HERE.parents[1] / "pstored", quiet=2)


@pytest.fixture
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where the machines of a scenario are; kept only if it did not pass, with a serial log for each start.

    With PSTORED_VM_CAPTURES=DIR in the environment, the records that real kernels showed are copied there; with
    PSTORED_VM_TRANSCRIPTS=DIR what systemctl, journalctl and pstored said where systemd is PID 1.
    """
    failed = request.session.testsfailed
    yield tmp_path
    if captures := os.environ.get("PSTORED_VM_CAPTURES"):
        for store in tmp_path.glob("machine/*/collect*/store"):
            name = "-".join((request.node.callspec.id, *store.parts[-3:-1]))
            shutil.copytree(store, Path(captures) / name, dirs_exist_ok=True)
    if transcripts := os.environ.get("PSTORED_VM_TRANSCRIPTS"):
        for transcript in tmp_path.glob("machine/*/transcript"):
            name = f"{request.node.callspec.id}-{transcript.parent.name}.txt"
            shutil.copy(transcript, Path(transcripts) / name)
    if request.session.testsfailed == failed:
        shutil.rmtree(tmp_path)


ALL = (*SCENARIOS, *KDUMP_SCENARIOS, *SERVICE_SCENARIOS)


@pytest.mark.parametrize("scenario", ALL, ids=[scenario.name for scenario in ALL])
def test_scenario(scenario: Scenario, directory: Path, found: Found) -> None:
    """The scenario holds on a real kernel; what was found is printed, one line each."""
    found(scenario.run(directory))


def test_machine_that_hangs_is_lost(directory: Path) -> None:
    """A start that does not end in time is an error of its own kind."""
    machine = Machine(directory=directory / "machine", disk=False)
    with pytest.raises(LostVmError, match=r"still running after 10 s"):
        machine.run(Start("hang", "sleep 1000\n"), timeout_s=10)


def test_machine_that_goes_down_is_lost(directory: Path) -> None:
    """So is one that panics where nobody asked for it."""
    machine = Machine(directory=directory / "machine", disk=False)
    with pytest.raises(LostVmError, match="went down before its script had ended"):
        machine.run(Start("down", CRASH))

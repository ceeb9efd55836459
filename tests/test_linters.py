# SPDX-License-Identifier: Apache-2.0
"""ruff and mypy, as tests: what they say is in the output."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

LINTERS = {
    "ruff check": ["ruff", "check", "--no-cache", "--output-format=concise", "."],
    "ruff format": ["ruff", "format", "--no-cache", "--check", "."],
    "mypy": ["mypy"],
    "mypy tests": ["mypy", "-p", "tests"],
}


@pytest.mark.parametrize("name", LINTERS)
def test_a_linter_has_nothing_to_say(name: str) -> None:
    """With the repository's own settings."""
    done = subprocess.run(
        [sys.executable, "-m", *LINTERS[name]], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

# SPDX-License-Identifier: Apache-2.0
"""The alert rules of units/fleet, as Prometheus' own promtool reads and runs them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, require

RULES = REPOSITORY / "units/fleet/alerts.yaml"
pytestmark = pytest.mark.servers

BOARD = {"instance": "board:9100"}
#   a series and its values, one a minute; which alert fires, and after how long
CASES: list[tuple[str, str, str, str]] = [
    ('pstored_crashes_total{instance="board:9100", reason="panic"}', "0x30 1x30", "1h", "KernelCrash"),
    ('pstored_crashes_total{instance="board:9100", reason="panic"}', "0x30 1x10 2x10 3x20", "1h", "KernelCrashLoop"),
    ('pstored_boots_total{instance="board:9100", end="watchdog"}', "0x30 1x30", "1h", "BootEndedWithoutAWord"),
    ('pstored_sink_pending{instance="board:9100", sink="otlp"}', "2x420", "6h30m", "CrashesNotDelivered"),
    (
        'node_textfile_mtime_seconds{instance="board:9100", file="/var/lib/prometheus/node-exporter/pstored.prom"}',
        "0x2940",
        "49h",
        "CrashTelemetryStale",
    ),
]
QUIET = [
    ('pstored_crashes_total{instance="board:9100", reason="panic"}', "7x400"),
    ('pstored_boots_total{instance="board:9100", end="clean"}', "0x30 1x100 2x270"),
    ('pstored_sink_pending{instance="board:9100", sink="otlp"}', "2x100 0x300"),
    ('pstored_archive_bytes{instance="board:9100"}', "10x400"),
    ('pstored_archive_limit_bytes{instance="board:9100"}', "100x400"),
]


def promtool(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it; Debian has it in the package prometheus."""
    program = shutil.which("promtool")
    require(program, "promtool (apt-get install prometheus)")
    assert program is not None
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, cwd=directory)


def test_the_rules_are_rules(tmp_path: Path) -> None:
    """Prometheus takes them."""
    done = promtool(tmp_path, "check", "rules", str(RULES))

    assert (done.returncode, done.stderr) == (0, "")


def run(directory: Path, series: list[tuple[str, str]], at: str, alert: str) -> list[str]:
    """Whether an alert fires on some series; gives what promtool found instead of nothing."""
    test: dict[str, Any] = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series],
                "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": []}],
            }
        ],
    }
    path = directory / "test.yaml"
    path.write_text(json.dumps(test))  # JSON is YAML
    done = promtool(directory, "test", "rules", str(path))
    assert done.returncode in (0, 1), done.stderr
    return [line for line in (done.stdout + done.stderr).splitlines() if "Labels:{" in line and alert in line]


@pytest.mark.parametrize(("series", "values", "at", "alert"), CASES, ids=[case[3] for case in CASES])
def test_an_alert_fires(tmp_path: Path, series: str, values: str, at: str, alert: str) -> None:
    """When what it is for happens, and names the machine."""
    (found,) = run(tmp_path, [(series, values)], at, alert)

    assert 'instance="board:9100"' in found


@pytest.mark.parametrize("alert", ["KernelCrash", "KernelCrashLoop", "CrashesNotDelivered", "CrashArchiveFull"])
def test_no_alert_fires_while_nothing_happens(tmp_path: Path, alert: str) -> None:
    """Neither for crashes of last year, nor for what waited an hour."""
    assert run(tmp_path, QUIET, "6h30m", alert) == []


def test_an_archive_that_is_full_is_told(tmp_path: Path) -> None:
    """After a day."""
    series = [
        ('pstored_archive_bytes{instance="board:9100"}', "95x1500"),
        ('pstored_archive_limit_bytes{instance="board:9100"}', "100x1500"),
    ]

    assert run(tmp_path, series, "24h30m", "CrashArchiveFull")

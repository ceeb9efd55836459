# SPDX-License-Identifier: Apache-2.0
"""What fleets run, started here on the loopback interface: rotel, an OTLP collector, and what it hands on."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from pstored.delivery.redact import Redactor
from tests.conftest import MakeRoot, Pstored, Root, require
from tests.loopback import Says, Server, free_port, running, serve
from tests.outgoing import copy_crashes, crash_id
from tests.test_otlp import PROTOBUF, attributes
from tests.test_simulated_fleet import tables

pytestmark = pytest.mark.servers

PATIENCE_S = 60


def otlp_exporter(behind: Server) -> tuple[str, ...]:
    """Have it hand all on as OTLP."""
    endpoint = behind.url.replace("localhost", "127.0.0.1")
    return ("--exporter=otlp", f"--otlp-exporter-endpoint={endpoint}", "--otlp-exporter-protocol=http")


def clickhouse_exporter(url: str, database: str) -> tuple[str, ...]:
    """Have it write all into ClickHouse's tables."""
    return (
        "--exporter=clickhouse",
        f"--clickhouse-exporter-endpoint={url}",
        f"--clickhouse-exporter-database={database}",
        "--clickhouse-exporter-compression=none",
    )


@contextlib.contextmanager
def rotel(directory: Path, exporter: tuple[str, ...], port: int) -> Iterator[None]:
    """Run rotel, which hands all on to where its *exporter* leads; ready on return, ended after."""
    spec = importlib.util.find_spec("rotel")
    require(spec is not None and spec.origin, "rotel (make test, on Python 3.11 and x86-64)")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).with_name("rotel-agent")
    program.chmod(0o755)  # its wheel does not say that it is a program
    works = subprocess.run([program, "version"], capture_output=True, check=False)
    require(works.returncode == 0, f"rotel does not run here (apt-get install libpython3.11): {works.stderr!r}")
    arguments = [
        f"--otlp-http-endpoint=127.0.0.1:{port}",
        f"--otlp-grpc-endpoint=127.0.0.1:{free_port()}",
        "--batch-timeout=100ms",
        *exporter,
    ]
    with running([program, "start", *arguments], port, directory / "rotel.log", directory=directory):
        yield


def records(server: Server) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The log records that came through: of each its resource's attributes, and itself."""
    found = []
    for posted in server.posted:
        if posted.path != "/v1/logs":
            continue
        message = ExportLogsServiceRequest()
        message.ParseFromString(posted.body)
        for one in MessageToDict(message)["resourceLogs"]:
            resource = attributes(one["resource"]["attributes"])
            found += [(resource, r) for scope in one["scopeLogs"] for r in scope["logRecords"]]
    return found


def wait_for(server: Server, number: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Until so many have come."""
    deadline = time.monotonic() + PATIENCE_S
    while len(found := records(server)) < number:
        assert time.monotonic() < deadline, len(found)
        time.sleep(0.05)
    return found


@pytest.fixture
def three(root: MakeRoot) -> Root:
    """Three crashes, none like another."""
    made = root("panic", backend="efi_pstore")
    copy_crashes(made, 3)
    made.write("etc/os-release", 'ID=acme\nVERSION_ID="1.2"\nBUILD_ID=b77\n')
    return made


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("encoding", ["json", "protobuf"])
def test_a_real_collector_takes_each_crash_and_hands_all_of_it_on(
    three: Root, pstored: Pstored, tmp_path: Path, encoding: str, compression: str
) -> None:
    """Every attribute is there behind it, of the resource and of the record; and the metrics."""
    with serve() as behind:
        behind.answer = lambda *_: Says(200, b"", PROTOBUF)
        port = free_port()
        with rotel(tmp_path, otlp_exporter(behind), port):
            three.configure(
                f'[otlp]\nendpoint = "http://127.0.0.1:{port}"\nencoding = "{encoding}"\n'
                f'compression = "{compression}"\nattributes = ["deployment.environment.name=lab"]\n'
            )
            done = pstored("deliver", root=three)
            assert (done.status, done.stderr) == (0, "")
            found = wait_for(behind, 3)
            metrics = wait_for_metrics(behind)
    assert [attributes(r["attributes"])["pstore.crash.id"] for _, r in found] == [crash_id(n) for n in range(3)]
    report = three.load(f"crashes/{crash_id(0)}/crash.json")
    resource, record = found[0]
    machine_id = (three.path / "etc/machine-id").read_text().strip()
    assert (
        resource.items()
        >= {
            "service.name": "pstored",
            "host.id": machine_id,
            "os.type": "linux",
            "os.name": "acme",
            "os.version": "1.2",
            "os.build_id": "b77",
            "deployment.environment.name": "lab",
        }.items()
    )
    values = attributes(record["attributes"])
    assert values["log.record.uid"].startswith(f"{crash_id(0)}.1@")
    assert values["exception.message"] == values["pstore.crash.title"] == report["title"]
    assert values["exception.type"] == report["kind"]
    assert values["pstore.crash.signature"] == report["event"]["signature"]
    log = (three.crashes()[0] / "dmesg.txt").read_text()
    assert values["pstore.crash.log"] == Redactor(of=log).text(log)
    assert (values["pstore.truncated"], values["pstore.crash.count"]) == (False, 1)
    assert values["pstore.type"] == ["dmesg"]
    assert record["severityText"] == "FATAL"
    assert record["body"]["stringValue"].startswith("Kernel panic - not syncing")
    assert int(record["timeUnixNano"]) > 0
    assert metrics["pstored.crashes"]["sum"]["isMonotonic"]
    assert metrics["pstored.archive.limit"]["gauge"]["dataPoints"][0]["asDouble"] == 512 << 20


def wait_for_metrics(server: Server) -> dict[str, Any]:
    """The metrics that came through, by name."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        for posted in server.posted:
            if posted.path == "/v1/metrics":
                message = ExportMetricsServiceRequest()
                message.ParseFromString(posted.body)
                (one,) = MessageToDict(message)["resourceMetrics"]
                return {m["name"]: m for m in one["scopeMetrics"][0]["metrics"]}
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_collector_that_is_killed_and_comes_back_gets_the_rest(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """Nothing is lost: what it had not taken is given to the next one."""
    with serve() as behind:
        behind.answer = lambda *_: Says(200, b"", PROTOBUF)
        port = free_port()
        three.configure(
            f'[delivery]\nretry_s = 0\nper_minute = 1\n[otlp]\nendpoint = "http://127.0.0.1:{port}"\nmetrics = false\n'
        )
        with rotel(tmp_path, otlp_exporter(behind), port):
            assert pstored("deliver", root=three).status == 75  # one a minute
            wait_for(behind, 1)
        pstored("outbox", "--retry", root=three)
        done = pstored("deliver", root=three)
        assert done.status == 75
        assert "Connection refused" in done.stderr
        with rotel(tmp_path, otlp_exporter(behind), port):
            for _ in range(2):
                pstored("outbox", "--retry", root=three)
                pstored("deliver", root=three)
            found = wait_for(behind, 3)
    assert [attributes(r["attributes"])["pstore.crash.id"] for _, r in found] == [crash_id(n) for n in range(3)]
    assert os.listdir(three.archive / "outgoing/otlp")


@pytest.mark.parametrize("encoding", ["json", "protobuf"])
def test_a_crash_is_in_clickhouse_with_every_attribute(
    three: Root, pstored: Pstored, tmp_path: Path, encoding: str
) -> None:
    """By way of a real collector into the real engine, and queried back: all that is sent, and the roll-ups of it."""
    twin = Root(path=tmp_path / "twin")
    shutil.copytree(three.path, twin.path)
    with serve() as plain:
        deliver(twin, pstored, plain.url, "json")
        sent = [
            (attributes(one["resource"]["attributes"]), attributes(record["attributes"]), record["body"]["stringValue"])
            for posted in plain.posted
            if posted.path == "/v1/logs"
            for one in json.loads(posted.body)["resourceLogs"]
            for record in one["scopeLogs"][0]["logRecords"]
        ]
    port = free_port()
    with tables() as engine, engine.listen() as url, rotel(tmp_path, clickhouse_exporter(url, engine.name), port):
        deliver(three, pstored, f"http://127.0.0.1:{port}", encoding)
        rows = ask(engine, "SELECT * FROM otel_logs ORDER BY LogAttributes['pstore.crash.id']", 3)
        (alive,) = ask(
            engine, "SELECT build, uniqCombined64Merge(device_set) AS n FROM pstored_alive GROUP BY build", 1
        )
        rolled_up = engine.run(
            "SELECT signature, uniqCombined64ArrayMerge(crash_set) AS n FROM pstored_daily GROUP BY signature"
        )
        devices = engine.run("SELECT DISTINCT device FROM pstored_crashes")

    assert len(sent) == 3
    for (resource, record, body), row in zip(sent, rows, strict=True):
        assert row["ResourceAttributes"] == {name: text(value) for name, value in resource.items()}
        assert {k: v for k, v in row["LogAttributes"].items() if k != "pstore.type"} == {
            name: text(value) for name, value in record.items() if name != "pstore.type"
        }
        assert all(f'"{word}"' in row["LogAttributes"]["pstore.type"] for word in record["pstore.type"])
        assert (row["Body"], row["ScopeName"], row["ServiceName"]) == (body, "pstored.crash", "pstored")
    assert alive == {"build": "b77", "n": 1}
    assert rolled_up == [{"signature": sent[0][1]["pstore.crash.signature"], "n": 3}]
    assert devices == [{"device": sent[0][0]["host.id"]}]


def deliver(root: Root, pstored: Pstored, endpoint: str, encoding: str) -> None:
    """All crashes, and the metrics, to a receiver."""
    root.configure(f'[otlp]\nendpoint = "{endpoint}"\nencoding = "{encoding}"\n')
    done = pstored("deliver", root=root)
    assert (done.status, done.stderr) == (0, "")


def ask(engine: Any, query: str, number: int) -> list[dict[str, Any]]:
    """The rows of a query, once there are so many."""
    deadline = time.monotonic() + PATIENCE_S
    while len(rows := engine.run(query)) < number:
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)
    found: list[dict[str, Any]] = rows
    return found


def text(value: object) -> str:
    """An attribute as a map of ClickHouse has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)

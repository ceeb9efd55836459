# SPDX-License-Identifier: Apache-2.0
"""OTLP: what is in a record, how it is encoded, what each answer means, and what the environment says."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from pstored.delivery import otlp
from pstored.delivery.metrics import Counted, NewCrash, Standing, count, families
from pstored.delivery.payload import Parcel, Reporter, System, Wanted, make_parcel
from pstored.errors import SinkError
from pstored.sinks.base import Setting
from pstored.sinks.http import MAX_ANSWER, Answer
from pstored.sinks.otlp import OtlpSink, find_url, parse_pairs, read_success, timeout_s, to_protobuf, wants_protobuf
from pstored.sinks.settings import Compression, Encoding, Otlp, Text, Timestamp
from tests.conftest import MakeRoot, Pstored, Root
from tests.loopback import Posted, Says, Server, server  # noqa: F401 - a fixture

REPORTER = Reporter(
    "1.0", "m" * 32, None, "board", "aarch64", "6.12", "acme", "1.2", "Acme 1.2", "b77", "Acme", "Board 3"
)
JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    """A real crash: an oops, then a panic, collected from a capture."""
    from fake_pstore import capture
    from tests.conftest import run_pstored

    path = tmp_path_factory.mktemp("crash")
    capture.populate_root(path, capture.load("x86_64-6.1deb-efi"))
    made = Root(path=path)
    made.configure(f'[boots]\nstamp_prefix = "{capture.STAMP_PREFIX}"\n')
    run_pstored("collect", root=made)
    (directory,) = made.crashes()
    return json.loads((directory / "crash.json").read_bytes()), (directory / "dmesg.txt").read_bytes()


def parcel(crash: tuple[dict[str, Any], bytes], *, text: Text = Text.FULL, changes: Any = (), **more: Any) -> Parcel:
    """The parcel of a crash, with some of its report changed."""
    settings: dict[str, Any] = {"reporter": REPORTER, "system": System("1.1", "b76")}
    when = {"first": "2026-11-23T06:37:07Z", "last": "2026-11-23T06:37:07Z"}
    wanted = Wanted(text, 65536, True, ())
    return make_parcel("ID.1", crash[0] | dict(changes), crash[1], wanted=wanted, **(settings | when | more))


def attributes(found: list[dict[str, Any]]) -> dict[str, Any]:
    """KeyValues as a dictionary; 64-bit integers are strings in JSON."""
    values = {}
    for pair in found:
        ((kind, value),) = pair["value"].items()
        if kind == "arrayValue":
            value = [item["stringValue"] for item in value["values"]]
        values[pair["key"]] = int(value) if kind == "intValue" else value
    return values


# -- what is in it


def test_what_reports_is_the_resource_and_what_crashed_is_on_the_record(crash: tuple[dict[str, Any], bytes]) -> None:
    """After an update they differ: the build of the one is never that of the other."""
    resource = otlp.resource_attributes(REPORTER, {"deployment.environment.name": "lab"})
    assert resource == {
        "service.name": "pstored",
        "service.version": "1.0",
        "service.instance.id": "m" * 32,
        "host.id": "m" * 32,
        "host.name": "board",
        "host.arch": "arm64",
        "os.type": "linux",
        "os.name": "acme",
        "os.description": "Acme 1.2",
        "os.version": "1.2",
        "os.build_id": "b77",
        "device.manufacturer": "Acme",
        "device.model.identifier": "Board 3",
        "deployment.environment.name": "lab",
    }
    report = crash[0]
    made = parcel(crash)
    found = otlp.record_attributes(made)
    assert (found["os.version"], found["os.build_id"]) == ("1.1", "b76")
    assert found["log.record.uid"] == made.uid
    assert found["exception.type"] == found["pstore.crash.kind"] == report["kind"]
    assert found["exception.message"] == found["pstore.crash.title"] == made.crash["title"]
    assert str(found["exception.stacktrace"]).splitlines()[0].partition("+0x")[0] in crash[1].decode()
    assert found["pstore.crash.signature"] == report["event"]["signature"]
    assert found["pstore.crash.signature_loose"] == report["event"]["signature_loose"]
    assert found["pstore.boot.id"] == report["boot"]["id"]
    assert found["linux.kernel.release"] == report["kernel"]["release"]
    assert found["pstore.type"] == ["dmesg"]
    assert (found["pstore.crash.count"], found["pstore.truncated"], found["pstore.crash.complete"]) == (1, False, True)
    assert "Kernel panic" in str(found["pstore.crash.log"])
    unknown = otlp.record_attributes(parcel(crash, system=System()))
    assert not {"os.version", "os.build_id"} & unknown.keys()


def test_record_has_event_severity_body_and_times(crash: tuple[dict[str, Any], bytes]) -> None:
    """The kernel's own last words, at the time of the crash; observed when it was collected."""
    record = otlp.log_record(parcel(crash))
    assert record["eventName"] == "linux.kernel.crash"
    assert (record["severityNumber"], record["severityText"]) == (21, "FATAL")
    assert record["body"]["stringValue"].startswith("Kernel panic - not syncing: ")
    assert "\n" not in record["body"]["stringValue"]
    assert record["timeUnixNano"] == str(otlp.unix_ns(crash[0]["time"]["wall"]))
    assert record["observedTimeUnixNano"] == "1795415827000000000"
    assert otlp.log_record(parcel(crash), harvest_ns=5)["timeUnixNano"] == "5"


@pytest.mark.parametrize("severity", ["oops", "warning", "reset", "unheard"])
def test_what_the_machine_survived_is_an_error(crash: tuple[dict[str, Any], bytes], severity: str) -> None:
    """And its title is the body."""
    record = otlp.log_record(parcel(crash, changes={"severity": severity}))
    assert (record["severityNumber"], record["severityText"]) == (17, "ERROR")
    assert record["body"]["stringValue"] == parcel(crash).crash["title"]


@pytest.mark.parametrize(
    "time",
    [
        {"wall": None, "doubtful": True},
        {"wall": "1970-01-01T00:00:09Z", "doubtful": True},
        {"wall": "@99999999999999", "doubtful": False},
    ],
)
def test_a_time_that_is_doubtful_is_that_of_the_collection(
    crash: tuple[dict[str, Any], bytes], time: dict[str, Any]
) -> None:
    """What the board's clock said is an attribute all the same."""
    record = otlp.log_record(parcel(crash, changes={"time": time}))
    assert record["timeUnixNano"] == record["observedTimeUnixNano"]
    found = attributes(record["attributes"])
    assert (found.get("pstore.crash.time"), found["pstore.crash.time_doubtful"]) == (time["wall"], time["doubtful"])


def test_of_many_the_newest_stands_for_all(crash: tuple[dict[str, Any], bytes]) -> None:
    """Their number, and when they were collected."""
    found = otlp.record_attributes(parcel(crash, stands_for=7, first="2026-11-22T00:00:00Z"))
    assert (found["pstore.crash.count"], found["pstore.crash.first"]) == (7, "2026-11-22T00:00:00Z")


def test_without_text_and_event_what_is_left_goes_out(crash: tuple[dict[str, Any], bytes]) -> None:
    """A crash that only the console tells of, or of an older archive."""
    made = parcel(crash, text=Text.NONE, changes={"event": None, "records": [], "function": None})
    found = otlp.record_attributes(made)
    assert not {"pstore.crash.log", "exception.stacktrace", "pstore.crash.signature"} & found.keys()
    assert otlp.body(made) == made.crash["title"]


def test_ecc_is_added_up(crash: tuple[dict[str, Any], bytes]) -> None:
    """Over all records that have it."""
    ecc = {"corrected_bytes": 3, "unrecoverable_blocks": 1}
    record = crash[0]["records"][0]
    found = otlp.record_attributes(
        parcel(crash, changes={"records": [record | {"ecc": ecc}, record | {"ecc": ecc}, record]})
    )
    assert (found["pstore.ecc.corrected_bytes"], found["pstore.ecc.unrecoverable_blocks"]) == (6, 2)


def test_both_encodings_say_the_same(crash: tuple[dict[str, Any], bytes]) -> None:
    """Read back by the protocol's own code, from the binary form and from JSON."""
    record = otlp.log_record(parcel(crash))
    request = otlp.logs_request(otlp.resource_attributes(REPORTER, {}), [record], version="1.0")
    message = ExportLogsServiceRequest()
    message.ParseFromString(to_protobuf("logs", request))
    assert MessageToDict(message) == json.loads(json.dumps(request)) | MessageToDict(message)
    (resource_logs,) = message.resource_logs
    (scope_logs,) = resource_logs.scope_logs
    (found,) = scope_logs.log_records
    assert (scope_logs.scope.name, found.event_name) == ("pstored.crash", "linux.kernel.crash")
    assert found.severity_number == 21
    again = MessageToDict(found)
    assert attributes(again["attributes"]) == attributes(record["attributes"])
    assert again["timeUnixNano"] == record["timeUnixNano"]


def test_metrics_are_gauges_and_counters_that_only_grow() -> None:
    """All families, by the protocol's own code; a crash that is known is counted once."""
    start = Counted(5, {}, 0, frozenset())
    counted = count(start, ["a", "b"], [NewCrash("a", "panic", 3), NewCrash("b", "oops", 0), NewCrash("a", "panic", 3)])
    again = count(counted, ["b"], [NewCrash("b", "oops", 0)])
    assert (dict(again.crashes), again.ecc_corrected_bytes, set(again.known)) == ({"panic": 1, "oops": 1}, 3, {"b"})
    standing = Standing("1", "ramoops", 7.5, 4, 100, 200, {"otlp": 2}, {"otlp": 1})
    request = otlp.metrics_request({"a": "b"}, families(counted, standing), version="1", now_ns=9)
    message = ExportMetricsServiceRequest()
    message.ParseFromString(to_protobuf("metrics", request))
    found = {metric.name: metric for metric in message.resource_metrics[0].scope_metrics[0].metrics}
    crashes = found["pstored.crashes"].sum
    assert (crashes.is_monotonic, crashes.aggregation_temporality) == (True, 2)
    assert {p.attributes[0].value.string_value: p.as_double for p in crashes.data_points} == {
        "panic": 1,
        "oops": 1,
        "warning": 0,
        "reset": 0,
        "unknown": 0,
    }
    assert {(p.start_time_unix_nano, p.time_unix_nano) for p in crashes.data_points} == {(5, 9)}
    assert found["pstored.last_crash.timestamp"].gauge.data_points[0].as_double == 7.5
    assert found["pstored.sink.pending"].gauge.data_points[0].as_double == 2
    assert len(found) == 10
    assert all(metric.unit and metric.description for metric in found.values())


# -- the wire


def sink(table: Otlp, **environ: str) -> OtlpSink:
    """A sink as it is made for a round."""
    return OtlpSink(table, Setting(REPORTER, 10, environ))


@pytest.mark.parametrize("encoding", [Encoding.JSON, Encoding.PROTOBUF, Encoding.AUTO])
@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.NONE, None])
def test_a_record_is_posted(
    server: Server,  # noqa: F811
    crash: tuple[dict[str, Any], bytes],
    encoding: Encoding,
    compression: Compression | None,
) -> None:
    """To v1/logs below the endpoint, in either encoding, packed or not."""
    is_json = encoding is Encoding.JSON
    server.answer = lambda *_: Says(200, b"{}" if is_json else b"", JSON if is_json else PROTOBUF)
    table = Otlp(endpoint=f"{server.url}/base/", encoding=encoding, compression=compression)
    assert sink(table).deliver(parcel(crash)) == {"status": 200}
    (posted,) = server.posted
    assert posted.path == "/base/v1/logs"
    assert posted.headers["content-type"] == ("application/json" if is_json else "application/x-protobuf")
    assert posted.headers.get("content-encoding") == (None if compression is Compression.NONE else "gzip")
    record = read_records(posted)[0]
    assert attributes(record["attributes"])["log.record.uid"] == parcel(crash).uid


def read_records(posted: Posted) -> list[dict[str, Any]]:
    """The log records of a request."""
    if posted.headers["content-type"] == "application/json":
        request = json.loads(posted.body)
    else:
        message = ExportLogsServiceRequest()
        message.ParseFromString(posted.body)
        request = MessageToDict(message)
    return [r for a in request["resourceLogs"] for b in a["scopeLogs"] for r in b["logRecords"]]


def test_harvest_time_is_now(server: Server, crash: tuple[dict[str, Any], bytes]) -> None:  # noqa: F811
    """For storage that refuses what is late; the crash's time is an attribute."""
    import time

    before = time.time_ns()
    sink(Otlp(endpoint=server.url, encoding=Encoding.JSON, timestamp=Timestamp.HARVEST)).deliver(parcel(crash))
    record = read_records(server.posted[0])[0]
    assert before <= int(record["timeUnixNano"]) <= time.time_ns()
    assert attributes(record["attributes"])["pstore.crash.time"] == crash[0]["time"]["wall"]


@pytest.mark.parametrize(
    ("says", "retry", "after_s", "why"),
    [
        (Says(429, b"slow down", {"Retry-After": "7"}), True, 7, "429 Too Many Requests: slow down"),
        (Says(503, b"", {"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}), True, 0, "503 Service Unavailable"),
        (Says(502), True, None, "502"),
        (Says(504), True, None, "504"),
        (Says(400, b"bad"), False, None, "400 Bad Request: bad"),
        (Says(500, b"oh"), False, None, "500 Internal Server Error: oh"),
        (Says(408), False, None, "408"),
        (Says(301, b"", {"Location": "http://localhost:1/"}), False, None, "301"),
        (
            Says(200, b'{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "too old"}}'),
            False,
            None,
            "too old",
        ),
        (Says(200, b'{"partialSuccess": {"rejectedLogRecords": 1}}'), False, None, "rejects it"),
        (Says(200, b"<html>log in</html>", {"Content-Type": "text/html"}), True, None, "login page"),
        (Says(200, b"[]"), True, None, "not as OTLP does"),
        (Says(200, b"{" * 100), True, None, "not as OTLP does"),
        (Says(200, b"\xff\xff\xff", PROTOBUF), True, None, "not as OTLP does"),
        (Says(200, b'{"a": "' + b"x" * MAX_ANSWER + b'"}'), True, None, "not as OTLP does"),
        (Says(200, b"x" * 100, cut=True), True, None, "breaks off"),
        (None, True, None, "cannot be reached"),
    ],
)
def test_answers_mean_what_the_protocol_says(
    server: Server,  # noqa: F811
    crash: tuple[dict[str, Any], bytes],
    says: Says | None,
    retry: bool,
    after_s: float | None,
    why: str,
) -> None:
    """Four statuses and a broken connection are tried again, not before Retry-After; nothing else is."""
    server.answer = lambda *_: says
    with pytest.raises(SinkError) as caught:
        sink(Otlp(endpoint=server.url, encoding=Encoding.JSON)).deliver(parcel(crash))
    assert (caught.value.retry, caught.value.after_s) == (retry, after_s)
    assert why in f"{caught.value} {caught.value.hint}"
    assert len(server.posted) == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{}", JSON),
        (b"", PROTOBUF),
        (b'{"partialSuccess": {}}', {"content-TYPE": "application/json; charset=utf-8"}),
    ],
)
def test_success_has_many_forms(body: bytes, headers: dict[str, str]) -> None:
    """As real servers give it."""
    assert read_success("logs", Answer(200, headers, body), "http://x") == {"status": 200}


def test_partial_success_in_protobuf() -> None:
    """Rejected is refused; a warning alone is none, and is kept."""
    response = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=1, error_message="full")
    )
    with pytest.raises(SinkError, match="rejects it: full") as caught:
        read_success("logs", Answer(200, PROTOBUF, response.SerializeToString()), "http://x")
    assert not caught.value.retry
    response.partial_success.rejected_log_records = 0
    found = read_success("logs", Answer(200, PROTOBUF, response.SerializeToString()), "http://x")
    assert found == {"status": 200, "warning": "full"}


# -- the environment


@pytest.mark.parametrize(
    ("endpoint", "environ", "url"),
    [
        ("", {}, "http://localhost:4318/v1/logs"),
        ("https://c:1/x/", {}, "https://c:1/x/v1/logs"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e"}, "http://e/v1/logs"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://l/own"}, "http://l/own"),
        ("http://c", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://l"}, "http://c/v1/logs"),
        ("", {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m"}, "http://localhost:4318/v1/logs"),
    ],
)  # fmt: skip
def test_where_to(endpoint: str, environ: dict[str, str], url: str) -> None:
    """The configuration, then the signal's own variable, as it is, then the general one."""
    assert find_url("logs", endpoint, environ) == url


def test_variables_of_the_protocols_exporters_count(
    server: Server,  # noqa: F811
    crash: tuple[dict[str, Any], bytes],
    tmp_path: Path,
) -> None:
    """Headers, resource, name, compression, protocol; what the configuration says counts more."""
    (tmp_path / "headers").write_text("X-Team: ours\n")
    (tmp_path / "token").write_text("t0ken\n")
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    table = Otlp(
        endpoint=server.url,
        attributes=("deployment.environment.name=prod",),
        headers_file=str(tmp_path / "headers"),
        token_file="token",
    )
    sink(
        table,
        OTEL_EXPORTER_OTLP_HEADERS="X-Team=theirs,X-Other=a%20b",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=lab,device.id=d%2C1,host.name=other",
        OTEL_SERVICE_NAME="crashes",
        OTEL_EXPORTER_OTLP_COMPRESSION="none",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/json",
        CREDENTIALS_DIRECTORY=str(tmp_path),
    ).deliver(parcel(crash))
    (posted,) = server.posted
    assert (posted.headers["x-team"], posted.headers["x-other"]) == ("ours", "a b")
    assert posted.headers["authorization"] == "Bearer t0ken"
    assert "content-encoding" not in posted.headers
    resource = attributes(json.loads(posted.body)["resourceLogs"][0]["resource"]["attributes"])
    assert (resource["deployment.environment.name"], resource["device.id"]) == ("prod", "d,1")
    assert (resource["host.name"], resource["service.name"]) == ("other", "crashes")


def test_pairs_and_time_limits() -> None:
    """What is none is left out."""
    assert parse_pairs("a=1,,b,=2, c = d=e ,f=%7b") == {"a": "1", "c": "d=e", "f": "{"}
    assert timeout_s({"OTEL_EXPORTER_OTLP_TIMEOUT": "2500"}, 30) == 2.5
    for text in ("", "0", "x", "-1", "9" * 20):
        assert timeout_s({"OTEL_EXPORTER_OTLP_TIMEOUT": text}, 30) == 30


def test_attributes_that_are_none_are_said() -> None:
    """Before anything is sent."""
    with pytest.raises(SinkError, match="must be as 'key=value', not 'x'"):
        sink(Otlp(attributes=("x",)))


def test_auto_is_protobuf_where_it_is_installed() -> None:
    """As here."""
    assert wants_protobuf(Encoding.AUTO, {})
    assert not wants_protobuf(Encoding.JSON, {})
    assert not wants_protobuf(Encoding.AUTO, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert wants_protobuf(Encoding.PROTOBUF, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


def test_the_whole_way(root: MakeRoot, pstored: Pstored, server: Server) -> None:  # noqa: F811
    """collect to a server: a record, then metrics; again: nothing, until something changes."""
    made = root("panic", backend="efi_pstore")
    made.write("etc/os-release", "ID=acme\nVERSION_ID=3\nBUILD_ID=b3\n")
    made.configure(f'[otlp]\nendpoint = "{server.url}"\nencoding = "json"\n')
    done = pstored("collect", root=made)
    assert (done.status, done.stderr) == (0, "")
    assert [posted.path for posted in server.posted] == ["/v1/logs", "/v1/metrics"]
    (record,) = read_records(server.posted[0])
    found = attributes(record["attributes"])
    assert found["pstore.crash.id"] == made.crashes()[0].name
    # the boot that crashed is not in the ledger: whatever the reporter runs now, its build is not known
    assert "os.build_id" not in found
    metrics = json.loads(server.posted[1].body)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    crashes = next(m for m in metrics if m["name"] == "pstored.crashes")["sum"]["dataPoints"]
    assert [attributes(p["attributes"]) for p in crashes if p["asDouble"]] == [{"reason": "panic"}]
    pstored("deliver", root=made)
    assert len(server.posted) == 2


def test_the_build_that_crashed_is_that_of_its_boot(root: MakeRoot, pstored: Pstored, server: Server) -> None:  # noqa: F811
    """It was seen while it ran; by now an update has replaced it."""
    made = root("panic", backend="efi_pstore")
    made.configure(f'[otlp]\nendpoint = "{server.url}"\nencoding = "json"\nmetrics = false\n')
    reporter = (made.path / "proc/sys/kernel/random/boot_id").read_text()
    records = {name: (made.store / name).read_bytes() for name in made.names()}
    for name in records:
        (made.store / name).unlink()
    made.write("proc/sys/kernel/random/boot_id", made.boots[0].boot_id + "\n")
    made.write("etc/os-release", "VERSION_ID=1\nBUILD_ID=old\n")
    pstored("collect", root=made)
    for name, data in records.items():
        made.add(name, data)
    made.write("proc/sys/kernel/random/boot_id", reporter)
    made.write("etc/os-release", "VERSION_ID=2\nIMAGE_VERSION=new\n")
    pstored("collect", root=made)
    (posted,) = server.posted
    (record,) = read_records(posted)
    assert attributes(record["attributes"])["os.build_id"] == "old"
    resource = attributes(json.loads(posted.body)["resourceLogs"][0]["resource"]["attributes"])
    assert (resource["os.build_id"], resource["os.version"]) == ("new", "2")


def test_metrics_that_are_refused_hold_up_no_crash(root: MakeRoot, pstored: Pstored, server: Server) -> None:  # noqa: F811
    """A collector without them: said, and nothing waits for it."""
    made = root("panic", backend="efi_pstore")
    made.configure(f'[otlp]\nendpoint = "{server.url}"\nencoding = "json"\n')
    server.answer = lambda posted, _: Says(404) if posted.path == "/v1/metrics" else Says()
    done = pstored("collect", root=made)
    assert done.status == 0
    assert "otlp: its metrics are not delivered" in done.stderr
    assert pstored("outbox", root=made).stdout == "nothing waits to be delivered\n"

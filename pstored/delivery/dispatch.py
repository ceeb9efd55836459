# SPDX-License-Identifier: Apache-2.0
"""The round to all outgoing sinks: each in a process of its own, so that one that hangs costs only itself.

The caller holds no lock: who writes in the archive need not wait, and the archive is only read here.
"""

import hashlib
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from pstored.archive import Archive
from pstored.boots.ledger import read_ledger
from pstored.config import Config
from pstored.delivery.courier import Round, Survey, Waiting, survey, words
from pstored.delivery.outgoing import Outgoing
from pstored.delivery.payload import Parcel, Reporter, System, Wanted, make_parcel
from pstored.delivery.privileges import USER, become_owner
from pstored.delivery.reporter import read_reporter
from pstored.documents import utc
from pstored.errors import ArchiveError, PstoredError, SinkError
from pstored.host import Host
from pstored.ids import stamp_seconds
from pstored.sinks import settings
from pstored.sinks.base import OutgoingSink, Setting

METER_S = 10.0
"""A sink for metrics has so long, however long the others took."""
KILL_AFTER_S = 5.0
"""A sink whose time is up is asked to end, and killed so much later."""


UNTOLD = "its metrics are not delivered"
MEASURED = "metrics.json"
"""Of what metrics the sink has."""


class Arrival(NamedTuple):
    """Something that a sink has taken."""

    sink: str
    crash: str
    revision: int
    stands_for: int
    receipt: dict[str, Any]


class Dispatch(NamedTuple):
    """What one round did, and how things stand after it."""

    arrived: tuple[Arrival, ...]
    surveys: tuple[Survey, ...]
    troubles: tuple[str, ...]
    """What kept a sink from being tried."""
    notes: tuple[str, ...] = ()
    """What else went wrong, and is nobody's loss."""

    def next(self) -> float | None:
        """When the next round is due, Unix seconds; None if there is nothing to do."""
        return min((s.due for s in self.surveys if s.due is not None), default=None)

    def exit_status(self) -> int:
        """0, or 75 if something is still to be delivered."""
        waits = any(s.open() or s.held for s in self.surveys)
        return SinkError.exit_status if waits or self.troubles else 0


Maker = Callable[[Any, Setting], OutgoingSink]
"""Makes a sink of its table and what is around it; raises SinkError if that cannot be."""


def _otlp(table: Any, setting: Setting) -> OutgoingSink:
    from pstored.sinks.otlp import OtlpSink

    return OtlpSink(table, setting)


def _webhook(table: Any, setting: Setting) -> OutgoingSink:
    from pstored.sinks.webhook import WebhookSink

    return WebhookSink(table, setting)


def _mqtt(table: Any, setting: Setting) -> OutgoingSink:
    try:
        from pstored.sinks.mqtt import MqttSink
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "paho":
            raise
        raise SinkError(
            "paho-mqtt is not installed, which [mqtt] needs", hint="pip install 'pstored[mqtt]'; nothing is lost"
        ) from e
    return MqttSink(table, setting)


def _sentry(table: Any, setting: Setting) -> OutgoingSink:
    from pstored.sinks.sentry import SentrySink

    return SentrySink(table, setting)


def _file(table: Any, _setting: Setting) -> OutgoingSink:
    from pstored.sinks.file import FileSink

    return FileSink(table)


def _exec(table: Any, setting: Setting) -> OutgoingSink:
    from pstored.sinks.exec import ExecSink

    return ExecSink(table, setting.timeout_s)


MAKERS: dict[str, Maker] = {
    "otlp": _otlp,
    "webhook": _webhook,
    "mqtt": _mqtt,
    "sentry": _sentry,
    "file": _file,
    "exec": _exec,
}
"""Name to maker; a sink's module is imported only when it has something to deliver, in its own process."""


def dispatch(host: Host, archive: Archive, config: Config) -> Dispatch:
    """Deliver what is due to all outgoing sinks."""
    arrived: list[Arrival] = []
    troubles: list[str] = []
    limit_s = settings.delivery(config.outgoing).sink_timeout_s
    deadline = time.monotonic() + limit_s
    processes = _run(host, archive, config, settings.enabled(config.outgoing), deadline, troubles)
    # then those that tell what is still to be delivered
    deadline = max(deadline, time.monotonic() + METER_S)
    processes += _run(host, archive, config, settings.meters(config.outgoing), deadline, troubles)
    for process in processes:
        arrived += process.arrived
        troubles += process.troubles
        if process.hung:
            error = SinkError(f"it took longer than {limit_s} s, and was ended")
            troubles += _give_up(archive, config, process.name, error)
    notes = tuple(note for process in processes for note in process.notes)
    return Dispatch(tuple(arrived), *look(archive, config, troubles), notes)


def _run(
    host: Host, archive: Archive, config: Config, names: list[str], deadline: float, troubles: list[str]
) -> list["_Process"]:
    """Have some sinks' processes run, until *deadline* at the most; *troubles* gets what keeps one from starting."""
    processes = []
    for name in names:
        try:
            processes.append(_Process(host, archive, config, name))
        except OSError as e:
            troubles.append(f"{name}: cannot start a process: {e.strerror}")
    _wait(processes, deadline)
    return processes


def is_behind(archive: Archive, config: Config) -> bool:
    """Whether there are crashes that a sink for metrics alone has not counted, as far as the archive can be read."""
    names = settings.meters(config.outgoing)
    if not names:
        return False
    from pstored.delivery.tally import is_behind as is_one_behind

    try:
        return any(is_one_behind(archive, name) for name in names)
    except ArchiveError:
        return False


def look(archive: Archive, config: Config, troubles: list[str]) -> tuple[tuple[Survey, ...], tuple[str, ...]]:
    """How things stand with all outgoing sinks, and what is in the way of knowing that, and of *troubles*."""
    found = []
    for name in settings.enabled(config.outgoing):
        try:
            found.append(survey(archive, config, name, time.time()))
        except ArchiveError as e:
            troubles = [*troubles, f"{name}: {words(e)}"]
    return tuple(found), tuple(dict.fromkeys(troubles))


def _give_up(archive: Archive, config: Config, name: str, error: SinkError) -> list[str]:
    """Note, in the place of a process that was killed, that its sink is to be left alone for a while."""
    try:
        with Outgoing(archive, name).lock(wait=False) as mine:
            if mine:
                Round(archive, config, name).note_trouble(error)
    except ArchiveError as e:
        return [f"{name}: {words(e)}"]
    return []


# -- a sink's process


class _Process:
    """A sink's process, as the parent sees it."""

    def __init__(self, host: Host, archive: Archive, config: Config, name: str) -> None:
        """Start it."""
        self.name = name
        self.arrived: list[Arrival] = []
        self.troubles: list[str] = []
        self.notes: list[str] = []
        self.hung = False
        self._rest = b""
        self.fd, write_fd = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.fd)
            _work(host, archive, config, name, write_fd)
        os.close(write_fd)

    def read(self) -> bool:
        """Take what it has said; False once it has ended."""
        data = os.read(self.fd, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "note" in said:
                self.notes.append(f"{self.name}: {said['note']}")
            elif "trouble" in said:
                self.troubles.append(f"{self.name}: {said['trouble']}")
            else:
                self.arrived.append(Arrival(self.name, **said))
        return bool(data)

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.hung = True
        os.kill(self.pid, number)  # it has not been waited for, so it is still ours

    def end(self) -> None:
        """Wait for it; it has closed its pipe."""
        os.close(self.fd)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status and not self.hung:
            self.troubles.append(f"{self.name}: its process ended with {status}")


def _wait(processes: list[_Process], deadline: float) -> None:
    """Until all have ended; those that take too long are made to."""
    signals = [signal.SIGTERM, signal.SIGKILL, None]
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process.fd, selectors.EVENT_READ, process)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            for key, _ in ready:
                process = key.data
                if not process.read():
                    selector.unregister(process.fd)
                    process.end()
            if time.monotonic() < deadline:
                continue
            if (number := signals.pop(0)) is None:
                return  # it hangs in the kernel, and cannot be ended
            for key in list(selector.get_map().values()):
                key.data.kill(number)
            deadline = time.monotonic() + KILL_AFTER_S


def _work(host: Host, archive: Archive, config: Config, name: str, fd: int) -> NoReturn:
    """The process's own life; says on *fd*, a line each, what arrived."""

    def say(fact: dict[str, Any]) -> None:
        os.write(fd, json.dumps(fact).encode() + b"\n")

    status = 1
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        become_owner(archive.outgoing, user=USER if host.root == "/" else None)
        with Outgoing(archive, name).lock(wait=False) as mine:
            if mine:
                (_meter if name in settings.METERS else _deliver)(host, archive, config, name, say)
        status = 0
    except PstoredError as e:
        say({"trouble": words(e)})
        status = 0
    except SystemExit:
        pass
    except BaseException:  # whatever it is, nothing of the parent's may be done here a second time  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _deliver(host: Host, archive: Archive, config: Config, name: str, say: Callable[[dict[str, Any]], None]) -> None:
    table, delivery = config.outgoing[name], settings.delivery(config.outgoing)
    wanted = Wanted(
        delivery.text if table.text is None else table.text,
        delivery.max_text_bytes if table.max_text_bytes is None else table.max_text_bytes,
        delivery.redact,
        delivery.redact_words,
    )
    setting = Setting(read_reporter(host), delivery.timeout_s, os.environ)
    made: list[OutgoingSink] = []

    def make() -> OutgoingSink:
        made[:] = made or [MAKERS[name](table, setting)]
        return made[0]

    work = Round(archive, config, name)
    for one, receipt in work.run(make, lambda one: pack(archive, one, wanted, setting.reporter)):
        item = one.item
        say({"crash": item.crash_id, "revision": item.revision, "stands_for": item.stands_for, "receipt": receipt})
    if name in settings.MEASURING and table.metrics and work.may_send():
        try:
            give_metrics(host, archive, config, name, make, day=utc()[:10])
        except SinkError as e:
            say({"note": f"{UNTOLD}: {e}"})
    for sink in made:
        sink.close()


def _meter(host: Host, archive: Archive, config: Config, name: str, say: Callable[[dict[str, Any]], None]) -> None:
    """Write the metrics, whether they have changed or not: how old they are tells that somebody still looks."""
    from pstored.delivery.tally import measure
    from pstored.sinks.prometheus import Textfile

    textfile = Textfile(host.path(config.outgoing[name].directory))
    families = measure(host, archive, config, name, shown=textfile.counters())
    try:
        textfile.write(families)
    except SinkError as e:
        say({"note": f"{UNTOLD}: {words(e)}"})


def give_metrics(
    host: Host, archive: Archive, config: Config, name: str, make: Callable[[], OutgoingSink], *, day: str
) -> None:
    """Give a sink the metrics, if they have changed since it got them, or this is another boot, or *day* (UTC).

    Raises:
        SinkError: it does not take them.
    """
    from pstored.delivery.tally import measure

    families, outgoing = measure(host, archive, config, name), Outgoing(archive, name)
    digest = hashlib.sha256(repr((host.boot_id(), day, families)).encode()).hexdigest()
    if outgoing.load(MEASURED).get("digest") == digest:
        return
    make().measure(families)
    outgoing.write(MEASURED, {"digest": digest})


def pack(archive: Archive, one: Waiting, wanted: Wanted, reporter: Reporter) -> Parcel:
    """Make the parcel of what is to be sent; of several crashes the newest that is still there is told.

    Raises:
        ArchiveError: it cannot be read.
    """
    there = [crash_id for crash_id in one.members if os.path.isdir(archive.crash_directory(crash_id))]
    crash_id = (there or one.members)[-1]
    first, last = (utc(stamp_seconds(member[:16])) for member in (one.members[0], one.members[-1]))
    crash = archive.load_crash(crash_id)
    return make_parcel(
        one.item.name,
        crash,
        archive.kernel_log(crash_id),
        wanted=wanted,
        reporter=reporter,
        system=_system(archive, crash),
        stands_for=one.item.stands_for,
        first=first,
        last=last,
    )


def _system(archive: Archive, crash: dict[str, Any]) -> System:
    """Which system crashed: never the reporter's by a guess, after an update it is another one."""
    boot_id = crash["boot"].get("id")
    boot = next((boot for boot in read_ledger(archive) if boot.boot_id == boot_id), None)
    return System() if boot is None else System(boot.os_version, boot.os_build)

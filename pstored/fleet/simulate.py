# SPDX-License-Identifier: Apache-2.0
"""A fleet that never was, as its boards would send it: crashes as OTLP log records, and each day a sign of life.

The records are made by the very code that sends real ones (:mod:`pstored.delivery.otlp`). They have what makes real
fleets hard to count: builds that come one after the other, boards that crash again and again, records that are
delivered twice, crashes that grow by a revision, boards without a right clock, sums of crash loops. The same seed
gives the same fleet.
"""

import hashlib
import time
from bisect import bisect_right
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from pstored import __version__
from pstored.delivery import otlp
from pstored.delivery.metrics import Family
from pstored.delivery.payload import Parcel, Reporter, System
from pstored.documents import utc
from pstored.fleet.bugs import Bug, Choice, make_bugs
from pstored.ids import id_stamp

DAY = 86400
BATCH = 500
"""Boards' requests that are put together into one, as a collector would."""
MODELS = ("gauge-1", "gauge-2", "gauge-2-lte", "panel-7", "panel-10", "hub")
TWICE = 0.01
"""Share of the records that are delivered twice: an answer that got lost."""
GROWS = 0.005
"""Share of the crashes that come again as revision 2."""
DOUBTFUL = 0.02
"""Share of the boards whose clock stood at 1970 when they crashed."""
LOOPS = 0.002
"""Share of the records that stand for many crashes of a board that crashes in a loop."""
LOOP = 40
"""So many each."""


class Fleet(NamedTuple):
    """What is to be simulated."""

    devices: int
    crashes: int
    """That are sent one by one; those of loops, and what comes twice, are more."""
    days: int = 30
    builds: int = 6
    seed: int = 1
    end_s: int = 0
    """When it ends, Unix seconds; 0: now."""


class Simulation:
    """The records of one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.end_s = fleet.end_s or int(time.time())
        self._random = Random(fleet.seed)
        self._choice = Choice(make_bugs(fleet.builds, self._random), fleet.builds)
        self._releases = [n * fleet.days // fleet.builds for n in range(fleet.builds)]  # by day

    def logs(self) -> Iterator[dict[str, Any]]:
        """ExportLogsServiceRequests with all crashes, those of the first day first."""
        records = []
        for n in range(self.fleet.crashes):
            day = n * self.fleet.days // self.fleet.crashes
            records += self._crash(n, day)
            if len(records) >= BATCH:
                yield {"resourceLogs": records}
                records = []
        if records:
            yield {"resourceLogs": records}

    def metrics(self) -> Iterator[dict[str, Any]]:
        """ExportMetricsServiceRequests: each board, each day."""
        for day in range(self.fleet.days):
            at_ns = (self._day_s(day) + DAY // 2) * 10**9
            for start in range(0, self.fleet.devices, BATCH):
                boards = range(start, min(start + BATCH, self.fleet.devices))
                yield {"resourceMetrics": [self._alive(device, day, at_ns) for device in boards]}

    # -- a board

    def _reporter(self, device: int, build: int) -> Reporter:
        machine_id = hashlib.sha256(b"%d:%d" % (self.fleet.seed, device)).hexdigest()[:32]
        return Reporter(
            version=__version__,
            machine_id=machine_id,
            boot_id=None,
            hostname=f"board-{device:07}",
            architecture="aarch64",
            kernel=None,
            os_id="fleetos",
            os_version=_version(build),
            os_name=f"FleetOS {_version(build)}",
            os_build=_version(build),
            vendor="Board Maker",
            model=MODELS[device % len(MODELS)],
        )

    def _build(self, device: int, day: int) -> int:
        """What a board ran that day: each build reaches it up to two weeks after its release, some boards never."""
        newest = bisect_right(self._releases, day) - 1
        for build in range(newest, 0, -1):
            delay = (device * 2654435761 + build * 40503) % 4294967296 % 17
            if delay < 15 and self._releases[build] + delay <= day:
                return build
        return 0

    def _day_s(self, day: int) -> int:
        return self.end_s - (self.fleet.days - day) * DAY

    def _alive(self, device: int, day: int, at_ns: int) -> dict[str, Any]:
        reporter = self._reporter(device, self._build(device, day))
        info = Family("", "pstored.build_info", "", "1", False, (({"version": __version__, "backend": "ramoops"}, 1),))
        resource = otlp.resource_attributes(reporter, {})
        found: dict[str, Any] = otlp.metrics_request(resource, [info], version=__version__, now_ns=at_ns)
        return found["resourceMetrics"][0]  # type: ignore[no-any-return]

    # -- a crash

    def _crash(self, n: int, day: int) -> list[dict[str, Any]]:
        random = self._random
        device = int(self.fleet.devices * random.random() ** 1.3)  # some crash more than others
        build = self._build(device, day)
        bug = self._choice.bug(build, random)
        at_s = self._day_s(day) + random.randrange(DAY)
        crash = _report(n, bug, build, at_s, random)
        loop = LOOP if random.random() < LOOPS else 1
        sent = [self._send(device, build, crash, at_s, loop)]
        if random.random() < TWICE:
            sent.append(sent[0])
        if bug.severity == "oops" and random.random() < GROWS * 10:
            later = crash | {"revision": 2, "severity": "panic"}
            sent.append(self._send(device, build, later, at_s + 60, 1))
        return sent

    def _send(self, device: int, build: int, crash: dict[str, Any], at_s: int, loop: int) -> dict[str, Any]:
        reporter = self._reporter(device, build)
        collected = utc(at_s + 90)
        parcel = Parcel(
            uid=f"{crash['id']}.{crash['revision']}@{(reporter.machine_id or '')[:12]}",
            crash=crash,
            text=None,
            left_out=0,
            stands_for=loop,
            first=utc(at_s - (loop - 1) * 120),
            last=collected,
            redacted={},
            reporter=reporter,
            system=System(_version(build), _version(build)),
        )
        resource = otlp.resource_attributes(reporter, {})
        found: dict[str, Any] = otlp.logs_request(resource, [otlp.log_record(parcel)], version=__version__)
        return found["resourceLogs"][0]  # type: ignore[no-any-return]


def _version(build: int) -> str:
    return f"2026.{build + 1}"


def _report(n: int, bug: Bug, build: int, at_s: int, random: Random) -> dict[str, Any]:
    """What crash.json would be, as far as it is sent."""
    doubtful = random.random() < DOUBTFUL
    uptime_s = round(random.expovariate(1 / 40_000) + 8, 6)
    return {
        "id": f"{id_stamp(at_s + 90)}-{hashlib.sha256(b'%d' % n).hexdigest()[:12]}",
        "revision": 1,
        "kind": bug.kind,
        "severity": bug.severity,
        "title": bug.title,
        "function": bug.function,
        "comm": "gauged",
        "backend": "ramoops",
        "complete": True,
        "boot": {"id": _boot_id(random), "method": "stamp", "confidence": "certain"},
        "time": {"wall": utc(60 if doubtful else at_s), "uptime_s": uptime_s, "doubtful": doubtful},
        "kernel": {"release": f"6.12.{build}-fleet"},
        "records": [{"type": "dmesg"}],
        "event": bug.event(),
    }


def _boot_id(random: Random) -> str:
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:]}"

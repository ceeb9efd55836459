# SPDX-License-Identifier: Apache-2.0
"""``fleet simulate``: a fleet's telemetry, into files or to a collector."""

import gzip
import json
import os
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from pstored.errors import PstoredError, SinkError
from pstored.fleet.simulate import Fleet, Simulation


def fleet(options: Namespace) -> int:
    """Write, or send, what a fleet would have sent; gives how many requests of each signal there were."""
    simulation = Simulation(
        Fleet(options.devices, options.crashes, options.days, options.builds, options.seed, options.end)
    )
    signals = {"logs": simulation.logs(), "metrics": simulation.metrics()}
    if options.endpoint is not None:
        counts = {signal: _post(options.endpoint, signal, requests) for signal, requests in signals.items()}
    else:
        counts = {signal: _write(options.output, signal, requests) for signal, requests in signals.items()}
    for signal, count in counts.items():
        print(f"{count} requests of {signal}")
    return 0


def _write(directory: str, signal: str, requests: Iterable[dict[str, Any]]) -> int:
    path = os.path.join(directory, f"{signal}.jsonl")
    try:
        os.makedirs(directory, exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            return sum(1 for request in requests if f.write(json.dumps(request, separators=(",", ":")) + "\n"))
    except OSError as e:
        raise PstoredError(f"cannot write {path!r}: {e.strerror}") from e


def _post(endpoint: str, signal: str, requests: Iterable[dict[str, Any]]) -> int:
    from pstored.sinks.http import Server
    from pstored.sinks.link import Tls

    server = Server(f"{endpoint.rstrip('/')}/v1/{signal}", tls=Tls(), timeout_s=60, environ=os.environ)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    count = 0
    for request in requests:
        answer = server.post(gzip.compress(json.dumps(request).encode(), 1), headers)
        if answer.status != 200:
            raise SinkError(f"{server.url} refuses request {count + 1}: {answer.said()}")
        count += 1
    return count

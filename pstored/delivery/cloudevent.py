# SPDX-License-Identifier: Apache-2.0
"""A parcel as a CloudEvent 1.0 in structured JSON: what webhooks and message brokers get.  Pure."""

from typing import Any

from pstored.delivery.payload import Parcel

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
TYPE = "org.pstored.crash.v1"
"""Goes up when a reader of the old one would go wrong."""


def event(parcel: Parcel) -> dict[str, Any]:
    """The event: ``source`` and ``id`` together are the same whenever the same is sent."""
    name, _, board = parcel.uid.partition("@")
    wall, doubtful = parcel.crash["time"].get("wall"), parcel.crash["time"].get("doubtful")
    return {
        "specversion": "1.0",
        "id": name,
        "source": f"urn:pstored:{board}",
        "type": TYPE,
        "subject": parcel.crash["id"],
        "time": parcel.last if doubtful or wall is None else wall,
        "datacontenttype": "application/json",
        "data": parcel.document(),
    }

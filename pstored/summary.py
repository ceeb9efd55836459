# SPDX-License-Identifier: Apache-2.0
"""A crash in short: what ``pstored list`` shows of it, and how a line of the crashes' cache holds that."""

from __future__ import annotations

from pstored.documents import to_json
from pstored.ids import is_id
from pstored.index import from_word, to_word
from pstored.lean import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

HEAD = ("id", "order", "boot", "confidence")
"""The fields that are there without decoding: they tell which crashes need a closer look."""


class Summary(dict[str, "Any"]):
    """The fields of ``pstored list``: those of HEAD at once, the others when one of them is asked for with ``[]``.

    An archive has thousands, and a collect needs a few of them: decoding all took it longer than anything else.  What
    asks a dict in other ways (``get``, ``in``, json.dumps) sees what is there: :func:`decode` first.
    """

    __slots__ = ("_rest", "collected_by", "state")

    _rest: str
    collected_by: str | None
    """The boot that collected it, as far as that is in its fields."""
    state: str
    """What told its report from an older one when this was taken from it; empty: it could not be looked at."""

    def __missing__(self, field: str) -> Any:
        if not self._rest:
            raise KeyError(field)
        decode([self])
        return self[field]

    @classmethod
    def of_report(cls, crash_id: str, told: object, state: str) -> Summary:
        """From what a report says under ``summary``; if that is nothing we write, it is damaged."""
        fields = told if isinstance(told, dict) and _is_whole(told) else DAMAGED
        ours = {name: fields[name] for name in (*DAMAGED, *_LATER) if name in fields}
        made = cls(_LATER | ours | {"id": crash_id})  # whatever a summary that somebody has changed calls itself
        made._rest, made.state = "", state
        row = made["row"]
        collector = row.get("collected_by") if isinstance(row, dict) else None
        made.collected_by = collector if isinstance(collector, str) else None
        return made

    @classmethod
    def of_line(cls, words: list[str]) -> Summary | None:
        """From the words of a line; None if they are not such."""
        with suppress(ValueError):
            crash_id, state, order, boot, confidence, collector, rest = words
            if not rest:
                return None
            made = cls(id=crash_id, order=int(order), boot=_unword(boot), confidence=from_word(confidence))
            made._rest, made.state, made.collected_by = rest, state, _unword(collector)
            return made
        return None

    def to_line(self) -> list[str]:
        """The words of its line."""
        rest = to_json({k: v for k, v in self.items() if k not in HEAD}, compact=True)
        head = (str(int(self["order"])), self["boot"] or "", self["confidence"], self.collected_by or "")
        return [self["id"], self.state, *map(to_word, head), rest]


def _unword(word: str) -> str | None:
    return from_word(word) if word else None


def decode(summaries: Iterable[Summary]) -> None:
    """Decode what is not yet, at once, which is many times faster."""
    due = [s for s in summaries if s._rest]
    for summary, fields in zip(due, _loads([s._rest for s in due]), strict=True):
        whole = _LATER | fields | {name: summary[name] for name in HEAD} if isinstance(fields, dict) else {}
        # a line's sum is right: one that is wrong all the same is of another version, or somebody else's
        summary.update(whole if _is_whole(whole) else _LATER | DAMAGED | {"id": summary["id"]})
        summary._rest = ""


def _loads(texts: list[str]) -> list[object]:
    if not texts:
        return []
    import json  # nothing to read, nothing to import

    with suppress(ValueError, RecursionError):
        found: list[object] = json.loads("[" + ",".join(texts) + "]")
        if len(found) == len(texts):
            return found
    found = []
    for text in texts:
        fields = None
        with suppress(ValueError, RecursionError):
            fields = json.loads(text)
        found.append(fields)
    return found


DAMAGED: dict[str, Any] = {
    "time": None,
    "doubtful": True,
    "boot": None,
    "method": "unknown",
    "confidence": "none",
    "kernel": None,
    "title": "this crash's report is damaged: `pstored analyze --all` makes it again",
    "kind": "other",
    "severity": "unknown",
    "function": None,
    "backend": None,
    "complete": False,
    "order": 0,
    "revision": 0,
    "harvests": [],
}
"""The summary of a crash whose crash.json cannot be read."""
_LATER: dict[str, Any] = {"signature": None, "signature_loose": None, "sender": None, "row": None}
"""What the summaries of older reports lack."""
_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("method", "confidence", "title", "kind", "severity"), str),
    **dict.fromkeys(("time", "boot", "kernel", "function", "backend"), (str, type(None))),
    **dict.fromkeys(("signature", "signature_loose", "sender"), (str, type(None))),
    **dict.fromkeys(("doubtful", "complete"), bool),
    **dict.fromkeys(("order", "revision"), int),
    "harvests": list,
    "row": (dict, type(None)),
}


def _is_row(row: dict[str, Any]) -> bool:
    return row.keys() >= _ROW and all(isinstance(value, str | int | None) for value in row.values())


_ROW = {"count", "since", "collected_by"}


def _is_whole(fields: dict[str, Any]) -> bool:
    """Whether all is there, and of its type: it is read by the list, the history of boots and the sinks."""
    return (
        fields.keys() >= DAMAGED.keys()
        and all(map(isinstance, map(fields.get, _FIELDS), _FIELDS.values()))
        and all(isinstance(harvest_id, str) and is_id(harvest_id) for harvest_id in fields["harvests"])
        and ((row := fields.get("row")) is None or _is_row(row))
    )

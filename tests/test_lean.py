# SPDX-License-Identifier: Apache-2.0
"""What stands in for typing, enum, contextlib and hashlib does as they do."""

import contextlib
import copy
import enum
import hashlib
import json
import pickle
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pstored import lean


class Ours(lean.NamedTuple):
    """Two of three have defaults."""

    name: str
    size: int = 3
    parts: tuple[str, ...] = ()

    def twice(self) -> int:
        """A method."""
        return self.size * 2


class Library(typing.NamedTuple):
    """The same."""

    name: str
    size: int = 3
    parts: tuple[str, ...] = ()

    def twice(self) -> int:
        """A method."""
        return self.size * 2


class OurWord(lean.StrEnum):
    """Two words."""

    ALL = "all"
    """Every one."""
    NONE = "none"


class LibraryWord(enum.StrEnum):
    """The same."""

    ALL = "all"
    NONE = "none"


TUPLES: tuple[Any, ...] = (Ours, Library)
WORDS: tuple[Any, ...] = (OurWord, LibraryWord)


def both(do: Callable[[Any], object], of: tuple[Any, ...]) -> object:
    """What something gives for either, which must be the same."""
    ours, library = (do(kind) for kind in of)
    assert ours == library
    return ours


@pytest.mark.parametrize(
    "do",
    [
        lambda kind: kind("a"),
        lambda kind: kind("a", 1),
        lambda kind: kind("a", parts=("x",)),
        lambda kind: kind(name="a", size=2, parts=()),
        lambda kind: kind("a")._replace(size=9),
        lambda kind: kind("a")._asdict(),
        lambda kind: kind._make(("a", 1, ())),
        lambda kind: (kind._fields, kind._field_defaults, kind.__match_args__, kind.__annotations__),
        lambda kind: kind("a", 5).twice(),
        lambda kind: repr(kind("a", 5)).partition("(")[2],
        lambda kind: hash(kind("a")),
        lambda kind: sorted([kind("b"), kind("a", 1)]),
        lambda kind: copy.deepcopy(kind("a", parts=("x",))),
        lambda kind: pickle.loads(pickle.dumps(kind("a"))),
        lambda kind: json.dumps(kind("a")),
        lambda kind: dict.fromkeys(kind("a")),
        lambda kind: hasattr(kind("a"), "__dict__"),
    ],
)
def test_a_tuple_is_as_the_librarys(do: Callable[[Any], object]) -> None:
    """In all that is asked of one here."""
    both(do, TUPLES)


@pytest.mark.parametrize("kind", TUPLES)
@pytest.mark.parametrize(
    ("items", "named"), [((), {}), (("a", 1, (), 4), {}), (("a",), {"name": "b"}), (("a",), {"other": 1})]
)
def test_wrong_items_are_an_error(kind: Any, items: tuple[object, ...], named: dict[str, object]) -> None:
    """Too few, too many, twice, unknown."""
    with pytest.raises(TypeError):
        kind(*items, **named)


@pytest.mark.parametrize("kind", TUPLES)
def test_a_tuple_cannot_be_changed(kind: Any) -> None:
    """It can be matched, and that is all."""
    with pytest.raises(AttributeError):
        kind("a").name = "b"
    match kind("a", 7):
        case Ours(_, size) | Library(_, size):
            assert size == 7


@pytest.mark.parametrize(
    "do",
    [
        lambda kind: list(kind),
        lambda kind: len(kind),
        lambda kind: kind("all") is kind.ALL,
        lambda kind: (kind.ALL.value, kind.ALL.name, str(kind.ALL), f"{kind.ALL:>5}", "x" + kind.NONE),
        lambda kind: (kind.ALL == "all", {"all": 1}[kind.ALL], hash(kind.ALL) == hash("all")),
        lambda kind: ("all" in list(kind), isinstance(kind.ALL, str), isinstance(kind.ALL, kind)),
        lambda kind: json.dumps({"word": kind.ALL}),
        lambda kind: pickle.loads(pickle.dumps(kind.ALL)) is kind.ALL,
        lambda kind: copy.copy(kind.ALL) is kind.ALL,
        lambda kind: repr(kind.ALL).partition(".")[2],
    ],
)
def test_a_word_is_as_the_librarys(do: Callable[[Any], object]) -> None:
    """In all that is asked of one here."""
    both(do, WORDS)


@pytest.mark.parametrize("kind", WORDS)
def test_another_word_is_none_of_them(kind: Any) -> None:
    """An error that says so."""
    with pytest.raises(ValueError, match="'some'"):
        kind("some")


def run(contextmanager: Any, block: Callable[[], object], *, catches: bool, ends: str = "") -> list[str]:
    """What happens, in order."""
    said: list[str] = []

    def around() -> Iterator[str]:
        said.append("in")
        try:
            yield "value"
        except KeyError:
            said.append("caught")
            if ends == "other":
                raise ValueError("another") from None
            if not catches:
                raise
        finally:
            said.append("out")
        if ends == "twice":
            yield "again"

    try:
        with contextmanager(around)() as value:
            said.append(value)
            block()
    except BaseException as e:  # noqa: BLE001 - whatever it is, it is compared
        said.append(type(e).__name__)
    return said


def nothing() -> None:
    """Ends well."""


def key_error() -> None:
    """What the manager knows."""
    raise KeyError("x")


def stop() -> None:
    """What generators end with themselves."""
    raise StopIteration("x")


def leave() -> None:
    """No Exception."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("block", [nothing, key_error, stop, leave])
@pytest.mark.parametrize("catches", [True, False])
@pytest.mark.parametrize("ends", ["", "other", "twice"])
def test_a_manager_is_as_the_librarys(block: Callable[[], object], catches: bool, ends: str) -> None:
    """Whatever ends its block, and whatever it does then."""
    ours = run(lean.contextmanager, block, catches=catches, ends=ends)
    assert ours == run(contextlib.contextmanager, block, catches=catches, ends=ends)
    assert ours[:3] == ["in", "value", *ours[2:3]]


def test_what_is_suppressed_is_suppressed_and_nothing_else() -> None:
    """Subclasses, too."""
    with lean.suppress(OSError, KeyError):
        raise FileNotFoundError
    with lean.suppress(OSError):
        pass
    with pytest.raises(ValueError, match="x"), lean.suppress(OSError):
        raise ValueError("x")


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 1 << 20])
def test_a_digest_is_as_the_librarys(size: int) -> None:
    """Of little and of much, at once, by pieces, and of a copy."""
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    digest = lean.sha256(data)
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
    copy = digest.copy()
    digest.update(b"more")
    assert digest.digest() == hashlib.sha256(data + b"more").digest()
    assert copy.digest() == hashlib.sha256(data).digest()
    assert lean.sha256().hexdigest() == hashlib.sha256().hexdigest()

# SPDX-License-Identifier: Apache-2.0
"""The caches over the archive's directories."""

import json
from pathlib import Path
from typing import Any

import pytest

from pstored.index import SPARE, Index, KeyIndex


def healed(index: Index, ids: list[str], *, valid: int | None = None) -> dict[str, Any]:
    """What it has of *ids*: their numbers; of what it lacks, -1.  Lines of other numbers than *valid* are not."""
    found = index.healed(ids, lambda i: {"id": i, "n": -1}, lambda e: valid is None or e["n"] in (valid, -1))
    return {entry_id: entry["n"] for entry_id, entry in found.items()}


def lines(index: Index) -> list[tuple[str, int]]:
    """Id and number of each line."""
    entries = [json.loads(line) for line in Path(index.path).read_bytes().splitlines()]
    return [(e["id"], e["n"]) for e in entries]


def test_last_line_of_an_id_counts(tmp_path: Path) -> None:
    """Lines are appended; an older one stays in front."""
    index = Index(str(tmp_path / "i"))
    index.add({"id": "a", "n": 1}, {"id": "b", "n": 5})
    index.add({"id": "a", "n": 2})
    assert healed(index, ["a", "b"]) == {"a": 2, "b": 5}
    assert lines(index) == [("a", 1), ("b", 5), ("a", 2)]


def test_what_is_lacking_is_made_once(tmp_path: Path) -> None:
    """Not in the file, or not as it should be: made, appended, and found by the next."""
    index = Index(str(tmp_path / "i"))
    assert healed(index, ["a"]) == {"a": -1}
    index.add({"id": "b", "n": 1})
    assert healed(index, ["a", "b"], valid=2) == {"a": -1, "b": -1}
    assert lines(index) == [("a", -1), ("b", 1), ("b", -1)]
    state = (tmp_path / "i").stat()
    assert healed(index, ["a", "b"], valid=2) == {"a": -1, "b": -1}
    assert (tmp_path / "i").stat() == state


def test_what_is_not_to_be_kept_is_not(tmp_path: Path) -> None:
    """An entry that is not valid even when it is made stands for this once; and one may not be made at all."""
    index = Index(str(tmp_path / "i"))
    for _ in range(2):
        found = index.healed(["a", "b"], lambda i: {"id": i} if i == "a" else None, lambda _: False)
        assert found == {"a": {"id": "a"}}
        assert not (tmp_path / "i").exists()


def test_lines_that_count_no_more_go_when_they_are_the_most(tmp_path: Path) -> None:
    """Not at each change: an archive at its limit has one with each harvest."""
    index = Index(str(tmp_path / "i"))
    index.add(*({"id": str(n), "n": n} for n in range(SPARE + 20)))
    left = [str(n) for n in range(10)]
    assert healed(index, left) == {str(n): n for n in range(10)}
    assert len(lines(index)) == SPARE + 20
    index.add({"id": "0", "n": 7})
    assert healed(index, left)["0"] == 7
    assert lines(index) == [("0", 7)] + [(str(n), n) for n in range(1, 10)]


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"{}\n[]\n7\nnull",
        b'{"id": 7}',
        b'{"id": "x", "n"',
        b"\x00" * 5000,
        b"[" * 100_000,
        b"\xff\n\n\n",
        b"],[",
        b"1,2",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_damage_costs_its_own_line(tmp_path: Path, damage: bytes, first: bool) -> None:
    """Torn, of zeros, hostile, no entry at all: the others count, and nothing is made of two."""
    index = Index(str(tmp_path / "i"))
    index.add({"id": "a", "n": 1}, {"id": "b", "n": 2})
    whole = (tmp_path / "i").read_bytes()
    (tmp_path / "i").write_bytes(damage + b"\n" + whole if first else whole + damage)
    assert healed(index, ["a", "b"]) == {"a": 1, "b": 2}
    assert lines(index) == [("a", 1), ("b", 2)]  # and is not read a second time


KEYS = [
    [],
    ["dmesg-efi:" + "0" * 64, "console-ramoops:" + "f" * 64 + ":partial"],
    ["a\tb", "a\nb", "a b", "\\t", "", "\0", "\udcff", "\N{SNOWMAN}", "\x1b[2J"],
]


def keys_of(index: Index, ids: list[str]) -> dict[str, list[str]]:
    """What it has of *ids*, and nothing made."""
    return {i: e["keys"] for i, e in index.healed(ids, lambda _: None, lambda _: True).items()}


def test_keys_come_back_whatever_is_in_them(tmp_path: Path) -> None:
    """A record that has no record's name is known by that, which may hold anything."""
    index = KeyIndex(str(tmp_path / "i"))
    for n, keys in enumerate(KEYS):
        index.add({"id": str(n), "keys": keys})
    assert keys_of(index, ["0", "1", "2"]) == {str(n): keys for n, keys in enumerate(KEYS)}
    assert len((tmp_path / "i").read_bytes().splitlines()) == len(KEYS)


def test_torn_line_of_keys_is_none(tmp_path: Path) -> None:
    """Cut anywhere, or with zeros in it: a key that is lacking would have its record archived again."""
    index = KeyIndex(str(tmp_path / "i"))
    index.add({"id": "20261123T045102Z-0123456789ab", "keys": KEYS[1]})
    whole = (tmp_path / "i").read_bytes()
    for cut in range(len(whole) - 1):
        (tmp_path / "i").write_bytes(whole[:cut])
        assert keys_of(index, ["20261123T045102Z-0123456789ab"]) == {}
        (tmp_path / "i").write_bytes(whole[:cut] + bytes(len(whole) - cut))
        assert keys_of(index, ["20261123T045102Z-0123456789ab"]) == {}
    for wrong in (b"x\t\\x4\tx", b"x\t\xff\\\tx", b"x", b"\t", b"x\ty"):
        (tmp_path / "i").write_bytes(wrong + b"\n" + whole)
        assert keys_of(index, ["x", "", "20261123T045102Z-0123456789ab"]).keys() - {""} == {whole[:29].decode()}

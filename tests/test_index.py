# SPDX-License-Identifier: Apache-2.0
"""The caches over the archive's directories."""

from binascii import crc32
from pathlib import Path

import pytest

from pstored import steps
from pstored.errors import DiskError
from pstored.index import SPARE, Index, from_word, to_word
from tests.conftest import forked


def healed(index: Index, ids: list[str], *, valid: str | None = None, write: bool = True) -> dict[str, str]:
    """What it has of *ids*: their words; of what it lacks, "made".  Other words than *valid* do not count."""

    def keep(words: list[str]) -> str | None:
        found = " ".join(words[1:])
        return found if valid is None or found in (valid, "made") else None

    return index.healed(ids, keep, lambda i: ("made", [i, "made"]), write=write)


def lines(index: Index) -> list[str]:
    """Id and words of each line."""
    found = [line.rpartition("\t") for line in Path(index.path).read_text().splitlines() if line]
    assert all(last == f"{crc32(text.encode()):08x}" for text, _, last in found)
    return [text.replace("\t", " ") for text, _, _ in found]


def test_last_line_of_an_id_counts(tmp_path: Path) -> None:
    """Lines are appended; an older one stays in front."""
    index = Index(str(tmp_path / "i"))
    index.add(["a", "1"], ["b", "5", "6"])
    index.add(["a", "2"])
    assert healed(index, ["a", "b"]) == {"a": "2", "b": "5 6"}
    assert lines(index) == ["a 1", "b 5 6", "a 2"]


def test_what_is_lacking_is_made_once(tmp_path: Path) -> None:
    """Not in the file, or not as it should be: made, appended, and found by the next."""
    index = Index(str(tmp_path / "i"))
    assert healed(index, ["a"]) == {"a": "made"}
    index.add(["b", "1"])
    assert healed(index, ["a", "b"], valid="2") == {"a": "made", "b": "made"}
    assert lines(index) == ["a made", "b 1", "b made"]
    state = (tmp_path / "i").stat()
    assert healed(index, ["a", "b"], valid="2") == {"a": "made", "b": "made"}
    assert (tmp_path / "i").stat() == state


def test_who_may_not_write_gets_the_same(tmp_path: Path) -> None:
    """A reader holds no lock: what it wrote could be older than what is written beside it."""
    index = Index(str(tmp_path / "i"))
    assert healed(index, ["a"], write=False) == {"a": "made"}
    assert not (tmp_path / "i").exists()
    (tmp_path / "i").write_bytes(b"torn\n" * 500)
    assert healed(index, ["a"], write=False) == {"a": "made"}
    assert (tmp_path / "i").read_bytes() == b"torn\n" * 500


def test_what_is_not_to_be_kept_is_not(tmp_path: Path) -> None:
    """What is made may stand for this once, and there may be no such entry at all."""
    index = Index(str(tmp_path / "i"))
    for _ in range(2):
        found = index.healed(["a", "b"], lambda _: None, lambda i: ("made", None) if i == "a" else None, write=True)
        assert found == {"a": "made"}
        assert not (tmp_path / "i").exists()


def test_lines_that_count_no_more_go_when_they_are_the_most(tmp_path: Path) -> None:
    """Not at each change: an archive at its limit has one with each harvest."""
    index = Index(str(tmp_path / "i"))
    index.add(*([str(n), f"n{n}"] for n in range(SPARE + 22)))
    left = [str(n) for n in range(11)]
    assert healed(index, left) == {str(n): f"n{n}" for n in range(11)}
    assert len(lines(index)) == SPARE + 22
    index.add(["0", "7"])
    assert healed(index, [*left[:-1], "new"])["0"] == "7"
    assert sorted(lines(index)) == sorted(["0 7", *(f"{n} n{n}" for n in range(1, 10)), "new made"])


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"\t",
        b"a",
        b"a\t9",
        b"a\t9\t00000000",
        b"a\t9\ta",
        b"a\t9\t",
        b"\t00000000",
        b"a\t\0\t01234567",
        b"a\t9\t%08X" % crc32(b"a\t9"),
        b"\xff\t%08x" % crc32(b"\xff"),
        b'{"id": "a", "n": 9}',
        b"\x00" * 5000,
        b"\xff\n\n\n",
        b"a\t9\t%08x" % crc32(b"a\t8"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_damage_costs_its_own_line(tmp_path: Path, damage: bytes, first: bool) -> None:
    """Torn, of zeros, hostile, of an older version: the others count, and nothing is made of two."""
    index = Index(str(tmp_path / "i"))
    index.add(["a", "1"], ["b", "2"])
    whole = (tmp_path / "i").read_bytes()
    (tmp_path / "i").write_bytes(damage + b"\n" + whole if first else whole + damage)
    assert healed(index, ["a", "b"]) == {"a": "1", "b": "2"}
    assert lines(index) == ["a 1", "b 2"]  # and is not read a second time


def test_torn_line_is_none(tmp_path: Path) -> None:
    """Cut anywhere, or with zeros in it: a key that is lacking would have its record archived again."""
    index = Index(str(tmp_path / "i"))
    index.add(["20261123T045102Z-0123456789ab", "dmesg-efi:" + "0" * 64, "console-ramoops:" + "f" * 64])
    whole = (tmp_path / "i").read_bytes()
    for cut in range(len(whole)):
        for data in (whole[:cut], whole[:cut] + bytes(len(whole) - cut), whole[:cut] + b"\n"):
            (tmp_path / "i").write_bytes(data)
            has = healed(index, [whole[:29].decode()], write=False)[whole[:29].decode()]
            assert (has == "made") == (data != whole)


def test_line_behind_a_torn_one_costs_both_once(tmp_path: Path) -> None:
    """What is appended to half a line is made anew, and neither is taken for the other."""
    index = Index(str(tmp_path / "i"))
    index.add(["a", "1"])
    (tmp_path / "i").write_bytes((tmp_path / "i").read_bytes()[:-1])
    index.add(["b", "2"])
    assert healed(index, ["a", "b"]) == {"a": "made", "b": "made"}
    assert lines(index) == ["a made", "b made"]


def test_line_with_a_flipped_bit_is_none(tmp_path: Path) -> None:
    """Wherever: what it tells is believed."""
    index = Index(str(tmp_path / "i"))
    index.add(["a", "1", "boot"])
    whole = (tmp_path / "i").read_bytes()
    for at in range(len(whole)):
        for bit in (1, 2, 128):
            (tmp_path / "i").write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            assert healed(index, ["a"], write=False) == {"a": "made"}


def test_doubt_behind_a_torn_line_counts(tmp_path: Path) -> None:
    """What is torn does not take it along, wherever that was cut; and a doubt is no damage, and no reason to write."""
    index = Index(str(tmp_path / "i"))
    index.add(["a", "1"])
    first = (tmp_path / "i").read_bytes()
    index.add(["a", "2"])
    whole = (tmp_path / "i").read_bytes()
    for cut in range(len(first), len(whole) + 1):
        (tmp_path / "i").write_bytes(whole[:cut])
        index.doubt("a")
        assert healed(index, ["a"], valid="no", write=False) == {"a": "made"}
    assert healed(index, ["a"]) == {"a": ""}
    assert (tmp_path / "i").read_bytes().startswith(whole + b"a\t")


def test_cache_that_cannot_be_doubted_goes(tmp_path: Path) -> None:
    """No lines, none that could be believed; it must not keep a report from being written."""
    index = Index(str(tmp_path / "i"))
    index.add(["a", "1"])

    def child() -> bool:
        def hook(name: str) -> None:
            if name == f"append {index.path}":
                raise OSError(28, "No space left on device")

        steps.hook = hook
        index.doubt("a")
        return Path(index.path).exists()

    assert forked(child) is False


def test_what_has_lines_and_is_no_more_is_told(tmp_path: Path) -> None:
    """If it comes again, the older lines are to be doubted first."""
    Index(str(tmp_path / "i")).add(["a", "1"], ["b", "2"])
    index = Index(str(tmp_path / "i"))
    assert healed(index, ["b", "c"]) == {"b": "2", "c": "made"}
    assert index.ids == {"a", "b", "c"}


def test_doubted_entry_is_made_anew(tmp_path: Path) -> None:
    """Its lines count no more; where there is no cache, nothing is to be doubted, and none is made."""
    index = Index(str(tmp_path / "i"))
    index.doubt("a")
    assert not (tmp_path / "i").exists()
    index.add(["a", "1"], ["b", "2"])
    index.doubt("a")
    assert lines(index)[-1] == "a"
    assert healed(index, ["a", "b"], valid="2") == {"a": "made", "b": "2"}


def test_doubt_that_cannot_be_noted_is_said(tmp_path: Path) -> None:
    """Then nothing may change: after a power cut the older line could be the last."""
    index = Index(str(tmp_path / "i"))
    index.add(["a", "1"])

    def child() -> bool:
        def hook(name: str) -> None:
            if name.startswith(("append", "fsync")):
                raise OSError(28, "No space left on device")

        steps.hook = hook
        with pytest.raises(DiskError, match="No space left"):
            index.doubt("a")
        return True

    assert forked(child)


WORDS = ["", "dmesg-efi:" + "0" * 64, "a\tb", "a\nb", "a b", "\\t", "\0", "\udcff", "\N{SNOWMAN}", "\x1b[2J"]


@pytest.mark.parametrize("text", WORDS)
def test_text_comes_back_whatever_is_in_it(tmp_path: Path, text: str) -> None:
    """A record that has no record's name is known by that, which may hold anything."""
    index = Index(str(tmp_path / "i"))
    index.add(["a", to_word(text), "z"])
    found = index.healed(["a"], lambda words: words, lambda _: None, write=False)
    assert found == {"a": ["a", to_word(text), "z"]}
    assert from_word(found["a"][1]) == text


@pytest.mark.parametrize("word", ["\\x4", "\N{REPLACEMENT CHARACTER}\\", "\\"])
def test_word_that_is_none(word: str) -> None:
    """Damaged, or written by somebody else."""
    with pytest.raises(ValueError, match=r"can't|codec"):
        from_word(word)

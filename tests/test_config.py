# SPDX-License-Identifier: Apache-2.0
"""The configuration: found as systemd finds its own, read leniently, checked strictly."""

import os
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.config import MAX_FILE, TABLES, Config, ErasePolicy, find_files, load
from pstored.lean import StrEnum
from pstored.sinks import settings
from tests.conftest import MakeRoot, Pstored, Root

NAMES = ["a", "b"]


def found(root: Root) -> list[str]:
    """The files that count, relative to the root."""
    return [os.path.relpath(path, root.path) for path in find_files(str(root.path))]


def test_without_a_file_the_defaults_stand(root: MakeRoot) -> None:
    """No file is no problem."""
    loaded = load(str(root().path))
    assert (loaded.config, loaded.files, loaded.problems) == (Config(), (), ())
    assert loaded.config.harvest.erase is ErasePolicy.SAFE
    assert loaded.config.archive.path == "/var/lib/pstored"


def test_main_file_is_the_first_there_is(root: MakeRoot) -> None:
    """/etc before /run before /usr/local/lib before /usr/lib; only one of them counts."""
    made = root()
    for base in ("usr/lib", "usr/local/lib", "run", "etc"):
        made.write(f"{base}/pstored.conf", "")
        assert found(made) == [f"{base}/pstored.conf"]


def test_drop_ins_are_sorted_across_the_directories_and_masked_by_name(root: MakeRoot) -> None:
    """UAPI.6: by name whatever the directory; the same name in an earlier directory hides the others."""
    made = root()
    made.write("usr/lib/pstored.conf", "")
    for path in (
        "usr/lib/pstored.conf.d/10-vendor.conf",
        "usr/lib/pstored.conf.d/50-both.conf",
        "usr/lib/pstored.conf.d/90-last.conf",
        "usr/local/lib/pstored.conf.d/20-local.conf",
        "run/pstored.conf.d/50-both.conf",
        "etc/pstored.conf.d/30-admin.conf",
        "etc/pstored.conf.d/README",
        "etc/pstored.conf.d/40-backup.conf~",
    ):
        made.write(path, "")
    assert found(made) == [
        "usr/lib/pstored.conf",
        "usr/lib/pstored.conf.d/10-vendor.conf",
        "usr/local/lib/pstored.conf.d/20-local.conf",
        "etc/pstored.conf.d/30-admin.conf",
        "run/pstored.conf.d/50-both.conf",
        "usr/lib/pstored.conf.d/90-last.conf",
    ]


def test_link_to_dev_null_masks(root: MakeRoot) -> None:
    """A drop-in or the main file linked to /dev/null hides those behind it, and is itself not read."""
    made = root()
    made.write("usr/lib/pstored.conf", '[harvest]\nerase = "all"\n')
    made.write("usr/lib/pstored.conf.d/10.conf", '[harvest]\nerase = "none"\n')
    made.path.joinpath("etc/pstored.conf.d").mkdir(parents=True)
    os.symlink("/dev/null", made.path / "etc/pstored.conf")
    os.symlink("/dev/null", made.path / "etc/pstored.conf.d/10.conf")
    assert load(str(made.path)) == (Config(), (), ())


def test_later_files_win_key_by_key(root: MakeRoot) -> None:
    """A drop-in changes what it names, and leaves the rest."""
    made = root()
    made.configure('[harvest]\nerase = "none"\nstore = "/a"\n[archive]\nmax_harvests = 3\n')
    made.write("usr/lib/pstored.conf.d/50.conf", '[harvest]\nerase = "all"\n')
    made.write("etc/pstored.conf.d/60.conf", "[archive]\nmax_bytes = 7\n")
    loaded = load(str(made.path))
    assert loaded.problems == ()
    assert (loaded.config.harvest.erase, loaded.config.harvest.store) == (ErasePolicy.ALL, "/a")
    assert (loaded.config.archive.max_harvests, loaded.config.archive.max_bytes) == (3, 7)


PROBLEMS = [
    ("[archive]\nmax_byte = 1\n", "unknown key 'max_byte' in [archive]"),
    ("[arhcive]\nmax_bytes = 1\n", "unknown table [arhcive]"),
    ("max_bytes = 1\n", "unknown table [max_bytes]"),
    ("archive = 1\n", "[archive] must be a table, not 1"),
    ("[[archive]]\nmax_bytes = 1\n", "[archive] must be a table, not [{'max_bytes': 1}]"),
    ('[harvest]\nerase = "some"\n', "must be one of 'safe', 'all', 'none', not 'some'"),
    ("[harvest]\nerase = true\n", "must be a string, not True"),
    ("[harvest]\nstore = 1\n", "must be a string, not 1"),
    ("[archive]\nmax_bytes = -1\n", "must be a whole number, 0 or more, not -1"),
    ("[archive]\nmax_bytes = true\n", "must be a whole number, 0 or more, not True"),
    ("[archive]\nmax_bytes = 1.5\n", "must be a whole number, 0 or more, not 1.5"),
    ('[archive]\nallow_volatile = "yes"\n', "must be true or false, not 'yes'"),
    ('[journal]\nenabled = "no"\n', "must be true or false, not 'no'"),
    ("[harvest\n", "is not TOML, the whole file is left out"),
    ('[harvest]\nerase = "\xff', "is not TOML, the whole file is left out"),
    ("a = " + "[" * 5000, "is not TOML, the whole file is left out"),
    ("#" * (MAX_FILE + 1), f"larger than {MAX_FILE} bytes, not read"),
]


@pytest.mark.parametrize(("text", "problem"), PROBLEMS, ids=[p for _, p in PROBLEMS])
def test_what_is_wrong_is_said_and_the_rest_counts(root: MakeRoot, text: str, problem: str) -> None:
    """One problem, which names the file; the good key of another file counts all the same."""
    made = root()
    made.configure(text)
    made.write("etc/pstored.conf.d/50.conf", "[archive]\nmax_harvests = 3\n")
    loaded = load(str(made.path))
    assert len(loaded.problems) == 1
    assert problem in loaded.problems[0]
    assert str(made.path / "etc/pstored.conf") in loaded.problems[0]
    assert loaded.config.archive.max_harvests == 3
    assert loaded.config.archive.max_bytes == Config().archive.max_bytes


@pytest.mark.parametrize(
    "text",
    [
        '[harvest]\nstore = ""\n',
        '[archive]\npath = ""\n',
        '[archive]\npath = "relative"\n',
        '[archive]\npath = "/a\\u0000b"\n',
        '[harvest]\nstore = "/a\\u0000b"\n',
        '[harvest]\nstore = "sys/fs/pstore"\n',
        '[harvest]\nstore = "/"\n',
        '[archive]\npath = "//"\n',
        '[archive]\npath = "/var/../.."\n',
    ],
)
def test_paths_must_be_paths(root: MakeRoot, pstored: Pstored, text: str) -> None:
    """Empty, relative, the root, or with a NUL: a problem, and the default stands, so the harvest is done."""
    made = root("panic", backend="efi_pstore")
    made.configure(text)
    checked = pstored("check-config", root=made)
    assert checked.status == 78
    assert "must be an absolute path, and not /" in checked.stdout
    done = pstored("harvest", root=made)
    assert "Traceback" not in done.stderr
    assert done.status == 0
    assert made.names() == []
    assert len(made.harvests()) == 1


def test_good_keys_beside_bad_ones_count(root: MakeRoot) -> None:
    """Key by key, not file by file, while it is TOML; each problem is named."""
    made = root()
    made.configure('[harvest]\nerase = "all"\nstroe = 1\n[archive]\nmax_bytes = "x"\nmax_harvests = 9\n[x]\n')
    loaded = load(str(made.path))
    assert loaded.config.harvest.erase is ErasePolicy.ALL
    assert loaded.config.archive.max_harvests == 9
    assert len(loaded.problems) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/nowhere/at/all"),
        lambda path: path.symlink_to(path),
    ],
    ids=["directory", "dangling", "loop"],
)
def test_files_that_cannot_be_read(root: MakeRoot, pstored: Pstored, make: object) -> None:
    """Said, and the harvest is done with the defaults."""
    made = root("panic", backend="efi_pstore")
    assert callable(make)
    make(made.path / "etc/pstored.conf")
    assert "cannot be read" in load(str(made.path)).problems[0]
    done = pstored("harvest", root=made)
    assert done.status == 0
    assert "cannot be read" in done.stderr
    assert made.names() == []


def test_pipe_as_a_file_does_not_hold_up_the_boot(root: MakeRoot, pstored: Pstored) -> None:
    """A FIFO in the place of the configuration: a problem, and nothing waits for a writer."""
    made = root("panic", backend="efi_pstore")
    os.mkfifo(made.path / "etc/pstored.conf")
    assert pstored("check-config", root=made, before=lambda: alarm(10)).status == 78
    done = pstored("harvest", root=made, before=lambda: alarm(10))
    assert done.status == 0
    assert "etc/pstored.conf: cannot be read: not a plain file" in done.stderr
    assert made.names() == []


def alarm(seconds: int) -> None:
    """End the process after so long."""
    import signal

    signal.alarm(seconds)


@pytest.mark.parametrize(("text", "problem"), PROBLEMS[:14:4], ids=[p for _, p in PROBLEMS[:14:4]])
def test_bad_configuration_never_stops_a_harvest(root: MakeRoot, pstored: Pstored, text: str, problem: str) -> None:
    """A warning on standard error, and everything is archived and erased as by default."""
    made = root("panic", backend="efi_pstore")
    made.configure(text)
    done = pstored("collect", root=made)
    assert done.status == 0
    assert f"warning: {made.path}/etc/pstored.conf: " in done.stderr
    assert problem in done.stderr
    assert made.names() == []
    assert len(made.crashes()) == 1


def test_check_config_is_strict_and_names_every_problem(root: MakeRoot, pstored: Pstored) -> None:
    """Exit 78 for any; 0 for none; what it prints of a good configuration is TOML again."""
    made = root()
    good = pstored("check-config", root=made)
    assert good.status == 0
    assert tomllib.loads(good.stdout)["harvest"] == {"store": "/sys/fs/pstore", "erase": "safe"}
    made.configure('[harvest]\nerase = "some"\nstroe = 1\n[x]\n')
    made.write("etc/pstored.conf.d/1.conf", "[")
    bad = pstored("check-config", root=made)
    assert bad.status == 78
    assert len([line for line in bad.stdout.splitlines() if line.startswith("problem: ")]) == 4
    as_json = pstored("check-config", "--json", root=made)
    assert as_json.status == 78
    assert len(as_json.json["problems"]) == 4
    assert as_json.json["files"] == [str(made.path / "etc/pstored.conf"), str(made.path / "etc/pstored.conf.d/1.conf")]
    assert as_json.json["config"]["harvest"]["erase"] == "safe"


def test_check_config_of_one_file(root: MakeRoot, pstored: Pstored) -> None:
    """The file given, and no other; one that is not there is a problem."""
    made = root()
    made.configure("[")
    made.write("new.conf", "[archive]\nmax_bytes = 5\n")
    done = pstored("check-config", "--json", str(made.path / "new.conf"), root=made)
    assert (done.status, done.json["config"]["archive"]["max_bytes"]) == (0, 5)
    assert pstored("check-config", str(made.path / "none.conf"), root=made).status == 78


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_a_problem(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Reading never raises."""
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_bytes(data)
    loaded = load(only=str(path))
    assert loaded.config == Config() or not loaded.problems


def test_drop_ins_that_cannot_be_listed_are_said(root: MakeRoot) -> None:
    """Settings that are there and do not count: whoever made them shall know."""
    made = root()
    loop = made.path / "etc/pstored.conf.d"
    loop.symlink_to(loop)
    assert load(str(made.path)).problems == (f"{loop}: cannot be listed: Too many levels of symbolic links",)


def test_every_closed_list_of_words_is_known_as_one() -> None:
    """One that is made otherwise would take any string."""
    lists = 0
    for table in (*(getattr(Config(), name) for name in TABLES), *(kind() for kind in settings.TABLES.values())):
        for wanted in table.__annotations__.values():
            for kind in getattr(wanted, "__args__", (wanted,)):
                if isinstance(kind, type) and issubclass(kind, str) and kind is not str:
                    assert issubclass(kind, StrEnum), kind
                    lists += 1
    assert lists > 5

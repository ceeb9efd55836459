# SPDX-License-Identifier: Apache-2.0
"""What ``make install`` puts where, and what systemd itself says of it; tests/vm/service.py runs it under PID 1."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from pstored.archive import Archive
from pstored.cli.arguments import NETCONSOLE_PORT
from pstored.config import Config, load
from pstored.daemon import SPOOL
from pstored.delivery.privileges import USER
from pstored.delivery.relay import SOCKET
from pstored.sinks import settings
from pstored.sinks.journal import MESSAGE_ID
from tests.conftest import REPOSITORY, require

UNITS = REPOSITORY / "units"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
DELIVER = "pstored-deliver.service"
"""The only one with a network; not root."""
NETCONSOLE = "pstored-netconsole.service"
"""It is given a socket; not root, either."""
MAX_EXPOSURE = dict.fromkeys(SERVICES, 10) | {DELIVER: 11}
"""In tenths: 1.0 of systemd-analyze security."""

PLACES = {
    "80-pstored.preset": "lib/systemd/system-preset/80-pstored.preset",
    "pstored-archive.service": "lib/systemd/system/pstored-archive.service",
    "pstored-deliver.service": "lib/systemd/system/pstored-deliver.service",
    "pstored-deliver.socket": "lib/systemd/system/pstored-deliver.socket",
    "pstored-deliver.timer": "lib/systemd/system/pstored-deliver.timer",
    "pstored-harvest.service": "lib/systemd/system/pstored-harvest.service",
    "pstored-netconsole.service": "lib/systemd/system/pstored-netconsole.service",
    "pstored-netconsole.socket": "lib/systemd/system/pstored-netconsole.socket",
    "pstored.service": "lib/systemd/system/pstored.service",
    "pstored.catalog": "lib/systemd/catalog/pstored.catalog",
    "pstored.conf": "lib/pstored.conf",
    "pstored.sysusers": "lib/sysusers.d/pstored.conf",
    "pstored.tmpfiles": "lib/tmpfiles.d/pstored.conf",
}
"""Where each file of units/ goes, below PREFIX."""


def run(*command: str | Path, **environment: str) -> str:
    """Run a tool; gives all it says.  It must succeed."""
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def make(target: str, **variables: str | Path) -> Sequence[str | Path]:
    """The command that runs make, with *variables* set and nothing of a make that runs these tests."""
    words = [f"{name}={value}" for name, value in variables.items()]
    return ["env", "-u", "MAKEFLAGS", "make", "--silent", f"--directory={REPOSITORY}", target, *words]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, installed below a directory of their own as PREFIX, with something in the program's place."""
    require(shutil.which("systemd-analyze"), "systemd")
    prefix = tmp_path_factory.mktemp("tree") / "usr"
    run(*make("install-units", PREFIX=prefix))
    (prefix / "bin").mkdir()
    (prefix / "bin/pstored").symlink_to("/bin/true")
    return prefix


def files(directory: Path) -> set[str]:
    """The names of all files below *directory*."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def test_everything_has_its_place(tree: Path) -> None:
    """Each file of units/ is installed, and nothing else but the documents and the program."""
    assert {path.name for path in UNITS.iterdir()} == {*PLACES, "fleet"}  # that is for another machine
    documents = {f"share/doc/pstored/{name}" for name in ("README.md", "LICENSE")}
    assert files(tree) == {*PLACES.values(), *documents, "bin/pstored"}


def test_install_below_destdir(tmp_path: Path) -> None:
    """DESTDIR goes before every path, and into no file."""
    run(*make("install-units", DESTDIR=tmp_path))

    assert set(PLACES.values()) < {name.removeprefix("usr/") for name in files(tmp_path)}
    for source, place in PLACES.items():
        assert (tmp_path / "usr" / place).read_text() == (UNITS / source).read_text()
        assert (tmp_path / "usr" / place).stat().st_mode & 0o777 == 0o644


def test_install_of_the_program(tmp_path: Path) -> None:
    """The program runs from where it is installed, with what it imports, and with nothing of this environment."""
    prefix = tmp_path / "usr"
    command = make("install", PREFIX=prefix, PYTHON=shutil.which("python3") or "python3", EXTRAS="ecc,otlp")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"what pip fetches: {done.stderr}")
    (site,) = (prefix / "lib/pstored/lib").glob("python3*/site-packages")
    assert (site / "opentelemetry").is_dir()  # EXTRAS= are installed, and no others
    assert not (site / "lz4").exists()

    report = run("env", "-i", prefix / "bin/pstored", "--root", tmp_path, "collect", "--json")

    assert '"schema": 1' in report
    assert run("env", "-i", prefix / "bin/pstored", "schema")  # pydantic is there


def test_install_leaves_the_environment_for_development_alone() -> None:
    """Another PYTHON is what the program is to run with, not what it is worked on with, whatever is newer than what."""
    command = make("install", PYTHON="/other/python3", DESTDIR="/x")
    said = run(*command, "--dry-run", "--what-if=pyproject.toml")
    assert "/other/python3 -m venv" in said
    assert ".venv" not in said
    assert "'.[compress,ecc]'" in said
    assert re.search(r"(?m)^\s*'\.'$", run(*make("install", EXTRAS=""), "--dry-run"))


def test_installs_are_equal(tmp_path: Path) -> None:
    """Whoever packages it gets the same bytes each time, wherever that is done."""
    trees: list[dict[str, bytes]] = []
    for directory in (tmp_path / "a", tmp_path / "elsewhere/b"):
        command = make("install", DESTDIR=directory, PYTHON=shutil.which("python3") or "python3")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        require(done.returncode == 0, f"what pip fetches: {done.stderr}")
        trees.append({name: (directory / name).read_bytes() for name in files(directory)})
    first, second = trees
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_units_verify(tree: Path) -> None:
    """``systemd-analyze verify`` has nothing to say."""
    names = [path.name for path in UNITS.iterdir() if path.suffix in (".service", ".socket", ".timer")]
    path = f"{tree / 'lib/systemd/system'}:"

    assert run("systemd-analyze", "verify", "--man=no", *names, SYSTEMD_UNIT_PATH=path) == ""


@pytest.mark.parametrize("service", SERVICES)
def test_exposure(tree: Path, service: str) -> None:
    """``systemd-analyze security`` gives each service 1.0 or better, 1.1 to the one that uses the network."""
    unit = tree / "lib/systemd/system" / service
    threshold = f"--threshold={MAX_EXPOSURE[service]}"
    run("systemd-analyze", "security", "--offline=true", "--no-pager", threshold, unit)


@pytest.mark.parametrize("service", sorted({*SERVICES} - {DELIVER, NETCONSOLE}))
def test_services_may_write_to_the_archive_and_the_store_only(service: str) -> None:
    """Their sandbox is opened for the default paths of the configuration, and no other."""
    text = (UNITS / service).read_text()
    (paths,) = re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE)
    store, archive = f"-{Config().harvest.store}", Config().archive.path  # without its module there is no store yet
    wanted = {archive} if service == "pstored-archive.service" else {archive, store}
    assert wanted <= set(paths.split()) <= wanted | {"-/var/log/journal", f"-{SPOOL}"}


def test_who_delivers_is_not_root_and_writes_nothing_but_what_it_delivered() -> None:
    """A user of its own; of the archive the one directory that is its own; not the store, and no device."""
    lines = (UNITS / DELIVER).read_text().splitlines()
    archive = Config().archive.path
    assert "User=pstored" in lines
    assert f"StateDirectory={os.path.relpath(Archive(archive).outgoing, '/var/lib')}" in lines
    assert {"CapabilityBoundingSet=", "PrivateDevices=yes", "ProtectSystem=strict"} <= set(lines)
    assert f"InaccessiblePaths=-{Config().harvest.store}" in lines
    assert not [line for line in lines if line.startswith(("ReadWritePaths=", "BindPaths=", "DeviceAllow="))]
    assert f"u {USER} -" in (UNITS / "pstored.sysusers").read_text()


def test_metrics_are_written_where_others_may_read_them() -> None:
    """The default directory is the service's own, open to everybody (RuntimeDirectoryMode= is 0755), and it stays."""
    lines = (UNITS / DELIVER).read_text().splitlines()
    assert f"RuntimeDirectory={os.path.relpath(settings.Prometheus().directory, '/run')}" in lines
    assert "RuntimeDirectoryPreserve=yes" in lines
    assert not any(line.startswith("RuntimeDirectoryMode=") for line in lines)


def test_a_fleet_does_not_call_at_once() -> None:
    """Once a day, at a time by chance that stays the machine's; a day that was slept through is made up for."""
    lines = (UNITS / "pstored-deliver.timer").read_text().splitlines()
    assert {"OnCalendar=daily", "RandomizedDelaySec=1d", "FixedRandomDelay=yes", "Persistent=yes"} <= set(lines)
    assert not any(line.startswith("Unit=") for line in lines)  # the service of the same name


def test_who_listens_has_no_network_and_no_archive() -> None:
    """One directory is its own, in which only the daemon, root, can take what it wrote; and it has a socket."""
    lines = (UNITS / NETCONSOLE).read_text().splitlines()
    assert f"ReadWritePaths={SPOOL}" in lines
    assert f"InaccessiblePaths=-{Config().archive.path} -{Config().harvest.store}" in lines
    assert {"CapabilityBoundingSet=", "PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"} <= set(lines)
    (user,) = (line.removeprefix("User=") for line in lines if line.startswith("User="))
    assert f"u {user} -" in (UNITS / "pstored.sysusers").read_text()
    assert f"d {SPOOL} 3770 root {user} - -" in (UNITS / "pstored.tmpfiles").read_text().splitlines()
    assert f"ListenDatagram={NETCONSOLE_PORT}" in (UNITS / "pstored-netconsole.socket").read_text().splitlines()


def test_socket_is_where_it_is_looked_for() -> None:
    """The daemon's children, root, may connect; nobody else."""
    lines = (UNITS / "pstored-deliver.socket").read_text().splitlines()
    assert {f"ListenStream={SOCKET}", "SocketMode=0600"} <= set(lines)


def test_preset_comes_before_systemds(tree: Path, tmp_path: Path) -> None:
    """Ours are enabled and systemd-pstore is not, though systemd's own preset says otherwise."""
    root = tmp_path / "root"
    shutil.copytree(tree, root / "usr")
    systemd = Path("/usr/lib/systemd/system-preset/90-systemd.preset")
    assert "enable systemd-pstore.service" in systemd.read_text()
    shutil.copy(systemd, root / "usr/lib/systemd/system-preset")
    shutil.copy("/usr/lib/systemd/system/systemd-pstore.service", root / "usr/lib/systemd/system")

    run("systemctl", f"--root={root}", "preset-all")

    wants = {path.name: path.parent.name for path in (root / "etc/systemd/system").glob("*.wants/*")}
    assert wants == {
        "pstored-deliver.socket": "sockets.target.wants",
        "pstored-deliver.timer": "timers.target.wants",
        "pstored-harvest.service": "sysinit.target.wants",
        "pstored.service": "multi-user.target.wants",
    }


def test_catalog_is_found(tree: Path, tmp_path: Path) -> None:
    """``journalctl --update-catalog`` takes it from there."""
    shutil.copytree(tree, tmp_path / "usr")
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    run("journalctl", f"--root={tmp_path}", "--update-catalog")

    assert MESSAGE_ID in run("journalctl", f"--root={tmp_path}", "--list-catalog")


def test_group_and_directory(tree: Path, tmp_path: Path) -> None:
    """sysusers makes the group, tmpfiles the archive's directory, which gives all that is below it to that group."""
    require(os.geteuid() == 0, "root, to give a directory to a group")
    shutil.copytree(tree, tmp_path / "usr")
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}")
    run("systemd-tmpfiles", f"--root={tmp_path}", "--create", "pstored.conf")

    line = next(x for x in (tmp_path / "etc/group").read_text().splitlines() if x.startswith("pstored:"))
    archive = (tmp_path / "var/lib/pstored").stat()
    assert (archive.st_uid, archive.st_gid, archive.st_mode & 0o7777) == (0, int(line.split(":")[2]), 0o2750)


def test_commented_lines_of_tmpfiles_are_right(tmp_path: Path) -> None:
    """Uncommented, as the file says, they write the kernel's parameters."""
    text = (UNITS / "pstored.tmpfiles").read_text().replace("#w-", "w-").replace("d /var/lib/pstored", "#")
    (tmp_path / "usr/lib/tmpfiles.d").mkdir(parents=True)
    (tmp_path / "usr/lib/tmpfiles.d/pstored.conf").write_text(text)
    parameters = [tmp_path / line.split()[1][1:] for line in text.splitlines() if line.startswith("w-")]
    for parameter in parameters:
        parameter.parent.mkdir(parents=True)
        parameter.write_text("N")

    run("systemd-tmpfiles", f"--root={tmp_path}", "--create", "pstored.conf")

    assert [parameter.name for parameter in parameters] == ["always_kmsg_dump", "crash_kexec_post_notifiers"]
    assert [parameter.read_text().strip() for parameter in parameters] == ["Y", "Y"]


def test_the_configuration_file_sets_nothing(tmp_path: Path) -> None:
    """As shipped it changes nothing, and no problem is found in it."""
    (tmp_path / "usr/lib").mkdir(parents=True)
    shutil.copy(UNITS / "pstored.conf", tmp_path / "usr/lib")
    loaded = load(str(tmp_path))
    assert loaded.files == (str(tmp_path / "usr/lib/pstored.conf"),)
    assert (loaded.config, loaded.problems) == (Config(), ())


def test_the_configuration_file_has_every_option() -> None:
    """Uncommented, it is every key there is, with its default, and no other; where that is unset, an example."""
    text = re.sub(r"(?m)^#(?=\w+ = |\[)", "", (UNITS / "pstored.conf").read_text())
    tables = tomllib.loads(text)

    found = {(table, key): value for table, keys in tables.items() for key, value in keys.items()}
    tuples = Config().tables() | {name: make() for name, make in settings.TABLES.items()}
    defaults = {(table, key): value for table, keys in tuples.items() for key, value in keys._asdict().items()}
    assert list(found) == list(defaults)
    assert {key: value for key, value in found.items() if defaults[key] not in (None, "", ())} == {
        key: value for key, value in defaults.items() if value not in (None, "", ())
    }

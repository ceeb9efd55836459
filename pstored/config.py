# SPDX-License-Identifier: Apache-2.0
"""The configuration: TOML in ``pstored.conf`` and ``pstored.conf.d/*.conf``.

Files are found the way systemd finds them (UAPI.6, systemd.unit(5)): ``pstored.conf`` from the first of /etc, /run,
/usr/local/lib, /usr/lib that has one; then the drop-ins of all four, sorted by name across them, the same name in an
earlier directory masking the later ones, a link to /dev/null masking without a replacement.  Later files win, key by
key.

Reading never fails: what cannot be used is left out, said in ``problems``, and the defaults stand, so that a broken
file never stops a harvest.  ``pstored check-config`` is strict.  Where no key is set nothing is imported to read one,
and the tables of the outgoing sinks (:mod:`pstored.sinks.settings`) are imported only where a file has one of them.
"""

import os
import stat

from pstored.lean import TYPE_CHECKING, NamedTuple, StrEnum

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DIRECTORIES = ("/etc", "/run", "/usr/local/lib", "/usr/lib")
PATHS = frozenset(("store", "path", "directory"))
"""Keys that name a directory or a file to write to: a wrong one would be harvested, and erased."""
OUTGOING = ("delivery", "otlp", "webhook", "mqtt", "sentry", "file", "exec", "prometheus")
"""Tables for what goes out, which pstored.sinks.settings has."""
MAX_FILE = 1 << 20
"""A configuration of more than 1 MiB is none."""


class ErasePolicy(StrEnum):
    """What may be erased from the store once it is archived."""

    SAFE = "safe"
    """What erasing cannot hurt; see :mod:`pstored.harvest`."""
    ALL = "all"
    """Every record archived, live zones and occupied slots too."""
    NONE = "none"
    """Nothing."""


class Harvest(NamedTuple):
    """``[harvest]``: from the store into the archive."""

    store: str = "/sys/fs/pstore"
    """Where pstorefs is mounted."""
    erase: ErasePolicy = ErasePolicy.SAFE


class Archive(NamedTuple):
    """``[archive]``: where crashes are kept, and how much of them."""

    path: str = "/var/lib/pstored"
    allow_volatile: bool = False
    """Erase from the store even if the archive is on a file system that does not survive a reboot."""
    max_bytes: int = 512 * 1024 * 1024
    """Oldest harvests go when the archive is larger; 0 is no limit."""
    max_harvests: int = 1000
    """Oldest harvests go when there are more; 0 is no limit."""
    max_age_days: int = 0
    """Harvests older than this go; 0 is no limit."""


class Boots(NamedTuple):
    """``[boots]``: how boots are told apart."""

    stamp_prefix: str = "pstored: boot "
    """What stands before the boot id in the line that marks each boot."""
    journal: bool = True
    """Look for the records' kernel lines in the system's journal."""


class Kdump(NamedTuple):
    """``[kdump]``: what kdump has saved on this machine."""

    enabled: bool = True
    """Take the logs there into the archive; nothing is moved or removed."""
    path: str = "/var/crash"


class Elsewhere(NamedTuple):
    """``[elsewhere]``: the neighbours of the store."""

    bert: bool = True
    """Take ACPI's boot error record: what firmware tells of the boot before."""
    efi: bool = True
    """Take crash variables of EFI when another backend is active; they are not erased."""
    flash: bool = True
    """Take the dumps in mtdoops' partition, and the oops in PowerPC's NVRAM if pstore does not show it."""
    dev_mem: bool = False
    """Read the memory of ramoops through /dev/mem, for the dumps that the kernel does not show."""


class Journal(NamedTuple):
    """``[journal]``: the systemd journal as a sink."""

    enabled: bool | None = None
    """Unset: yes, but not with --root, where the tree is another system's and this host's journal is not its own."""
    namespace: str = ""
    """The journal namespace that pstored runs in: where entries are read back from."""
    max_text_bytes: int = 256 * 1024
    """The text in the entry is cut to its last so many bytes: journald drops an entry over SystemMaxUse/8 unseen."""
    restore: bool | None = None
    """Give the crashed boot's own journal the kernel lines that it lacks; unset: as ``enabled``."""


class Watch(NamedTuple):
    """``[watch]``: the daemon, ``pstored watch``."""

    timeout_s: int = 300
    """A run that takes longer is ended, and tried again; 0 is no limit."""
    retry_s: int = 60
    """After a run that could not do all of it, the next comes so much later; then twice as much, and so on ..."""
    retry_max_s: int = 3600
    """... but no more than this."""


NOTHING: "Mapping[str, Any]" = {}


class Config(NamedTuple):
    """All tables."""

    harvest: Harvest = Harvest()
    archive: Archive = Archive()
    boots: Boots = Boots()
    kdump: Kdump = Kdump()
    elsewhere: Elsewhere = Elsewhere()
    journal: Journal = Journal()
    watch: Watch = Watch()
    outgoing: "Mapping[str, Any]" = NOTHING
    """The tables in OUTGOING that a file has, by name: tuples of pstored.sinks.settings."""

    def tables(self) -> "dict[str, Any]":
        """Table name to table, in the order in which they are shown."""
        always = {name: getattr(self, name) for name in TABLES}
        return always | {name: self.outgoing[name] for name in OUTGOING if name in self.outgoing}


class Loaded(NamedTuple):
    """A configuration, where it came from, and what was wrong there."""

    config: Config
    files: tuple[str, ...]
    problems: tuple[str, ...]


TABLES = tuple(name for name in Config._fields if name != "outgoing")
"""The tables that are always there."""


def find_files(root: str = "/", problems: list[str] | None = None) -> list[str]:
    """The files that count, in the order they are applied; *problems* gets what keeps others from being seen."""
    bases = [os.path.join(root, base.lstrip("/")) for base in DIRECTORIES]
    found = [p for base in bases if _is_there(p := os.path.join(base, "pstored.conf"))][:1]
    drop_ins: dict[str, str] = {}
    for base in bases:
        directory = os.path.join(base, "pstored.conf.d")
        try:
            names = os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as e:
            if problems is not None:
                problems.append(f"{directory}: cannot be listed: {e.strerror}")
            continue
        for name in names:
            if name.endswith(".conf"):
                drop_ins.setdefault(name, os.path.join(directory, name))
    found += [drop_ins[name] for name in sorted(drop_ins)]
    return [path for path in found if os.path.realpath(path) != "/dev/null"]


def _is_there(path: str) -> bool:
    """Whether there is such a name, or that cannot be told: then whoever reads it says why."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def load(root: str = "/", *, only: str | None = None) -> Loaded:
    """Read the configuration below *root*, or the one file *only*; never raises."""
    config = Config()
    problems: list[str] = []
    files = [only] if only is not None else find_files(root, problems)
    for path in files:
        config = _apply_file(config, path, problems)
    return Loaded(config, tuple(files), tuple(problems))


def _apply_file(config: Config, path: str, problems: list[str]) -> Config:
    try:
        text, _ = read_plain(path, MAX_FILE + 1)
    except OSError as e:
        problems.append(f"{path}: cannot be read: {e.strerror or e}")
        return config
    if len(text) > MAX_FILE:
        problems.append(f"{path}: larger than {MAX_FILE} bytes, not read")
        return config
    if _sets_nothing(text):
        return config
    import tomllib

    try:
        tables = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        problems.append(f"{path}: is not TOML, the whole file is left out: {e}")
        return config
    for name, table in tables.items():
        if name not in TABLES and name not in OUTGOING:
            problems.append(f"{path}: unknown table [{name}]")
        elif not isinstance(table, dict):
            problems.append(f"{path}: [{name}] must be a table, not {table!r}")
        elif name in TABLES:
            config = config._replace(**{name: _apply_table(getattr(config, name), name, table, path, problems)})
        else:
            from pstored.sinks import settings

            old = config.outgoing.get(name) or settings.TABLES[name]()
            new = _apply_table(old, name, table, path, problems)
            config = config._replace(outgoing={**config.outgoing, name: new})
    return config


def _sets_nothing(text: bytes) -> bool:
    """Whether there are only comments and headers of our tables, as in the file that is shipped."""
    headers = {b"[%b]" % name.encode() for name in TABLES}
    return all(not line or line.startswith(b"#") or line in headers for line in map(bytes.strip, text.splitlines()))


def read_plain(path: str, most: int, *, flags: int = 0) -> tuple[bytes, os.stat_result]:
    """What is in a plain file, up to *most* bytes, and its state; waits for nobody, whatever it is.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)  # a FIFO must not hold up the boot
    with open(fd, "rb") as f:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(0, "not a plain file")
        return f.read(most), state


def _apply_table(old: "Any", name: str, table: dict[str, object], path: str, problems: list[str]) -> "Any":
    """The table *old* (one of the tuples above) with the keys of *table* that can be used.

    What goes out is turned off by a value that cannot be used: the default may be more than was meant to leave.
    """
    new = old
    so = "it is turned off" if name in OUTGOING else "the default stands"
    for key, value in table.items():
        if key not in old._fields:
            problems.append(f"{path}: unknown key {key!r} in [{name}]")
            continue
        try:
            coerced = _coerce(old.__annotations__[key], value)
            if key in PATHS and not _is_sane_path(coerced):
                raise ValueError("an absolute path, and not /")
            new = new._replace(**{key: coerced})
        except ValueError as e:
            problems.append(f"{path}: {key!r} in [{name}] must be {e}, not {value!r}; {so}")
            new = new._replace(enabled=False) if name in OUTGOING else new
    return new


def _is_sane_path(path: object) -> bool:
    return (
        isinstance(path, str)
        and path.startswith("/")
        and "\0" not in path
        and os.path.normpath(path) not in ("/", "//")
    )


def _coerce(wanted: "Any", value: object) -> object:
    """*value* as the type *wanted*; ValueError says in words what it must be."""
    if wanted in (bool, bool | None):
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if wanted in (int, int | None):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError("a whole number, 0 or more")
        return value
    if wanted == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError("an array of strings")
        return tuple(value)
    if not isinstance(value, str):
        raise ValueError("a string")
    if (words := _words(wanted)) is not None:
        if value not in list(words):
            raise ValueError("one of " + ", ".join(repr(word.value) for word in words))
        return words(value)
    return value


def _words(wanted: "Any") -> type[StrEnum] | None:
    """The closed list of words that a key may be one of; None if any string will do."""
    kinds = wanted.__args__ if hasattr(wanted, "__args__") else (wanted,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)), None)

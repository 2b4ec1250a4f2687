from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from arbstore import settings as module
from arbstore.database import Database
from arbstore.errors import ConfigurationError
from arbstore.settings import Settings

PARTS = {"HOST": "db.example", "PORT": "6432", "USER": "trader", "PASSWORD": "hunter2", "DB": "market"}
NUMBERS = ["pool_size", "max_overflow", "pool_timeout", "connect_timeout", "statement_timeout"]
NUMBERS += ["cache_ttl", "cache_missing_ttl", "cache_exchanges", "cache_symbols", "postgres_port"]

OTHER_URLS = [
    "hunter2",
    "host=h password=hunter2",
    "mysql://u:hunter2@h/d",
    "http://u:hunter2@h/d",
    "sqlite://",
    "postgresql+psycopg://u:hunter2@h/d",
    "postgresql:/h/d",
    "embeddedx:",
    "postgresql://u:hunter2@h:port/d",
    "postgresql://u:hunter2@h:5432:5432/d",
    "postgresql://u:hunter2@h:70000/d",
    "postgresql://u:hunter2@h1:1,h2:2/d",
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Leave no setting in the environment, and be where there is no .env."""
    for name in Settings.model_fields:
        for variable in (f"ARBSTORE_{name}", f"arbstore_{name}", name):
            monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def shown(url: str) -> str:
    return Settings.load(database_url=url).url.render_as_string(hide_password=False)


def refusal(**given: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        assert Settings.load(**given).url
    return str(caught.value)


def test_every_setting_is_read_from_its_variable(environment: pytest.MonkeyPatch) -> None:
    others = {"ssl_mode": "require", "prepared_statements": "false", "batch_checked_foreign_keys": "true"}
    defaults = Settings.model_construct()
    for name in Settings.model_fields:
        environment.setenv(f"ARBSTORE_{name.upper()}", others.get(name, "7"))
        changed = [other for other, value in Settings.load() if value != getattr(defaults, other)]
        assert changed == [name]
        environment.delenv(f"ARBSTORE_{name.upper()}")


def test_every_setting_is_explained() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_environment_wins_over_the_file_and_an_argument_over_both(environment: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("ARBSTORE_POOL_SIZE=2\nARBSTORE_MAX_OVERFLOW=3\nARBSTORE_CACHE_TTL=4\nOTHER=1\n")
    environment.setenv("ARBSTORE_MAX_OVERFLOW", "30")
    environment.setenv("ARBSTORE_CACHE_TTL", "40")
    settings = Settings.load(cache_ttl=400)
    assert (settings.pool_size, settings.max_overflow, settings.cache_ttl) == (2, 30, 400)


def test_the_five_variables_of_deployments_make_a_url(environment: pytest.MonkeyPatch) -> None:
    for name, value in PARTS.items():
        environment.setenv(f"POSTGRES_{name}", value)
    url = Settings.load().url
    assert url.render_as_string(hide_password=False) == ("postgresql+asyncpg://trader:hunter2@db.example:6432/market")


def test_a_port_as_kubernetes_sets_it_is_its_last_part(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("POSTGRES_HOST", "postgres")
    environment.setenv("POSTGRES_PORT", "tcp://10.0.0.1:6432")
    assert Settings.load().url.port == 6432


def test_the_five_variables_are_read_from_the_file_too() -> None:
    Path(".env").write_text("".join(f"POSTGRES_{name}={value}\n" for name, value in PARTS.items()))
    assert (Settings.load().url.host, Settings.load().url.password) == ("db.example", "hunter2")


def test_ours_win_over_those_that_other_programs_share(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("POSTGRES_HOST", "theirs")
    environment.setenv("ARBSTORE_POSTGRES_HOST", "ours")
    assert Settings.load().url.host == "ours"


def test_the_url_wins_over_the_parts(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("POSTGRES_HOST", "parts")
    environment.setenv("ARBSTORE_DATABASE_URL", "postgresql://url/market")
    assert Settings.load().url.host == "url"
    assert Database("postgresql://argument/market").settings.url.host == "argument"


@pytest.mark.parametrize("name", ["HOST", "USER", "DB"])
def test_parts_that_are_left_out_have_libpqs_defaults(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(f"POSTGRES_{name}", "given")
    url = Settings.load().url
    expected = {"HOST": ("given", "postgres", "postgres"), "USER": ("localhost", "given", "given")}
    assert (url.host, url.username, url.database) == expected.get(name, ("localhost", "postgres", "given"))
    assert url.port == 5432


def test_no_database_at_all_is_told_with_the_remedy() -> None:
    assert "ARBSTORE_DATABASE_URL" in refusal()
    assert "POSTGRES_HOST" in refusal()


@pytest.mark.parametrize("variable", ["ARBSTORE_DATABASE_URL", "ARBSTORE_POOL_SIZE", "POSTGRES_PORT"])
def test_an_empty_variable_is_as_good_as_none(environment: pytest.MonkeyPatch, variable: str) -> None:
    """Compose files and CI systems set a variable to an empty text if they have no value for it."""
    environment.setenv(variable, "")
    environment.setenv("POSTGRES_HOST", "parts")
    assert Settings.load().url.render_as_string() == "postgresql+asyncpg://postgres@parts:5432/postgres"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_every_spelling_of_postgresql_is_accepted(scheme: str) -> None:
    assert shown(f"{scheme}://u:p@h:1/d") == "postgresql+asyncpg://u:p@h:1/d"


@pytest.mark.parametrize(
    ("url", "path"),
    [("embedded:", None), ("embedded", None), ("embedded:/var/data", "/var/data"), ("embedded:./data", "./data")],
)
def test_an_embedded_url_names_a_directory_or_none(url: str, path: str | None) -> None:
    found = Settings.load(database_url=url).url
    assert (found.drivername, found.database) == ("embedded", path)


@pytest.mark.parametrize("url", OTHER_URLS)
def test_any_other_url_is_refused_without_showing_its_password(url: str) -> None:
    assert "ARBSTORE_DATABASE_URL" in refusal(database_url=url)
    assert "hunter2" not in refusal(database_url=url)


def test_a_refused_scheme_is_told_with_those_that_are_taken() -> None:
    message = refusal(database_url="mysql://u:p@h/d")
    assert "mysql" in message
    assert "postgresql://" in message
    assert "embedded:" in message


def test_an_invalid_number_is_refused_by_name(environment: pytest.MonkeyPatch) -> None:
    for name in NUMBERS:
        for value in ("many", "-1", "nan"):
            environment.setenv(f"ARBSTORE_{name.upper()}", value)
            assert name in refusal(postgres_host="h").lower()
        environment.delenv(f"ARBSTORE_{name.upper()}")


@pytest.mark.parametrize(
    ("name", "value"),
    [("postgres_port", 0), ("postgres_port", 65_536), ("statement_timeout", "inf"), ("statement_timeout", 3e6)],
)
def test_a_number_that_the_server_would_not_take_is_refused_by_name(name: str, value: object) -> None:
    assert name in refusal(**{"postgres_host": "h", name: value}).lower()


@pytest.mark.parametrize(("name", "value"), [("ssl_mode", "on"), ("prepared_statements", "perhaps")])
def test_an_option_that_is_none_is_refused_by_name(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(f"ARBSTORE_{name.upper()}", value)
    assert name in refusal().lower()


def test_all_that_is_wrong_is_told_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ARBSTORE_POOL_SIZE", "many")
    environment.setenv("ARBSTORE_SSL_MODE", "on")
    assert "pool_size" in refusal().lower()
    assert "ssl_mode" in refusal().lower()


def test_an_argument_that_is_no_setting_is_refused_by_name() -> None:
    assert "pool_sise" in refusal(pool_sise=7, database_url="embedded:")


def test_the_ssl_modes_are_libpqs() -> None:
    for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"):
        assert Settings.load(ssl_mode=mode).ssl_mode == mode


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings.load().pool_size = 7


def test_only_the_settings_read_the_environment() -> None:
    source = Path(inspect.getfile(module)).parent
    readers = [
        path.name
        for path in source.rglob("*.py")
        if any(word in path.read_text() for word in ("os.environ", "getenv", "environb"))
    ]
    assert readers == []  # pydantic-settings does it for them


@pytest.mark.parametrize("password", ["p@ss:w/ord", "100%", "a b", "?#&=+", "é漢🚀", "%41", "'\"\\", "[::1]"])
def test_a_password_of_any_characters_arrives_as_it_is(environment: pytest.MonkeyPatch, password: str) -> None:
    environment.setenv("POSTGRES_HOST", "h")
    environment.setenv("POSTGRES_PASSWORD", password)
    assert Settings.load().url.password == password
    quoted = Settings.load(database_url=f"postgresql://u:{quote(password, safe='')}@h/d").url
    assert (quoted.password, quoted.host) == (password, "h")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h/d",
        "postgresql://u:@hunter2@h/d",  # one that should have been quoted
        "postgresql://u:hunter@2@h/d",
        "postgresql://u:x/hunter2@h/d",
        "postgresql://u@h/d?password=hunter2",
        "postgresql://u:12@34:hunter2@h/d",
    ],
)
def test_a_password_shows_nowhere(url: str) -> None:
    try:
        settings = Settings.load(database_url=url)
        texts = [f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"]
        texts += [repr(settings.url), str(settings.url), repr(Database(url)), str(Database(settings=settings))]
    except ConfigurationError as error:
        texts = [str(error), repr(error), *map(repr, chain(error)), *traceback.format_exception(error)]
    assert [text for text in texts if "hunter2" in text or "2@" in text] == []


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_a_password_that_fails_another_setting_shows_nowhere(environment: pytest.MonkeyPatch) -> None:
    for name in ("POOL_SIZE", "SSL_MODE", "POSTGRES_PORT"):
        environment.setenv(f"ARBSTORE_{name}", "hunter2")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(database_url=7, postgres_password=["hunter2"])
    for error in chain(caught.value):
        assert "hunter2" not in f"{error} {error!r}"

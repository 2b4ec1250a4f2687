"""Settings: the only reader of the environment."""

from __future__ import annotations

import re
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from arbstore.errors import ConfigurationError

EMBEDDED = "embedded"
_URL = "the database's URL (ARBSTORE_DATABASE_URL)"
_A_YEAR = 365 * 86_400.0
_DRIVER = "postgresql+asyncpg"
_POSTGRESQL = ("postgresql", "postgres", _DRIVER)
_PARAMETERS = ("host", "port", "sslmode", "ssl")
_SSL_MODES = "^(disable|allow|prefer|require|verify-ca|verify-full)$"


def _postgres(name: str) -> Any:
    return AliasChoices(f"ARBSTORE_POSTGRES_{name}", f"POSTGRES_{name}")


class Settings(BaseSettings):
    """Where the database is and how to use it.

    Each is read from `ARBSTORE_<NAME>`, in the environment or in a `.env` file; an argument wins over both.
    Without `database_url`, the variables `POSTGRES_HOST`, `_PORT`, `_USER`, `_PASSWORD` and `_DB` are put together.
    Durations are seconds. Passwords are shown nowhere.
    """

    model_config = SettingsConfigDict(
        env_prefix="ARBSTORE_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        populate_by_name=True,
        frozen=True,
    )

    database_url: SecretStr | None = Field(
        default=None, description="postgresql://user:password@host:port/database, embedded: or embedded:/path"
    )
    postgres_host: str | None = Field(
        default=None, validation_alias=_postgres("HOST"), description="host of the server"
    )
    postgres_port: int = Field(
        default=5432, ge=1, le=65_535, validation_alias=_postgres("PORT"), description="port of the server"
    )
    postgres_user: str | None = Field(default=None, validation_alias=_postgres("USER"), description="role to log in as")
    postgres_password: SecretStr | None = Field(
        default=None, validation_alias=_postgres("PASSWORD"), description="its password"
    )
    postgres_db: str | None = Field(default=None, validation_alias=_postgres("DB"), description="name of the database")

    pool_size: int = Field(default=5, ge=1, description="connections kept open")
    max_overflow: int = Field(default=10, ge=0, description="connections beyond those, while needed")
    pool_timeout: float = Field(default=30, gt=0, le=_A_YEAR, description="wait for a free connection")
    connect_timeout: float = Field(default=10, gt=0, le=_A_YEAR, description="wait for the server, retries included")
    statement_timeout: float = Field(default=60, ge=0, le=2_147_483, description="longest statement; 0 for no limit")
    application_name: str = Field(default="arbstore", description="as pg_stat_activity shows it")
    ssl_mode: str | None = Field(
        default=None,
        pattern=_SSL_MODES,
        description="libpq's sslmode; the driver's default is prefer",
    )
    prepared_statements: bool = Field(default=True, description="off for PgBouncer in transaction mode")

    batch_checked_foreign_keys: bool = Field(
        default=False, description="check foreign keys once a batch: docs/performance.md says what it takes"
    )

    cache_ttl: float = Field(default=300, gt=0, le=_A_YEAR, description="lifetime of a cached exchange or symbol")
    cache_missing_ttl: float = Field(default=5, gt=0, le=_A_YEAR, description='lifetime of a cached "no such symbol"')
    cache_exchanges: int = Field(default=1_000, ge=1, description="most answers about exchanges kept")
    cache_symbols: int = Field(default=50_000, ge=1, description="most answers about symbols kept")

    test_image: str = Field(
        default="timescale/timescaledb:2.29.2-pg17", description="image of `pytest --database docker`"
    )

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Read the settings; `given` wins. Raises ConfigurationError that names what is wrong, without its value."""
        if unknown := given.keys() - cls.model_fields.keys():
            raise ConfigurationError(f"settings: there is no {', '.join(sorted(unknown))}")
        try:
            return cls(**given)
        except ValidationError as error:
            faults = "; ".join(f"{_variable(str(fault['loc'][0]))}: {fault['msg']}" for fault in error.errors())
        # Not from within the handler: its error would be the context of ours, and shows the values.
        raise ConfigurationError(f"settings: {faults}")

    @field_validator("postgres_port", mode="before")
    @classmethod
    def _port_of_a_service(cls, value: object) -> object:
        """Take tcp://10.0.0.1:5432 too: Kubernetes sets that for a service that is called postgres."""
        return value.rpartition(":")[2] if isinstance(value, str) and value.startswith("tcp://") else value

    @property
    def url(self) -> URL:
        """The database's URL, for SQLAlchemy with asyncpg; of `embedded:` the path is its database."""
        if self.database_url is None:
            return self._from_parts()
        given = self.database_url.get_secret_value()
        if given == EMBEDDED or given.startswith(f"{EMBEDDED}:"):
            return URL.create(EMBEDDED, database=given.partition(":")[2] or None)
        return _postgresql_url(given)

    def _from_parts(self) -> URL:
        if self.postgres_host is None and self.postgres_db is None and self.postgres_user is None:
            raise ConfigurationError(
                "no database is configured: set ARBSTORE_DATABASE_URL (embedded: needs no server), or POSTGRES_HOST,"
                " POSTGRES_PORT, POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB"
            )
        password = None if self.postgres_password is None else self.postgres_password.get_secret_value()
        user = self.postgres_user or "postgres"
        host = self.postgres_host or "localhost"
        return URL.create(_DRIVER, user, password, host, self.postgres_port, self.postgres_db or user)


def _variable(name: str) -> str:
    return name if name.isupper() else f"ARBSTORE_{name.upper()}"


def _postgresql_url(given: str) -> URL:
    url = _parsed(given)
    if url is None or (url.drivername.startswith("postgres") and not _is_whole(url)):
        raise ConfigurationError(
            f"{_URL} cannot be read: it looks like postgresql://user:password@host:5432/database,"
            " with the special characters of the password percent-encoded"
        )
    if url.drivername not in _POSTGRESQL:
        raise ConfigurationError(f"{_URL} has the scheme {url.drivername!r}: it takes postgresql:// and embedded:")
    return _with_known_parameters(url.set(drivername=_DRIVER))


def _parsed(given: str) -> URL | None:
    try:
        return make_url(given)
    except (ArgumentError, ValueError):
        return None  # not raised from here: what SQLAlchemy says shows the password


def _is_whole(url: URL) -> bool:
    """Whether nothing of an unquoted password has spilled over into the host."""
    host = url.host or ""
    return not set(host) & set("@,/") and 0 < (url.port or 5432) < 65_536


def _with_known_parameters(url: URL) -> URL:
    """Return the URL with libpq's `sslmode` under asyncpg's name for it; refuse parameters that asyncpg has not."""
    for name in url.query:
        if name not in _PARAMETERS:
            raise ConfigurationError(
                f"{_URL} has the parameter {name!r}: it takes {', '.join(_PARAMETERS)}, the rest has"
                " settings of its own"
            )
    mode = url.query.get("sslmode", url.query.get("ssl"))
    if mode is None:
        return url
    if not re.fullmatch(_SSL_MODES, str(mode)):
        raise ConfigurationError(f"{_URL} has an sslmode that is none: it is one of {_SSL_MODES.strip('^()$')}")
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})

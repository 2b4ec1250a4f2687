"""The settings. Nothing else in arbstore reads the environment."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from arbstore.errors import ConfigurationError

EMBEDDED = "embedded"
_URL = "the database URL (ARBSTORE_DATABASE_URL)"
_A_YEAR = 365 * 86_400.0
_DRIVER = "postgresql+asyncpg"
_POSTGRESQL = ("postgresql", "postgres", _DRIVER)
_PARAMETERS = ("host", "port", "sslmode", "ssl")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def _part(name: str, default: Any, description: str, **limits: Any) -> Any:
    """Return a field that other programs' variables fill too; ARBSTORE_POSTGRES_HOST wins over POSTGRES_HOST."""
    names = AliasChoices(f"ARBSTORE_POSTGRES_{name}", f"POSTGRES_{name}")
    return Field(default=default, validation_alias=names, description=description, **limits)


def _seconds(default: float, description: str) -> Any:
    return Field(default=default, gt=0, le=_A_YEAR, description=f"{description}, in seconds")


class Settings(BaseSettings):
    """Where the database is and how to use it.

    Each setting is read from `ARBSTORE_<NAME>`, in the environment or in a `.env` file. An argument wins over both.
    Without `database_url`, the variables `POSTGRES_HOST`, `_PORT`, `_USER`, `_PASSWORD` and `_DB` form the URL.
    Durations are in seconds. No repr, log or error shows a password.
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
    postgres_host: str | None = _part("HOST", None, "host of the server")
    postgres_port: int = _part("PORT", 5432, "port of the server", ge=1, le=65_535)
    postgres_user: str | None = _part("USER", None, "role to log in as")
    postgres_password: SecretStr | None = _part("PASSWORD", None, "password of the role")
    postgres_db: str | None = _part("DB", None, "name of the database")

    pool_size: int = Field(default=5, ge=1, description="connections kept open")
    max_overflow: int = Field(default=10, ge=0, description="connections opened beyond those, while needed")
    pool_timeout: float = _seconds(30, "longest wait for a free connection")
    connect_timeout: float = _seconds(10, "longest wait for the server, retries included")
    statement_timeout: float = Field(
        default=60, ge=0, le=2_147_483, description="longest time of a statement, in seconds; 0 for no limit"
    )
    application_name: str = Field(default="arbstore", description="name that pg_stat_activity shows")
    ssl_mode: str | None = Field(
        default=None,
        pattern=f"^({'|'.join(_SSL_MODES)})$",
        description=f"libpq's sslmode: {', '.join(_SSL_MODES)}; the driver's default is prefer",
    )
    prepared_statements: bool = Field(default=True, description="false for PgBouncer in transaction mode")

    batch_checked_foreign_keys: bool = Field(
        default=False, description="check foreign keys once a batch; docs/performance.md names the conditions"
    )

    cache_ttl: float = _seconds(300, "lifetime of a cached exchange or symbol")
    cache_missing_ttl: float = _seconds(5, 'lifetime of a cached "no such symbol"')
    cache_exchanges: int = Field(default=1_000, ge=1, description="largest number of cached answers about exchanges")
    cache_symbols: int = Field(default=50_000, ge=1, description="largest number of cached answers about symbols")

    test_image: str = Field(
        default="timescale/timescaledb:2.29.2-pg17", description="image of `pytest --database docker`"
    )

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Read the settings; `given` wins. Raises ConfigurationError that names each invalid setting, not its value."""
        if unknown := given.keys() - cls.model_fields.keys():
            raise ConfigurationError(f"settings: unknown setting {', '.join(sorted(unknown))}")
        try:
            return cls(**given)
        except ValidationError as error:
            faults = "; ".join(f"{_variable(str(fault['loc'][0]))}: {fault['msg']}" for fault in error.errors())
        # Raised outside the handler: pydantic's error shows the values, and would be the context of ours.
        raise ConfigurationError(f"settings: {faults}")

    @field_validator("postgres_port", mode="before")
    @classmethod
    def _port_of_a_service(cls, value: object) -> object:
        """Accept tcp://10.0.0.1:5432: Kubernetes sets POSTGRES_PORT to that for a service named postgres."""
        return value.rpartition(":")[2] if isinstance(value, str) and value.startswith("tcp://") else value

    @property
    def url(self) -> URL:
        """The database URL, for SQLAlchemy with asyncpg. The path of an `embedded:` URL is its `database`."""
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
            f"{_URL} cannot be read: write postgresql://user:password@host:5432/database, and percent-encode the"
            " special characters of the password"
        )
    if url.drivername not in _POSTGRESQL:
        raise ConfigurationError(f"{_URL} has the scheme {url.drivername!r}: use postgresql:// or embedded:")
    if unknown := url.query.keys() - _PARAMETERS:
        raise ConfigurationError(
            f"{_URL} has the parameter {min(unknown)!r}: use {', '.join(_PARAMETERS)} only, and ARBSTORE_ variables"
            " for the rest"
        )
    return _with_drivers_ssl(url.set(drivername=_DRIVER))


def _parsed(given: str) -> URL | None:
    try:
        return make_url(given)
    except (ArgumentError, ValueError):
        return None  # SQLAlchemy's message shows the password: nothing may chain it


def _is_whole(url: URL) -> bool:
    """Return False if an unquoted password has spilled over into the host or port."""
    host = url.host or ""
    return not set(host) & set("@,/") and 0 < (url.port or 5432) < 65_536


def _with_drivers_ssl(url: URL) -> URL:
    """Return the URL with libpq's `sslmode` renamed to `ssl`, which is asyncpg's name for it."""
    mode = url.query.get("sslmode", url.query.get("ssl"))
    if mode is None:
        return url
    if mode not in _SSL_MODES:
        raise ConfigurationError(f"{_URL} has an invalid sslmode; use one of {', '.join(_SSL_MODES)}")
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})

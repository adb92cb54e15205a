"""Every setting, read from the environment once, checked, and explained when it is wrong.

docs/settings.md has a line for each; a test holds the two together.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atomo_gql.environment import (
    FROM_FILE,
    choice,
    database_address,
    expanded,
    folder,
    number,
    origins,
    read_texts,
    secret,
    server_url,
    text,
    unknown_names,
    url,
    whole,
    yes_or_no,
)

MOST_WORKERS = 256


class SettingsError(Exception):
    """The environment is not usable; each line of the message names a variable and the rule it breaks."""

    def __init__(self, message: str, log_format: str = "console") -> None:
        """`log_format`: how the settings, as far as they could be read, want errors to be written."""
        super().__init__(message)
        self.log_format = log_format


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator can say. Durations are seconds, sizes bytes, retention days."""

    database_url: str | None = field(default=None, repr=False)
    embedded: bool = True  # whether an embedded PostgreSQL may stand in for a DATABASE_URL that is not set
    listen_url: str | None = field(default=None, repr=False)
    data_dir: Path = field(default_factory=Path)
    host: str = "127.0.0.1"
    port: int = 3000
    workers: int = 1
    env: str = "development"
    jwt_secret: str = field(default="", repr=False)
    jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    broadcast_url: str | None = None
    reclaim_interval: float = 30
    retention_succeeded_days: float | None = None
    retention_dead_days: float | None = None
    retention_events_days: float | None = None
    workflows_dir: Path | None = None  # None: the folder `workflows`, if there is one
    actions_dir: Path | None = None
    max_body: int = 1_048_576
    max_batch: int = 16_777_216
    max_subscriptions: int = 20_000
    spare_deliveries: int = 100
    max_waiting: int = 10_000
    max_connections: int = 10_000
    pool_size: int = 16
    allowed_origins: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: str = "console"
    texts: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """The text of each variable that was set, from the environment or from a file, for processes to be started."""

    @property
    def is_production(self) -> bool:
        """Whether nothing may be made up for convenience."""
        return self.env == "production"

    @property
    def connections(self) -> int:
        """To the database, by all processes together: a pool each, and one that listens."""
        return self.workers * (self.pool_size + 1)


# The environment's name of each setting, and how it is read.
VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "DATABASE_URL": ("database_url", database_address),
    "ATOMO_LISTEN_URL": ("listen_url", database_address),
    "ATOMO_EMBEDDED": ("embedded", yes_or_no),
    "ATOMO_DATA_DIR": ("data_dir", expanded),
    "HOST": ("host", text),
    "PORT": ("port", whole(0, 65_535)),
    "ATOMO_WORKERS": ("workers", whole(1, MOST_WORKERS)),
    "ATOMO_ENV": ("env", choice("development", "test", "production")),
    "JWT_SECRET": ("jwt_secret", secret),
    "ATOMO_JWT_JWKS_URL": ("jwks_url", url("https", "http")),
    "ATOMO_JWT_ISSUER": ("jwt_issuer", text),
    "ATOMO_JWT_AUDIENCE": ("jwt_audience", text),
    "ATOMO_BROADCAST_URL": ("broadcast_url", server_url("redis", "rediss", "memory")),
    "ATOMO_JOB_RECLAIM_INTERVAL": ("reclaim_interval", number(0.05, 3_600)),
    "ATOMO_RETENTION_SUCCEEDED_DAYS": ("retention_succeeded_days", number(0.01, 36_500)),
    "ATOMO_RETENTION_DEAD_DAYS": ("retention_dead_days", number(0.01, 36_500)),
    "ATOMO_RETENTION_EVENTS_DAYS": ("retention_events_days", number(0.01, 36_500)),
    "ATOMO_WORKFLOWS_DIR": ("workflows_dir", folder),
    "ATOMO_ACTIONS_DIR": ("actions_dir", folder),
    "ATOMO_MAX_BODY_BYTES": ("max_body", whole(1_024, 67_108_864)),
    "ATOMO_MAX_BATCH_BYTES": ("max_batch", whole(1_024, 268_435_456)),
    "ATOMO_MAX_SUBSCRIPTIONS": ("max_subscriptions", whole(1, 1_000_000)),
    "ATOMO_SPARE_DELIVERIES": ("spare_deliveries", whole(0, 30_000)),
    "ATOMO_MAX_WAITING": ("max_waiting", whole(1, 1_000_000)),
    "ATOMO_MAX_CONNECTIONS": ("max_connections", whole(1, 1_000_000)),
    "ATOMO_POOL_SIZE": ("pool_size", whole(4, 1_000)),
    "ATOMO_ALLOWED_ORIGINS": ("allowed_origins", origins),
    "ATOMO_LOG_LEVEL": ("log_level", choice("debug", "info", "warning", "error")),
    "ATOMO_LOG_FORMAT": ("log_format", choice("console", "json")),
}


def load(environment: Mapping[str, str] | None = None, *, needs_database: bool = False) -> Settings:
    """Read the settings. An empty variable counts as absent. A secret that is missing is made, and kept.

    With `needs_database`, it is an error when the environment neither names a database nor allows an embedded one.

    Raises:
        SettingsError: one or more variables are wrong; all of them are named.
    """
    settings, wrong = read(environment, needs_database=needs_database)
    if not wrong and not settings.jwt_secret and not settings.jwks_url:
        try:
            return replace(settings, jwt_secret=_kept_secret(settings.data_dir))
        except SettingsError as error:
            wrong = [str(error)]
    if wrong:
        raise SettingsError("\n".join(wrong), settings.log_format)
    return settings


def read(environment: Mapping[str, str] | None = None, *, needs_database: bool = False) -> tuple[Settings, list[str]]:
    """The settings as far as they can be read, and a line for each variable that is wrong. Makes nothing."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    texts, wrong = read_texts(VARIABLES, environment)
    for name, found in texts.items():
        attribute, read_value = VARIABLES[name]
        try:
            values[attribute] = read_value(found)
        except ValueError as error:
            wrong.append(f"{name} {error}")
    is_production = values.get("env") == "production"

    def is_given(name: str) -> bool:
        return bool(environment.get(name, "").strip() or environment.get(name + FROM_FILE, "").strip())

    if is_production and not is_given("JWT_SECRET") and not is_given("ATOMO_JWT_JWKS_URL"):
        wrong.append("JWT_SECRET (or ATOMO_JWT_JWKS_URL) is required when ATOMO_ENV is production")
    if needs_database and is_given("DATABASE_URL"):
        if values.get("embedded"):
            wrong.append("ATOMO_EMBEDDED is true and DATABASE_URL is set: unset one of them")
    elif needs_database and not values.get("embedded", not is_production or is_given("ATOMO_EMBEDDED")):
        why = "ATOMO_EMBEDDED is false" if is_given("ATOMO_EMBEDDED") else "ATOMO_ENV is production"
        wrong.append(f"DATABASE_URL is required when {why} (ATOMO_EMBEDDED=true asks for the embedded PostgreSQL)")
    values.setdefault("embedded", not is_production)
    values.setdefault("log_format", "json" if is_production else "console")
    if "data_dir" not in values:
        values["data_dir"] = _default_data_dir()
        is_needed = not (is_given("JWT_SECRET") or is_given("ATOMO_JWT_JWKS_URL"))
        is_needed = is_needed or (needs_database and not is_given("DATABASE_URL"))
        if is_needed and not values["data_dir"].is_absolute():  # a `~` that stands for no folder
            wrong.append("ATOMO_DATA_DIR must be set, for this user has no home folder")
    return Settings(texts=texts, **values), wrong


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each variable that begins with ATOMO_ and is no setting, with the name that may be meant."""
    found = unknown_names(VARIABLES, os.environ if environment is None else environment)
    return [
        f"{name} is no setting and changes nothing" + (f"; {nearest} may be meant" if nearest else "")
        for name, nearest in found.items()
    ]


def _default_data_dir() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("atomo-gql", appauthor=False))


def _kept_secret(data_dir: Path) -> str:
    """The secret of this data folder, made at first use. Two processes that make it at once agree on one."""
    file = data_dir / "jwt_secret"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not file.exists():
            draft = data_dir / f"jwt_secret.{secrets.token_hex(8)}"
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(secrets.token_hex(32))
            try:
                os.link(draft, file)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return secret(file.read_text().strip())
    except OSError as error:
        why = f"ATOMO_DATA_DIR {data_dir} cannot be used: {error.strerror}"
        raise SettingsError(f"{why}; mend that, or set it to another folder, or set JWT_SECRET") from error
    except ValueError as error:
        raise SettingsError(f"the secret kept in {file} {error}; delete the file to have a new one made") from error

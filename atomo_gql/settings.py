"""Every setting, read from the environment once, checked, and explained when it is wrong.

docs/settings.md has a line for each; a test holds the two together.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atomo_gql.address import parse_address

MOST_WORKERS = 256


class SettingsError(Exception):
    """The environment is not usable; each line of the message names a variable and the rule it breaks."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator can say. Durations are seconds, sizes bytes, retention days."""

    database_url: str | None = None
    listen_url: str | None = None
    data_dir: Path = field(default_factory=Path)
    host: str = "127.0.0.1"
    port: int = 3000
    workers: int = 1
    env: str = "development"
    jwt_secret: str = ""
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

    @property
    def is_production(self) -> bool:
        """Whether nothing may be made up for convenience."""
        return self.env == "production"

    @property
    def connections(self) -> int:
        """To the database, by all processes together: a pool each, and one that listens."""
        return self.workers * (self.pool_size + 1)


def _text(value: str) -> str:
    return value


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return number

    return read


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return number

    return read


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return read


def _url(*schemes: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        try:
            scheme = urlsplit(value).scheme
        except ValueError:
            scheme = ""
        if scheme not in schemes:
            raise ValueError(f"must be a URL that begins with {' or '.join(s + '://' for s in schemes)}")
        return value

    return read


def _address(value: str) -> str:
    parse_address(value)
    return value


def _folder(value: str) -> Path:
    if not Path(value).is_dir():
        raise ValueError(f"must be a folder; there is none at {value}")
    return Path(value)


def _origins(value: str) -> tuple[str, ...]:
    origins = tuple(origin.strip() for origin in value.split(",") if origin.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError(f"must be origins such as https://app.example, parted by commas, or *; not {origin!r}")
    return origins


def _secret(value: str) -> str:
    if len(value.encode()) < 32:
        raise ValueError("must have at least 32 bytes; make one with: openssl rand -hex 32")
    return value


# The environment's name of each setting, and how it is read.
VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "DATABASE_URL": ("database_url", _address),
    "ATOMO_LISTEN_URL": ("listen_url", _address),
    "ATOMO_DATA_DIR": ("data_dir", Path),
    "HOST": ("host", _text),
    "PORT": ("port", _whole(0, 65_535)),
    "ATOMO_WORKERS": ("workers", _whole(1, MOST_WORKERS)),
    "ATOMO_ENV": ("env", _choice("development", "test", "production")),
    "JWT_SECRET": ("jwt_secret", _secret),
    "ATOMO_JWT_JWKS_URL": ("jwks_url", _url("https", "http")),
    "ATOMO_JWT_ISSUER": ("jwt_issuer", _text),
    "ATOMO_JWT_AUDIENCE": ("jwt_audience", _text),
    "ATOMO_BROADCAST_URL": ("broadcast_url", _url("redis", "rediss", "memory")),
    "ATOMO_JOB_RECLAIM_INTERVAL": ("reclaim_interval", _number(0.05, 3_600)),
    "ATOMO_RETENTION_SUCCEEDED_DAYS": ("retention_succeeded_days", _number(0.01, 36_500)),
    "ATOMO_RETENTION_DEAD_DAYS": ("retention_dead_days", _number(0.01, 36_500)),
    "ATOMO_RETENTION_EVENTS_DAYS": ("retention_events_days", _number(0.01, 36_500)),
    "ATOMO_WORKFLOWS_DIR": ("workflows_dir", _folder),
    "ATOMO_ACTIONS_DIR": ("actions_dir", _folder),
    "ATOMO_MAX_BODY_BYTES": ("max_body", _whole(1_024, 67_108_864)),
    "ATOMO_MAX_BATCH_BYTES": ("max_batch", _whole(1_024, 268_435_456)),
    "ATOMO_MAX_SUBSCRIPTIONS": ("max_subscriptions", _whole(1, 1_000_000)),
    "ATOMO_SPARE_DELIVERIES": ("spare_deliveries", _whole(0, 30_000)),
    "ATOMO_MAX_WAITING": ("max_waiting", _whole(1, 1_000_000)),
    "ATOMO_MAX_CONNECTIONS": ("max_connections", _whole(1, 1_000_000)),
    "ATOMO_POOL_SIZE": ("pool_size", _whole(4, 1_000)),
    "ATOMO_ALLOWED_ORIGINS": ("allowed_origins", _origins),
    "ATOMO_LOG_LEVEL": ("log_level", _choice("debug", "info", "warning", "error")),
    "ATOMO_LOG_FORMAT": ("log_format", _choice("console", "json")),
}


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. An empty variable counts as absent.

    Raises:
        SettingsError: one or more variables are wrong; all of them are named.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, (attribute, read) in VARIABLES.items():
        if text := environment.get(name, "").strip():
            try:
                values[attribute] = read(text)
            except ValueError as error:
                wrong.append(f"{name} {error}")
    if values.get("env") == "production" and not (environment.get("JWT_SECRET") or values.get("jwks_url")):
        wrong.append("JWT_SECRET (or ATOMO_JWT_JWKS_URL) is required when ATOMO_ENV is production")
    if wrong:
        raise SettingsError("\n".join(wrong))
    values.setdefault("data_dir", _default_data_dir())
    values.setdefault("log_format", "json" if values.get("env") == "production" else "console")
    if not values.get("jwt_secret") and not values.get("jwks_url"):
        values["jwt_secret"] = _kept_secret(values["data_dir"])
    return Settings(**values)


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
        return _secret(file.read_text().strip())
    except OSError as error:
        raise SettingsError(f"ATOMO_DATA_DIR {data_dir} cannot be used: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"the secret kept in {file} {error}; delete the file to have a new one made") from error

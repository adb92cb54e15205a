"""Reading the address of a database.

People copy addresses from their provider, and each provider and each library has words of its own in them. Every word
is understood, left out with a note for the log, or refused with one sentence. No sentence and no note holds a password.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_WRITABLE = ("any", "primary", "read-write")
_SIGNS = "percent-encode signs such as [ # / % @ in its password"
_POOL = "ATOMO_POOL_SIZE says how many connections there are"
_LIMITS = "the service has limits of time of its own"
_STATEMENTS = "the service finds out by itself what a pooler allows"
_SCHEMA = "the service's schema is always atomo"
_TLS = "this driver cannot do it"

# Words for the driver, as they are.
_UNDERSTOOD = {
    *("passfile", "service", "krbsrvname", "gsslib"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
}
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
# Words that this module reads itself.
_READ = {
    *("host", "hostaddr", "port", "dbname", "database", "user", "password", "options", "application_name", "ssl"),
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("tcp_user_timeout", "target_session_attrs", "requiressl", "replication"),
}
# Words that change nothing here, whatever they say.
_SILENT = {"fallback_application_name", "sslsni", "gssdelegation", "sslcompression", "uselibpqcompat"}
# Words of libpq and of other libraries that are left out, and why.
_LEFT_OUT = {
    **dict.fromkeys(("connection_limit", "pool_size", "max", "max_pool_size", "pool", "max_overflow"), _POOL),
    **dict.fromkeys(("pool_max_conns", "pool_min_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time"), _POOL),
    **dict.fromkeys(("pool_health_check_period", "pool_max_conn_lifetime_jitter", "conn_max_age"), _POOL),
    **dict.fromkeys(("pool_timeout", "socket_timeout", "statement_timeout", "lock_timeout"), _LIMITS),
    **dict.fromkeys(("idle_in_transaction_session_timeout", "max_idle_connection_lifetime"), _LIMITS),
    **dict.fromkeys(("pgbouncer", "prepared_statements", "statement_cache_size", "prepareThreshold"), _STATEMENTS),
    **dict.fromkeys(("default_query_exec_mode", "statement_cache_capacity", "binary_parameters"), _STATEMENTS),
    **dict.fromkeys(("supa", "workaround"), _STATEMENTS),
    **dict.fromkeys(("schema", "currentSchema", "search_path", "schema_search_path"), _SCHEMA),
    **dict.fromkeys(("require_auth", "requirepeer", "sslcrldir", "sslcertmode", "sslkeylogfile", "sslaccept"), _TLS),
    **dict.fromkeys(("sslidentity", "scram_client_key", "scram_server_key", "servicefile"), _TLS),
    **dict.fromkeys(("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"), _TLS),
    **dict.fromkeys(("min_protocol_version", "max_protocol_version"), _TLS),
    "encoding": "the service speaks UTF8",
}
# Words whose usual values ask for nothing, and what is said about other values.
_HARMLESS = {
    "channel_binding": ({"disable", "prefer"}, "this driver does not bind the password to the TLS channel"),
    "load_balance_hosts": ({"disable"}, "hosts are tried in their order"),
    "client_encoding": ({"utf8", "utf-8", "auto"}, "the service speaks UTF8"),
}


class AddressError(ValueError):
    """An address cannot be used. The message is a sentence without its subject, which the caller puts in front."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """How a connection that has gone silent is found out by the operating system, in seconds; `count` is a number."""

    idle: int = 5
    interval: int = 5
    count: int = 3
    user_timeout: float = 15.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, and how to connect to it."""

    hosts: tuple[tuple[str, int | None], ...]  # host (or folder of a socket) and port; none: the environment says
    user: str | None
    database: str | None
    password: str | None = field(repr=False)
    words: Mapping[str, str] = field(repr=False)  # for the driver, as a URL's query holds them
    settings: Mapping[str, str] = field(default_factory=dict)  # of PostgreSQL, from `options`
    startup_options: str = ""  # the rest of `options`, which is meant for the provider's proxy
    application_name: str = "atomo-gql"
    connect_timeout: float | None = None  # seconds
    keep_alive: KeepAlive | None = KeepAlive()
    uses_system_roots: bool = False  # certificates are checked against the system's store
    notes: tuple[str, ...] = ()  # for the log: what was left out, and why

    @property
    def shown(self) -> str:
        """The address without its password, for people."""
        hosts = ",".join(f"{host}:{port}" if port else host for host, port in self.hosts) or "(environment)"
        return f"{self.user or '(environment)'} at {hosts}, database {self.database or self.user or '(environment)'}"

    @property
    def driver_dsn(self) -> str:
        """The words for the driver as an address that names no host, user or database."""
        return "postgresql://?" + urlencode(self.words) if self.words else "postgresql://"


@cache
def parse_address(url: str) -> Address:
    """Read `postgresql://user:password@host:port/database?…`.

    Raises:
        AddressError: it cannot be read, asks for something that cannot be done, or has a word that nobody knows.
    """
    parts = _split(url)
    words = _query(parts)
    user_info, _, host_list = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    notes: list[str] = []
    hosts = _hosts(host_list, words, notes)
    settings, startup_options = _options(words.get("options", ""), notes)
    _refuse_what_cannot_be(words)
    kept = _driver_words(words, notes)
    return Address(
        hosts=hosts,
        user=unquote(user) or words.get("user"),
        database=unquote(parts.path[1:]) or words.get("dbname") or words.get("database"),
        password=unquote(password) or words.get("password"),
        words=kept,
        settings=settings,
        startup_options=startup_options,
        application_name=words.get("application_name") or "atomo-gql",
        connect_timeout=_connect_timeout(words),
        keep_alive=_keep_alive(words),
        uses_system_roots=words.get("sslrootcert") == "system",
        notes=tuple(notes),
    )


def _split(url: str) -> SplitResult:
    scheme = url.partition("://")[0]
    if scheme not in ("postgres", "postgresql") or "://" not in url:
        raise AddressError("must be a URL that begins with postgres:// or postgresql://")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise AddressError(f"cannot be read: {_SIGNS}") from None
    user_info, at, host_list = parts.netloc.rpartition("@")
    # A sign in the password has ended the part with the host too early: the @ before the host comes behind it.
    is_cut = not at and ("@" in parts.path or ("@" in parts.query and re.search(r":\D", host_list)))
    if is_cut or parts.fragment or "@" in user_info or re.search("%(?![0-9A-Fa-f]{2})", parts.netloc):
        raise AddressError(f"cannot be read: {_SIGNS}")
    return parts


def _query(parts: SplitResult) -> dict[str, str]:
    words = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _UNDERSTOOD | _READ | _SILENT | set(_LEFT_OUT) | set(_HARMLESS) | {"gssencmode"}
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, known, 1)
            hint = f"; the nearest that is known is {near[0]}" if near else ""
            raise AddressError(
                f"has an unknown parameter {word[:40]!r}{hint} (a setting of PostgreSQL is given as "
                "options=-c%20name%3Dvalue)"
            )
    return {word: value for word, value in words.items() if value}


def _hosts(host_list: str, words: Mapping[str, str], notes: list[str]) -> tuple[tuple[str, int | None], ...]:
    if host_list:
        found = [_host_and_port(unquote(host)) for host in host_list.split(",")]
    else:
        found = [(host, None) for host in words.get("host", words.get("hostaddr", "")).split(",") if host]
    if "hostaddr" in words and (host_list or "host" in words):
        notes.append("hostaddr is left out: the name of the host is looked up")
    ports = [_port(port) for port in words.get("port", "").split(",") if port]
    if ports and len(ports) not in (1, len(found) or 1):
        raise AddressError("names a different number of ports than of hosts")
    if len(ports) == 1:
        ports *= max(1, len(found))
    if ports and not found:
        found = [("localhost", None)]
    return tuple((host, port or (ports[n] if ports else None)) for n, (host, port) in enumerate(found))


def _host_and_port(text: str) -> tuple[str, int | None]:
    if text.startswith("/"):
        return text, None
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, _port(rest[1:]) if rest.startswith(":") and rest != ":" else None
    host, _, port = text.partition(":")
    return host or "localhost", _port(port) if port else None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65_536):
        raise AddressError(f"has a port that is not a number from 1 to 65535; if it is none, {_SIGNS}")
    return int(text)


def _options(text: str, notes: list[str]) -> tuple[dict[str, str], str]:
    """PostgreSQL's settings (-c name=value, --name=value), and what else there is, for the provider's proxy."""
    settings: dict[str, str] = {}
    rest: list[str] = []
    given = [re.sub(r"\\(.)", r"\1", option) for option in re.findall(r"(?:\\.|\S)+", text)]
    while given:
        option = given.pop(0)
        if option == "-c" and given:
            option += given.pop(0)
        name, is_setting, value = option.removeprefix("-c").removeprefix("--").partition("=")
        if not (is_setting and option.startswith("-")):
            rest.append(option)
        elif name == "search_path":
            notes.append(f"search_path in options is left out: {_SCHEMA}")
        elif re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            settings[name.replace("-", "_")] = value
        else:
            raise AddressError("has options that cannot be read; they are given as -c%20name%3Dvalue")
    return settings, " ".join(rest)


def _refuse_what_cannot_be(words: Mapping[str, str]) -> None:
    if (wanted := words.get("target_session_attrs", "any")) not in _WRITABLE:
        raise AddressError(
            f"says target_session_attrs={wanted[:20]}: the service needs a database that it can write; use read-write"
        )
    if words.get("gssencmode") == "require":
        raise AddressError("says gssencmode=require, which this driver cannot do; use TLS (sslmode=require)")
    if words.get("replication", "false").lower() not in ("false", "off", "no", "0"):
        raise AddressError("says replication, which is of no use here; leave it out")
    mode = words.get("sslmode", "prefer")
    if mode not in (*SSL_MODES, "no-verify"):
        raise AddressError(f"says sslmode={mode[:20]}; it must be one of {', '.join(SSL_MODES)}")
    if words.get("sslrootcert") == "system" and "sslmode" in words and mode != "verify-full":
        raise AddressError("says sslrootcert=system, with which sslmode must be verify-full")
    for word in _FILES:
        if (file := words.get(word)) and file != "system" and not Path(file).is_file():
            raise AddressError(f"names a file that is not there: {word}={file}")
    if mode.startswith("verify") and "sslrootcert" not in words and not _has_own_roots():
        raise AddressError(
            f"says sslmode={mode} without a root certificate: add sslrootcert=system (the system's store), "
            "or sslrootcert=<file>"
        )


def _has_own_roots() -> bool:
    return "PGSSLROOTCERT" in os.environ or (Path.home() / ".postgresql/root.crt").is_file()


def _driver_words(words: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    for word, value in words.items():
        if word in _LEFT_OUT:
            notes.append(f"{word} is left out: {_LEFT_OUT[word]}")
        elif word in _HARMLESS and value.lower() not in _HARMLESS[word][0]:
            notes.append(f"{word}={value[:20]} is left out: {_HARMLESS[word][1]}")
    kept = {word: value for word, value in words.items() if word in _UNDERSTOOD}
    if kept.get("sslmode") == "no-verify" or words.get("requiressl") == "1":
        kept["sslmode"] = "require"
    if "sslmode" not in kept and (ssl := words.get("ssl", "").lower()):
        kept["sslmode"] = "disable" if ssl in ("false", "0", "disable", "off") else "require"
    if kept.get("sslrootcert") == "system":  # made by hand, since the driver takes the word for a file
        kept = {word: value for word, value in kept.items() if word not in ("sslrootcert", "sslmode")}
    return kept


def _number(words: Mapping[str, str], word: str, default: int) -> int:
    try:
        return int(words[word]) if word in words else default
    except ValueError:
        raise AddressError(f"says {word}={words[word][:20]}, which is not a whole number") from None


def _connect_timeout(words: Mapping[str, str]) -> float | None:
    seconds = _number(words, "connect_timeout", 0)
    return float(max(2, seconds)) if seconds > 0 else None  # as libpq has it: none at all, or two at least


def _keep_alive(words: Mapping[str, str]) -> KeepAlive | None:
    if _number(words, "keepalives", 1) == 0:
        return None
    plain = KeepAlive()
    return KeepAlive(
        idle=_number(words, "keepalives_idle", 0) or plain.idle,
        interval=_number(words, "keepalives_interval", 0) or plain.interval,
        count=_number(words, "keepalives_count", 0) or plain.count,
        user_timeout=_number(words, "tcp_user_timeout", 0) / 1_000 or plain.user_timeout,
    )

"""Addresses as providers and libraries write them: understood, left out with a word in the log, or refused with one."""

import re
from pathlib import Path

import pytest

from atomo_gql.address import Address, AddressError, KeepAlive, parse_address
from atomo_gql.settings import SettingsError, load

SECRET = "pw-that-nobody-may-see"


@pytest.mark.parametrize(
    ("url", "hosts", "user", "database"),
    [
        ("postgresql://app:pw@h/d", (("h", None),), "app", "d"),
        ("postgres://app:pw@h:5433/d", (("h", 5433),), "app", "d"),
        ("postgresql://app@a,b:5433/d", (("a", None), ("b", 5433)), "app", "d"),
        ("postgresql://app@[::1]:5433/d", (("::1", 5433),), "app", "d"),
        ("postgresql:///d", (), None, "d"),
        ("postgresql://h", (("h", None),), None, None),
        # Google Cloud SQL, by socket; Heroku; Azure; a list of hosts with one port
        ("postgresql://app:pw@/d?host=/cloudsql/proj:region:name", (("/cloudsql/proj:region:name", None),), "app", "d"),
        ("postgresql://app:pw@%2Fcloudsql%2Fproj:5433/d", (("/cloudsql/proj:5433", None),), "app", "d"),
        ("postgres://u:p@ec2-1.compute.amazonaws.com:5432/dd", (("ec2-1.compute.amazonaws.com", 5432),), "u", "dd"),
        ("postgresql://me%40srv:pw@srv.postgres.database.azure.com/d", (("srv.postgres.database.azure.com", None),),
         "me@srv", "d"),
        ("postgresql://?host=a,b&port=5433&user=app&dbname=d", (("a", 5433), ("b", 5433)), "app", "d"),
        ("postgresql://?hostaddr=10.0.0.1&user=app&dbname=d", (("10.0.0.1", None),), "app", "d"),
    ],
)  # fmt: skip
def test_where_the_database_is(
    url: str, hosts: tuple[tuple[str, int | None], ...], user: str | None, database: str | None
) -> None:
    address = parse_address(url)
    assert (address.hosts, address.user, address.database) == (hosts, user, database)
    assert address.notes == ()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sslmode=require&channel_binding=prefer", {"sslmode": "require"}),
        ("sslmode=no-verify", {"sslmode": "require"}),
        ("ssl=true", {"sslmode": "require"}),
        ("ssl=false", {"sslmode": "disable"}),
        ("requiressl=1", {"sslmode": "require"}),
        ("gssencmode=prefer&load_balance_hosts=disable&client_encoding=utf8", {}),
        ("target_session_attrs=read-write&keepalives=1", {}),
        ("sslmode=verify-full&sslrootcert=system", {}),
        ("service=mine&passfile=/nowhere", {"service": "mine", "passfile": "/nowhere"}),
    ],
)
def test_words_that_are_understood(query: str, words: dict[str, str]) -> None:
    address = parse_address(f"postgresql://app:{SECRET}@h/d?{query}")
    assert dict(address.words) == words
    assert address.notes == ()


@pytest.mark.parametrize(
    ("query", "note"),
    [
        ("sslmode=require&channel_binding=require", "channel_binding=require is left out"),  # Neon
        ("pgbouncer=true&connection_limit=1", "connection_limit is left out: ATOMO_POOL_SIZE"),  # Supabase, Prisma
        ("pgbouncer=true", "pgbouncer is left out"),
        ("schema=public", "schema is left out: the service's schema is always atomo"),  # Prisma
        ("pool_timeout=10", "pool_timeout is left out"),
        ("supa=base-pooler.x", "supa is left out"),  # Supabase by way of Vercel
        ("load_balance_hosts=random", "load_balance_hosts=random is left out: hosts are tried in their order"),
        ("hostaddr=10.0.0.1", "hostaddr is left out"),
        ("options=-csearch_path%3Dpublic", "search_path in options is left out"),
        ("require_auth=scram-sha-256", "require_auth is left out"),
        ("default_query_exec_mode=simple_protocol", "default_query_exec_mode is left out"),  # pgx
        ("client_encoding=latin1", "client_encoding=latin1 is left out: the service speaks UTF8"),
    ],
)
def test_words_that_are_left_out_are_said_to_be(query: str, note: str) -> None:
    notes = parse_address(f"postgresql://app:{SECRET}@h/d?{query}").notes
    assert any(said.startswith(note) for said in notes), notes


def test_what_the_service_does_itself() -> None:
    address = parse_address(
        "postgresql://app@h/d?connect_timeout=1&application_name=shop&keepalives_idle=7&keepalives_interval=8"
        "&keepalives_count=9&tcp_user_timeout=6000&options=-c%20work_mem%3D8MB%20--statement-timeout%3D5s"
    )
    assert address.connect_timeout == 2
    assert address.application_name == "shop"
    assert address.keep_alive == KeepAlive(7, 8, 9, 6.0)
    assert dict(address.settings) == {"work_mem": "8MB", "statement_timeout": "5s"}
    assert parse_address("postgresql://h/d?keepalives=0").keep_alive is None
    assert parse_address("postgresql://h/d?connect_timeout=0").connect_timeout is None


def test_options_for_the_provider_s_proxy_are_passed_on() -> None:
    address = parse_address("postgresql://app@h/d?options=endpoint%3Dep-1%20-c%20work_mem%3D8MB")
    assert (address.startup_options, dict(address.settings)) == ("endpoint=ep-1", {"work_mem": "8MB"})


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("mysql://h/d", "must be a URL that begins with postgres:// or postgresql://"),
        ("postgresql:h/d", "must be a URL that begins with postgres:// or postgresql://"),
        ("jdbc:postgresql://h/d", "must be a URL that begins with"),
        ("postgresql+asyncpg://h/d", "must be a URL that begins with"),
        *((f"postgresql://app:p{sign}w@h/d", "percent-encode signs such as [ # / % @ in its password")
          for sign in ("[", "]", "#", "/", "%", "@", "?", "%zz")),
        ("postgresql://app@h:abc/d", "has a port that is not a number"),
        ("postgresql://app@h:70000/d", "has a port that is not a number"),
        ("postgresql://app@a,b/d?port=1,2,3", "a different number of ports than of hosts"),
        ("postgresql://h/d?sslmod=require", "unknown parameter 'sslmod'; the nearest that is known is sslmode"),
        ("postgresql://h/d?work_mem=8MB", "unknown parameter 'work_mem'"),
        ("postgresql://h/d?sslmode=on", "says sslmode=on; it must be one of disable, allow, prefer, require"),
        ("postgresql://h/d?sslmode=verify-full&sslrootcert=/nowhere/root.crt", "is not there: sslrootcert=/nowhere"),
        ("postgresql://h/d?sslcert=/nowhere/me.crt", "names a file that is not there: sslcert=/nowhere/me.crt"),
        ("postgresql://h/d?sslmode=require&sslrootcert=system", "with which sslmode must be verify-full"),
        ("postgresql://h/d?sslmode=verify-full", "add sslrootcert=system (the system's store)"),
        ("postgresql://h/d?target_session_attrs=standby", "the service needs a database that it can write"),
        ("postgresql://h/d?target_session_attrs=prefer-standby", "use read-write"),
        ("postgresql://h/d?gssencmode=require", "which this driver cannot do"),
        ("postgresql://h/d?replication=database", "says replication"),
        ("postgresql://h/d?connect_timeout=soon", "says connect_timeout=soon, which is not a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_sentence(
    url: str, rule: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    with pytest.raises(AddressError, match=re.escape(rule)) as refused:
        parse_address(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("tail", ["@h/d", "[@h/d", "#@h/d", "/@h/d", "%@h/d", "@h:abc/d", "@h/d?sslmod=x", "?@h/d"])
def test_nobody_ever_reads_the_password(tail: str) -> None:
    try:
        address = parse_address(f"postgresql://app:{SECRET}{tail}")
    except AddressError as refused:
        said = f"{refused} {refused!r}"
        with pytest.raises(SettingsError) as error:
            load({"DATABASE_URL": f"postgresql://app:{SECRET}{tail}", "JWT_SECRET": "s" * 64})
        said += f" {error.value}"
    else:
        said = f"{address} {address.shown} {address.notes}"
        assert isinstance(address, Address)
    assert SECRET not in said

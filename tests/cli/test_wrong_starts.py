"""Wrong starts: each is answered by at most three lines that say what to do, and never by a traceback.

A row is an environment in which the real `atomo-gql serve` is started. What stands in braces is made once, by `places`:
databases, roles and ports as people come by them.
"""

import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.conftest import SECRET, until, with_database

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no signals that end in good order")

_MOST_LINES = 3
_PASSWORD = "p"  # in addresses that are looked through for it, it is a longer one
_WITHIN = 100.0  # seconds, on a machine that is busy with something else


@dataclass(frozen=True)
class Wrong:
    """A wrong start, and the words of the answer: what is wrong, and what to do."""

    name: str
    says: tuple[str, ...]  # all of these
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    limits: Mapping[int, int] = field(default_factory=dict)  # of the system, for this process
    prefix: tuple[str, ...] = ()  # the command runs within this one

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def _database(name: str, url: str, *says: str, **environment: str) -> Wrong:
    return Wrong(name, says, {"DATABASE_URL": url, **environment})


_AS_ROLE = "postgresql://{role}:{password}@{at}"
_OWN = {"DATABASE_URL": ""}  # the embedded one


def _on_disk(size: str, more: str = "") -> tuple[str, ...]:
    """With a disk of that size at {small}, which nobody else sees."""
    script = (
        f'mount -t tmpfs -o mode=755,size={size} none {{small}} && {{ chmod 755 {{small}}{more}; exec "$0" "$@"; }}'
    )
    return "unshare", "--mount", "sh", "-c", script


WRONG = [
    # The database
    _database("wrong password", "postgresql://{role}:WRONG@{at}/{good}", "password authentication failed", "correct"),
    _database("no such user", "postgresql://nobody_{pid}:WRONG@{at}/{good}", "failed for user", "correct the user"),
    _database("no such database", "{super}/nothing_{pid}", 'database "nothing_{pid}" does not exist', "create it"),
    _database("nobody listens", "postgresql://u@127.0.0.1:{free}/d", "nobody listens there", "start PostgreSQL"),
    _database("no such host", "postgresql://u@host.invalid/d", "its host is not known", "correct DATABASE_URL"),
    _database("no such socket", "postgresql:///d?host=/no/such&user=u", "socket", "correct its path"),
    _database("a silent port", "postgresql://u@127.0.0.1:{silent}/d", "does not answer in time", "correct"),
    _database("a port of something else", "postgresql://u@127.0.0.1:{rude}/d", "is PostgreSQL what listens there?"),
    _database("no TLS there", "{super}/{good}?sslmode=require", "it speaks no TLS", "correct host, port or sslmode"),
    _database("the port is no number", "postgresql://u:s3cret@127.0.0.1:abc/d", "DATABASE_URL", "port"),
    _database("a sign in the password", "postgresql://u:s3cret[x@127.0.0.1/d", "DATABASE_URL", "percent-encode"),
    _database("another sign in it", "postgresql://u:s3cret/x@127.0.0.1/d", "DATABASE_URL", "percent-encode"),
    _database("options for a proxy", "{super}/{good}?options=endpoint%3Dx", "endpoint=x", "DATABASE_URL"),
    _database("LATIN1", "{super}/{latin1}", "LATIN1, and must be UTF8", "createdb -E UTF8"),
    _database("SQL_ASCII", "{super}/{ascii}", "SQL_ASCII, and must be UTF8", "createdb -E UTF8"),
    _database("read-only", "{super}/{readonly}", "read-only", "name the primary"),
    _database("no right to create", _AS_ROLE + "/{good}", "permission denied", "GRANT CREATE"),
    _database("no right to connect", _AS_ROLE + "/{closed}", "permission", "GRANT CONNECT"),
    _database("no connection left", "postgresql://{limited}:{password}@{at}/{good}", "too many conn", "max_conn"),
    _database("a schema of somebody else", "{super}/{foreign}", "did not make", "use another database"),
    _database("wrong password with workers", "postgresql://{role}:WRONG@{at}/{good}", "correct", ATOMO_WORKERS="2"),
    _database("wrong password as JSON", "postgresql://{role}:WRONG@{at}/{good}", "correct", ATOMO_ENV="production"),
    # Settings
    Wrong("settings of a wrong kind", ("PORT must be", "from 0 to 65535"), {"PORT": "eighty"}),
    Wrong("production without a database", ("DATABASE_URL is required", "ATOMO_EMBEDDED=true"),
          {**_OWN, "ATOMO_ENV": "production"}),
    Wrong("production without a secret", ("JWT_SECRET (or ATOMO_JWT_JWKS_URL) is required",),
          {"ATOMO_ENV": "production", "JWT_SECRET": ""}),
    Wrong("a file that is not there", ("DATABASE_URL_FILE names /no/such", "No such file"),
          {**_OWN, "DATABASE_URL_FILE": "/no/such"}),
    Wrong("a setting given twice", ("JWT_SECRET and JWT_SECRET_FILE are both set", "unset one"),
          {"JWT_SECRET_FILE": "/no/such"}),
    Wrong("a broken file of workflows", ("broken.json: line 1, column 2",), {"ATOMO_WORKFLOWS_DIR": "{broken}"}),
    # Redis
    Wrong("Redis with a wrong port", ("ATOMO_BROADCAST_URL must have a whole number",),
          {"ATOMO_BROADCAST_URL": "redis://h:x/0"}),
    Wrong("memory for many", ("ATOMO_BROADCAST_URL memory:// is for one process",),
          {"ATOMO_BROADCAST_URL": "memory://"}, ("--workers", "2")),
    # Ports
    Wrong("a port that is taken", ("PORT {taken} cannot be listened on", "set PORT to another one"),
          {"PORT": "{taken}"}),
    Wrong("an address of another machine", ("HOST 192.0.2.1 PORT", "set HOST to an address of this machine"),
          {"HOST": "192.0.2.1"}),
    Wrong("a host that is no name", ("cannot be listened on", "no name of a host"), {"HOST": "ü" * 70}),
    # Disk, rights and limits
    Wrong("a file in the place of the data folder", ("ATOMO_DATA_DIR {broken}/broken.json",),
          {**_OWN, "JWT_SECRET": "", "ATOMO_DATA_DIR": "{broken}/broken.json"}),
    Wrong("a data folder that cannot be made", ("ATOMO_DATA_DIR",), {**_OWN, "ATOMO_DATA_DIR": "/sys/atomo"}),
    Wrong("few open files", ("needs 80 open files, and this process may have 16", "ulimit -n"),
          limits={resource.RLIMIT_NOFILE: 16}),
    Wrong("no room for the secret", ("ATOMO_DATA_DIR {small} cannot be used: No space left", "another folder"),
          {**_OWN, "JWT_SECRET": "", "ATOMO_DATA_DIR": "{small}"}, prefix=_on_disk("4k", "; cat /dev/zero >{small}/x")),
    Wrong("no room for the database", ("is full", "free some space"), {**_OWN, "ATOMO_DATA_DIR": "{small}/data"},
          prefix=_on_disk("9m")),
]  # fmt: skip


@pytest.fixture(scope="module")
async def places(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    """What the rows name in braces."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "broken").mkdir()
    (folder / "broken" / "broken.json").write_text("{]")
    pid = os.getpid()
    parts = urlsplit(cluster)
    names = {
        name: f"wrong_{name}_{pid}" for name in ("good", "latin1", "ascii", "readonly", "closed", "foreign", "lent")
    }
    low, limited = f"wrong_low_{pid}", f"wrong_limited_{pid}"
    async with contextlib.AsyncExitStack() as stack:
        small = stack.enter_context(tempfile.TemporaryDirectory())  # where PostgreSQL's own user can get at it
        Path(small).chmod(0o755)
        sql = await asyncpg.connect(cluster)
        stack.push_async_callback(sql.close)
        for role, more in ((low, ""), (limited, "CONNECTION LIMIT 0")):
            await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{_PASSWORD}' {more}")
        for name, database in names.items():
            encoding = {"latin1": "LATIN1", "ascii": "SQL_ASCII"}.get(name, "UTF8")
            await sql.execute(f"CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        await sql.execute(f"ALTER DATABASE {names['readonly']} SET default_transaction_read_only = on")
        await sql.execute(f"REVOKE ALL ON DATABASE {names['closed']} FROM PUBLIC")
        foreign = await asyncpg.connect(with_database(cluster, names["foreign"]))
        await foreign.execute("CREATE SCHEMA atomo; CREATE TABLE atomo.theirs (id integer)")
        await foreign.close()
        lent = await asyncpg.connect(with_database(cluster, names["lent"]))
        await lent.execute(f"CREATE SCHEMA atomo AUTHORIZATION {low}")
        await lent.close()
        silent, taken, free = (stack.enter_context(socket.socket()) for _ in range(3))
        for listening in (silent, taken, free):
            listening.bind(("127.0.0.1", 0))
        silent.listen()  # and accepts nobody
        taken.listen()
        rude = await stack.enter_async_context(
            await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        )
        yield {
            **names,
            "pid": str(pid),
            "super": urlunsplit(parts._replace(path="", query="")),
            "at": parts.netloc.rpartition("@")[2],
            "role": low,
            "limited": limited,
            "password": _PASSWORD,
            "broken": str(folder / "broken"),
            "small": small,
            "silent": str(silent.getsockname()[1]),
            "taken": str(taken.getsockname()[1]),
            "free": str(free.getsockname()[1]),
            "rude": str(rude.sockets[0].getsockname()[1]),
        }
        for database in names.values():
            await sql.execute(f"DROP DATABASE {database} WITH (FORCE)")
        for role in (low, limited):
            await sql.execute(f"DROP ROLE {role}")


def _filled(text: str, places: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: places[match[1]], text)


class Start:
    """A start of `atomo-gql serve`, and what it wrote on standard error."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    def wrote(self) -> str:
        """So far."""
        return self._log.read_text()

    async def says(self, text: str) -> None:
        """Wait for it."""

        async def is_said() -> bool:
            assert self.process.returncode is None, self.wrote()
            return text in self.wrote()

        await until(is_said, within=_WITHIN)


@contextlib.asynccontextmanager
async def starting(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str],
    limits: Mapping[int, int] | None = None,
    prefix: tuple[str, ...] = (),
) -> AsyncIterator[Start]:
    """The command, begun in an environment that has nothing else in it."""

    def limit() -> None:
        for kind, most in (limits or {}).items():
            resource.setrlimit(kind, (most, most))

    base = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "JWT_SECRET": SECRET,
        "ATOMO_DATA_DIR": str(folder / "data"),
        "PORT": "0",
    }
    log = folder / "stderr"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", "atomo_gql", "serve", *arguments),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=out,
            cwd=folder,
            env={**base, **environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            preexec_fn=limit if limits else None,
        )
    try:
        yield Start(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_a_wrong_start_is_answered_by_what_to_do(wrong: Wrong, places: dict[str, str], tmp_path: Path) -> None:
    if wrong.prefix and (os.geteuid() != 0 or not shutil.which(wrong.prefix[0])):
        pytest.skip("only root can mount")
    given = {"DATABASE_URL": "{super}/{good}", **wrong.environment}
    environment = {name: _filled(value, places) for name, value in given.items()}
    prefix = tuple(_filled(word, places) for word in wrong.prefix)
    async with (
        starting(tmp_path, *wrong.arguments, environment=environment, limits=wrong.limits, prefix=prefix) as start,
        asyncio.timeout(_WITHIN),
    ):
        status = await start.process.wait()

    answer = start.wrote()
    assert status == 1, answer
    assert "Traceback" not in answer
    assert len(answer.splitlines()) <= _MOST_LINES, answer
    for words in wrong.says:
        assert _filled(words, places) in answer
    assert "s3cret" not in answer, "a part of a password"
    if environment.get("ATOMO_ENV") == "production":
        assert all(json.loads(line) for line in answer.splitlines())


RIGHT = [
    ("Redis is away", {"ATOMO_BROADCAST_URL": "redis://127.0.0.1:{free}"}, "Redis (ATOMO_BROADCAST_URL) is away"),
    (
        "a name that is none",
        {"ATOMO_JWKS_URL": "x"},
        "ATOMO_JWKS_URL is no setting and changes nothing; ATOMO_JWT_JWKS",
    ),
    ("a schema made for a role of few rights", {"DATABASE_URL": _AS_ROLE + "/{lent}"}, "made schema atomo"),
    ("embedded, asked for", {"DATABASE_URL": "", "ATOMO_ENV": "production", "ATOMO_EMBEDDED": "true"}, "embedded Post"),
]


@pytest.mark.parametrize(("environment", "says"), [row[1:] for row in RIGHT], ids=[row[0] for row in RIGHT])
async def test_what_looks_wrong_and_can_be_borne_starts_and_says_so(
    environment: dict[str, str], says: str, places: dict[str, str], dsn: str, tmp_path: Path
) -> None:
    filled = {name: _filled(value, places) for name, value in environment.items()}
    async with starting(tmp_path, environment={"DATABASE_URL": dsn, **filled}) as start:
        await start.says("listening on")
        start.process.send_signal(signal.SIGTERM)
        assert await start.process.wait() == 0
    assert says in start.wrote()
    assert "Traceback" not in start.wrote()


async def test_the_first_line_says_version_schema_and_database(dsn: str, tmp_path: Path) -> None:
    async with starting(tmp_path, environment={"DATABASE_URL": dsn}) as start:
        await start.says("\n")
    first = start.wrote().splitlines()[0]
    parts = urlsplit(dsn)
    assert re.search(r"atomo-gql \d+\.\d+\S*, schema \d+, database: ", first)
    assert parts.netloc.rpartition("@")[2] in first
    assert parts.path[1:] in first
    assert parts.password is None or parts.password not in first


async def test_of_two_that_begin_at_once_on_one_port_one_serves_and_the_other_says_why(
    dsn: str, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"DATABASE_URL": dsn, "PORT": str(port)}
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    async with (
        starting(folders[0], environment=environment) as one,
        starting(folders[1], environment=environment) as other,
        asyncio.timeout(_WITHIN),
    ):
        ends = {asyncio.create_task(start.process.wait()): start for start in (one, other)}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        loser = ends[next(iter(done))]
        winner = other if loser is one else one
        await winner.says("listening on")
        winner.process.terminate()
        await winner.process.wait()
    assert f"PORT {port} cannot be listened on" in loser.wrote()
    assert "Traceback" not in loser.wrote()
    assert len(loser.wrote().splitlines()) <= _MOST_LINES

"""Settings are read once, checked, and explained when wrong; and each is documented."""

import re
from pathlib import Path

import pytest

from atomo_gql.environment import CLIENT_VARIABLES
from atomo_gql.settings import VARIABLES, Settings, SettingsError, load, read, unknown_variables

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("PORT", "eighty", "PORT must be a whole number from 0 to 65535"),
        ("PORT", "65536", "PORT must be a whole number from 0 to 65535"),
        ("ATOMO_WORKERS", "0", "ATOMO_WORKERS must be a whole number from 1 to 256"),
        ("ATOMO_ENV", "prod", "ATOMO_ENV must be one of development, test, production"),
        ("JWT_SECRET", "short", "JWT_SECRET must have at least 32 bytes"),
        ("DATABASE_URL", "mysql://x", "DATABASE_URL must be a URL that begins with postgres:// or postgresql://"),
        ("ATOMO_BROADCAST_URL", "kafka://x", "ATOMO_BROADCAST_URL must be a URL that begins with redis://"),
        ("ATOMO_JOB_RECLAIM_INTERVAL", "0", "ATOMO_JOB_RECLAIM_INTERVAL must be a number from 0.05 to 3600"),
        ("ATOMO_JOB_RECLAIM_INTERVAL", "nan", "ATOMO_JOB_RECLAIM_INTERVAL must be a number"),
        ("ATOMO_RETENTION_DEAD_DAYS", "-1", "ATOMO_RETENTION_DEAD_DAYS must be a number from 0.01"),
        ("ATOMO_LOG_LEVEL", "loud", "ATOMO_LOG_LEVEL must be one of debug, info, warning, error"),
        ("ATOMO_EMBEDDED", "maybe", "ATOMO_EMBEDDED must be true or false"),
        ("ATOMO_BROADCAST_URL", "redis://h:port/0", "ATOMO_BROADCAST_URL must have a whole number from 0 to 65535"),
        ("ATOMO_BROADCAST_URL", "redis://:p/w@h", "ATOMO_BROADCAST_URL must have a whole number from 0 to 65535"),
        ("ATOMO_WORKFLOWS_DIR", "/no/such", "ATOMO_WORKFLOWS_DIR must be a folder; there is none at /no/such"),
        (
            "ATOMO_WORKFLOWS_DIR",
            "~nobody-of-that-name/w",
            "ATOMO_WORKFLOWS_DIR is ~nobody-of-that-name/w, and there is",
        ),
        ("JWT_SECRET", "\udcff" * 40, "JWT_SECRET must be UTF-8 text"),
    ],
)
def test_a_wrong_setting_is_named_with_its_rule(tmp_path: Path, name: str, value: str, rule: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(rule)):
        load({"ATOMO_DATA_DIR": str(tmp_path), name: value})
    assert list(tmp_path.iterdir()) == []


def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        load({"ATOMO_DATA_DIR": str(tmp_path), "PORT": "x", "ATOMO_ENV": "y"})
    assert str(error.value).count("\n") == 1


def test_production_makes_no_secret_up(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is required when ATOMO_ENV is production"):
        load({"ATOMO_DATA_DIR": str(tmp_path), "ATOMO_ENV": "production"})
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_is_missing_is_made_once_and_kept(tmp_path: Path) -> None:
    first = load({"ATOMO_DATA_DIR": str(tmp_path)}).jwt_secret

    assert len(first) >= 32
    assert load({"ATOMO_DATA_DIR": str(tmp_path)}).jwt_secret == first
    assert (tmp_path / "jwt_secret").stat().st_mode & 0o077 == 0


def test_each_setting_has_its_line_in_the_docs() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
    assert documented == set(VARIABLES)


# A text that each variable takes. A new variable needs its line here.
EXAMPLES = {
    "DATABASE_URL": "postgresql://app:pw@db.example/app",
    "ATOMO_LISTEN_URL": "postgresql://app:pw@direct.example/app",
    "ATOMO_EMBEDDED": "false",
    "ATOMO_DATA_DIR": "/var/lib/atomo",
    "HOST": "0.0.0.0",
    "PORT": "3001",
    "ATOMO_WORKERS": "2",
    "ATOMO_ENV": "production",
    "JWT_SECRET": "x" * 32,
    "ATOMO_JWT_JWKS_URL": "https://issuer.example/keys",
    "ATOMO_JWT_ISSUER": "issuer",
    "ATOMO_JWT_AUDIENCE": "audience",
    "ATOMO_BROADCAST_URL": "redis://:pw@redis.example:6379/1",
    "ATOMO_JOB_RECLAIM_INTERVAL": "5",
    "ATOMO_RETENTION_SUCCEEDED_DAYS": "1",
    "ATOMO_RETENTION_DEAD_DAYS": "2",
    "ATOMO_RETENTION_EVENTS_DAYS": "3",
    "ATOMO_WORKFLOWS_DIR": "/",
    "ATOMO_ACTIONS_DIR": "/",
    "ATOMO_MAX_BODY_BYTES": "2048",
    "ATOMO_MAX_BATCH_BYTES": "4096",
    "ATOMO_MAX_SUBSCRIPTIONS": "10",
    "ATOMO_SPARE_DELIVERIES": "11",
    "ATOMO_MAX_WAITING": "12",
    "ATOMO_MAX_CONNECTIONS": "13",
    "ATOMO_POOL_SIZE": "14",
    "ATOMO_ALLOWED_ORIGINS": "https://app.example",
    "ATOMO_LOG_LEVEL": "warning",
    "ATOMO_LOG_FORMAT": "json",
}


def test_there_is_an_example_of_each_setting_and_it_is_not_the_default() -> None:
    assert set(EXAMPLES) == set(VARIABLES)
    for name, example in EXAMPLES.items():
        settings, wrong = read({name: example})
        attribute = VARIABLES[name][0]
        assert not [line for line in wrong if line.startswith(name)]
        assert getattr(settings, attribute) != getattr(Settings(), attribute)


@pytest.mark.parametrize("name", VARIABLES)
def test_each_setting_also_comes_from_a_file_by_one_law(tmp_path: Path, name: str) -> None:
    file = tmp_path / "value"
    attribute = VARIABLES[name][0]
    by_file = {f"{name}_FILE": str(file)}

    _, [unreadable, *_] = read(by_file)
    assert unreadable == f"{name}_FILE names {file}, which cannot be read: No such file or directory"
    file.write_text("\n")
    assert f"{name}_FILE names {file}, which is empty" in read(by_file)[1][0]
    file.write_text(EXAMPLES[name] + "\r\n")
    assert getattr(read(by_file)[0], attribute) == getattr(read({name: EXAMPLES[name]})[0], attribute)
    assert read(by_file)[1] == read({name: EXAMPLES[name]})[1]
    _, [both, *_] = read({**by_file, name: EXAMPLES[name]})
    assert both == f"{name} and {name}_FILE are both set: unset one of them"
    assert getattr(read({**by_file, name: ""})[0], attribute) == getattr(read(by_file)[0], attribute)


def test_a_wrong_value_of_a_file_is_told_as_any_other(tmp_path: Path) -> None:
    file = tmp_path / "port"
    file.write_text("eighty\n")
    assert read({"PORT_FILE": str(file)})[1] == ["PORT must be a whole number from 0 to 65535"]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"\xff\xfe", "must be UTF-8 text"),
        (b"a\0b", "must be text without NUL"),
        (b"x" * 70_000, "has more than 64 KiB"),
    ],
)
def test_a_file_that_holds_no_value_is_named(tmp_path: Path, content: bytes, rule: str) -> None:
    file = tmp_path / "value"
    file.write_bytes(content)
    _, [line] = read({"HOST_FILE": str(file)})
    assert line.startswith(f"HOST_FILE names {file}, which ")
    assert rule in line


def test_a_folder_in_the_place_of_a_file_and_a_device_without_end_are_told(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in read({"HOST_FILE": str(tmp_path)})[1][0]
    assert "has more than 64 KiB" in read({"HOST_FILE": "/dev/zero"})[1][0]


@pytest.mark.parametrize("name", ["ATOMO_DATA_DIR", "ATOMO_WORKFLOWS_DIR", "ATOMO_ACTIONS_DIR", "JWT_SECRET_FILE"])
def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    (tmp_path / "secret").write_text("s" * 32)
    settings, wrong = read({name: "~/secret" if name == "JWT_SECRET_FILE" else "~/here"})
    assert wrong == []
    expected = "s" * 32 if name == "JWT_SECRET_FILE" else tmp_path / "here"
    assert expected in vars(settings).values()


def test_production_has_no_embedded_database_that_nobody_asked_for(tmp_path: Path) -> None:
    production = {"ATOMO_ENV": "production", "JWT_SECRET": "x" * 32, "ATOMO_DATA_DIR": str(tmp_path)}
    with pytest.raises(SettingsError, match="DATABASE_URL is required when ATOMO_ENV is production"):
        load(production, needs_database=True)
    with pytest.raises(SettingsError, match="DATABASE_URL is required when ATOMO_EMBEDDED is false"):
        load({"ATOMO_DATA_DIR": str(tmp_path), "ATOMO_EMBEDDED": "false"}, needs_database=True)
    with pytest.raises(SettingsError, match="ATOMO_EMBEDDED is true and DATABASE_URL is set"):
        load({**production, "ATOMO_EMBEDDED": "true", "DATABASE_URL": "postgres://h/d"}, needs_database=True)
    assert list(tmp_path.iterdir()) == []

    assert load({**production, "ATOMO_EMBEDDED": "true"}, needs_database=True).database_url is None
    assert load({**production, "DATABASE_URL": "postgres://h/d"}, needs_database=True).database_url
    assert load(production).jwt_secret, "whoever needs no database, such as `atomo-gql token`, need not name one"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ATOMO_JWKS_URL", "ATOMO_JWT_JWKS_URL"),
        ("ATOMO_RETENTION_DAYS", "ATOMO_RETENTION_DEAD_DAYS"),
        ("ATOMO_DATABASE_URL", "DATABASE_URL"),
        ("ATOMO_JWT_SECRET_FILE", "JWT_SECRET_FILE"),
        ("ATOMO_PORT", "PORT"),
        ("atomo_workers", "ATOMO_WORKERS"),
        ("ATOMO_POOLSIZE", "ATOMO_POOL_SIZE"),
    ],
)
def test_an_unknown_name_is_pointed_out_with_the_nearest_known_one(name: str, meant: str) -> None:
    assert unknown_variables({name: "3001"}) == [f"{name} is no setting and changes nothing; {meant} may be meant"]


def test_an_unknown_name_like_no_other_is_pointed_out_alone() -> None:
    assert unknown_variables({"ATOMO_XYZZY_PLUGH": "1"}) == ["ATOMO_XYZZY_PLUGH is no setting and changes nothing"]


def test_known_names_of_others_are_not_pointed_out() -> None:
    kubernetes = {
        "ATOMO_SERVICE_HOST": "10.0.0.1",
        "ATOMO_SERVICE_PORT": "3000",
        "ATOMO_SERVICE_PORT_HTTP": "3000",
        "ATOMO_PORT": "tcp://10.0.0.1:3000",
        "ATOMO_PORT_3000_TCP": "tcp://10.0.0.1:3000",
        "ATOMO_PORT_3000_TCP_ADDR": "10.0.0.1",
        "ATOMO_GQL_PORT": "tcp://10.0.0.1:3000",
        "ATOMO_GQL_SERVICE_HOST": "10.0.0.1",
    }
    own = dict.fromkeys((*VARIABLES, *(f"{name}_FILE" for name in VARIABLES), *CLIENT_VARIABLES), "x")
    assert unknown_variables({**kubernetes, **own, "PATH": "/bin"}) == []


def test_each_name_that_the_package_reads_is_known() -> None:
    sources = (ROOT / "atomo_gql").rglob("*.py")
    named = {name for file in sources for name in re.findall(r"[\"'](ATOMO_[A-Z_]+)[\"']", file.read_text())}
    assert named - {"ATOMO_"} <= {*VARIABLES, *CLIENT_VARIABLES}

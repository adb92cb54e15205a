"""Settings are read once, checked, and explained when wrong; and each is documented."""

import re
from pathlib import Path

import pytest

from atomo_gql.settings import VARIABLES, SettingsError, load

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

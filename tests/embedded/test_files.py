"""The small files beside the cluster."""

import stat
from pathlib import Path

import pytest

from atomo_gql.embedded.files import open_log, read_since, write_private
from atomo_gql.embedded.leftovers import PidFile, read_pid_file
from atomo_gql.embedded.lock import FileLock

PID_FILE = "4711\n/data/postgres\n1700000000\n23456\n\n127.0.0.1\n  8826964     65536\n"


def test_a_private_file_is_written_whole_and_for_its_owner_alone(place: Path) -> None:
    path = place / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(place.iterdir()) == [path]


def test_a_large_log_is_put_aside_at_the_start_and_a_small_one_goes_on(place: Path) -> None:
    path = place / "log"
    path.write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    for word in (b"one ", b"two"):
        with open_log(path) as log:
            log.write(word)
    assert path.read_text() == "one two"
    assert (place / "log.1").stat().st_size > 10 * 1024 * 1024


def test_only_the_end_of_what_is_new_in_a_log_is_read(place: Path) -> None:
    path = place / "log"
    path.write_text("old new")
    assert read_since(path, 4) == "new"
    assert read_since(path, 0, limit=2) == "ew"
    assert read_since(place / "none", 0) == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PID_FILE + "ready   \n", PidFile(4711, 23456, True)),
        (PID_FILE + "starting\n", PidFile(4711, 23456, False)),
        (PID_FILE, PidFile(4711, 23456, False)),
        ("4711\n/data", None),
        ("garbage", None),
        ("", None),
    ],
)
def test_a_pid_file_is_read_whatever_its_state(place: Path, text: str, found: PidFile | None) -> None:
    (place / "postmaster.pid").write_text(text)
    assert read_pid_file(place) == found


def test_a_lock_has_one_holder_at_a_time(place: Path) -> None:
    one, two = FileLock(place / "lock"), FileLock(place / "lock")
    assert one.acquire()
    assert one.acquire()
    assert not two.acquire()
    one.release()
    assert two.acquire()
    assert not one.held
    two.release()

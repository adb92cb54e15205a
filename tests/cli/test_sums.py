"""The metrics of several processes are told while one of them begins or ends."""

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from atomo_gql.service.metrics import Sums


def test_a_process_that_has_just_made_its_file_is_no_error(tmp_path: Path) -> None:
    full = MmapedDict(str(tmp_path / "counter_1.db"))  # type: ignore[no-untyped-call]
    key = mmap_key("jobs", "jobs_total", [], [], "Jobs")
    full.write_value(key, 3.0, 0.0)  # type: ignore[no-untyped-call]
    full.close()  # type: ignore[no-untyped-call]
    (tmp_path / "counter_2.db").touch()  # as it is for a moment, before anything is in it
    (tmp_path / "gauge_livesum_2.db").symlink_to(tmp_path / "gone")  # as one that is deleted after it was listed
    registry = CollectorRegistry()
    Sums(registry, str(tmp_path))

    assert b"jobs_total 3.0" in generate_latest(registry)

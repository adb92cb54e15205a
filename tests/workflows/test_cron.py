"""Each tick of a schedule is one instant, whatever the clocks do."""

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.service.workflows.cron import Cron

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    """A moment in UTC, as in 2026-03-29 01:00."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def day(cron: str, zone: str, date: str) -> str:
    """The ticks of one local day, as UTC times."""
    start = datetime.fromisoformat(date).replace(tzinfo=ZoneInfo(zone))
    end = start + timedelta(days=1)
    ticks = Cron.parse(cron, zone).ticks(
        start.astimezone(UTC) - timedelta(seconds=1), end.astimezone(UTC) - timedelta(seconds=1), 1_000
    )
    return " ".join(f"{tick:%H:%M}" for tick in ticks)


@pytest.mark.parametrize(
    ("cron", "zone", "date", "ticks"),
    [
        # Spring: Berlin goes from 02:00 to 03:00 at 01:00 UTC, New York at 07:00 UTC.
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", "01:00"),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-29", "01:00"),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-29", "01:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-03-29", "01:00"),
        ("30 1-3 * * *", "Europe/Berlin", "2026-03-29", "00:30 01:00 01:30"),
        ("30 2 * * *", "America/New_York", "2026-03-08", "07:00"),
        ("*/30 1-3 * * *", "Europe/Berlin", "2026-03-29", "00:00 00:30 01:00 01:30"),
        ("*/15 2 * * *", "Europe/Berlin", "2026-03-29", ""),
        # Autumn: Berlin goes from 03:00 back to 02:00 at 01:00 UTC, New York from 02:00 back to 01:00 at 06:00 UTC.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", "00:30"),
        ("0 2,3 * * *", "Europe/Berlin", "2026-10-25", "00:00 02:00"),
        ("30 1 * * *", "America/New_York", "2026-11-01", "05:30"),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-25", "00:00 00:30 01:00 01:30"),
        # Half an hour in Lord Howe, midnight itself in Beirut and Havana.
        ("*/15 2 * * *", "Australia/Lord_Howe", "2026-04-05", "15:30 15:45 16:00 16:15"),
        ("*/15 1 * * *", "Australia/Lord_Howe", "2026-04-05", "14:00 14:15 14:30 14:45 15:00 15:15"),
        ("0 0 * * *", "Asia/Beirut", "2026-03-29", "22:00"),
        ("*/30 0 * * *", "Asia/Beirut", "2026-03-29", ""),
        ("0 0 * * *", "America/Havana", "2026-11-01", "04:00"),
    ],
)  # fmt: skip
def test_a_fixed_time_ticks_once_and_a_wildcard_follows_the_wall_clock(
    cron: str, zone: str, date: str, ticks: str
) -> None:
    assert day(cron, zone, date) == ticks


def test_a_skipped_day_ticks_when_the_next_one_begins() -> None:
    cron = Cron.parse("0 12 * * *", "Pacific/Apia")
    assert cron.ticks(at("2011-12-29 00:00"), at("2011-12-31 00:00"), 9) == [
        at("2011-12-29 22:00"),  # noon of the 29th; then the clocks go from the end of the 29th to the 31st
        at("2011-12-30 10:00"),
        at("2011-12-30 22:00"),
    ]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("month", ["2026-03", "2026-10"])
def test_every_quarter_of_an_hour_stays_so_when_the_clocks_change(zone: str, month: str) -> None:
    start = at(f"{month}-01 00:00")
    ticks = Cron.parse("*/15 * * * *", zone).ticks(start, start + timedelta(days=31), 100_000)
    assert ticks == [start + n * 15 * MINUTE for n in range(1, 31 * 96 + 1)]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Beirut", "Africa/Casablanca"])
def test_a_daily_job_ticks_once_on_each_day_of_ten_years(zone: str) -> None:
    cron = Cron.parse("30 2 * * *", zone)
    ticks = cron.ticks(at("2020-01-01 12:00"), at("2030-01-01 12:00"), 10_000)
    days = [tick.astimezone(ZoneInfo(zone)).date() for tick in ticks]
    assert days == [datetime(2020, 1, 2).date() + timedelta(days=n) for n in range(3653)]


numbers = st.sampled_from(["*", "0", "30", "*/20", "5,50", "10-40/15"])
hours = st.sampled_from(["*", "0", "1", "2", "3", "1-3", "*/2", "0,23", "2-3", "*/7"])
days = st.sampled_from(["*", "29", "*/5", "L"])
crons = st.builds("{} {} {} * {}".format, numbers, hours, days, st.sampled_from(["*", "SUN", "1-5"]))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut"])
moments = st.one_of(
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),
    st.builds(  # near a change of the clocks
        lambda change, hours: change + timedelta(hours=hours),
        st.sampled_from([datetime(2026, 3, 29), datetime(2026, 10, 25), datetime(2026, 3, 8), datetime(2026, 4, 5)]),
        st.floats(-30, 30),
    ),
).map(lambda moment: moment.replace(tzinfo=UTC))


@given(crons, zones, moments)
def test_ticks_strictly_increase_and_none_lies_between_two(cron: str, zone: str, moment: datetime) -> None:
    schedule = Cron.parse(cron, zone)
    ticks = schedule.ticks(moment, moment + timedelta(days=4), 40)
    assert all(early < late for early, late in zip([moment, *ticks], ticks, strict=False))
    assert all(tick.tzinfo is UTC and tick.second == tick.microsecond == 0 for tick in ticks)
    for early, late in zip([moment, *ticks], ticks, strict=False):
        assert schedule.next_after(early + (late - early) / 2) == late
        assert schedule.next_after(late - timedelta(microseconds=1)) == late


@given(numbers, hours, zones, moments)
def test_a_wildcard_ticks_at_each_minute_whose_wall_time_matches(
    number: str, hour: str, zone: str, moment: datetime
) -> None:
    utc, schedule = Cron.parse(f"{number} {hour} * * *"), Cron.parse(f"{number} {hour} * * *", zone)
    if not number.startswith("*") and not hour.startswith("*"):
        return
    start = moment.replace(second=0, microsecond=0)
    minutes = [start + n * MINUTE for n in range(1, 12 * 60 + 1)]
    walls = [minute.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC) for minute in minutes]
    told = [minute for minute, wall in zip(minutes, walls, strict=True) if utc.next_after(wall - MINUTE) == wall]
    assert schedule.ticks(start, minutes[-1], 1_000) == told


@given(crons, zones, moments, st.timedeltas(timedelta(0), timedelta(days=12)))
def test_the_latest_is_the_last_of_the_ticks(cron: str, zone: str, moment: datetime, length: timedelta) -> None:
    schedule = Cron.parse(cron, zone)
    ticks = schedule.ticks(moment, moment + length, 20_000)
    assert schedule.latest(moment, moment + length) == (ticks[-1] if ticks else None)


@pytest.mark.parametrize(
    ("cron", "newest"),
    [
        ("* * * * *", "2030-06-01 00:00"),
        ("* * * 1 *", "2030-01-31 23:59"),
        ("* * 29 2 */7", "2004-02-29 23:59"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 9 1 1 *", "2030-01-01 09:00"),
    ],
)
def test_the_latest_of_thirty_years_is_found_at_once(cron: str, newest: str) -> None:
    schedule = Cron.parse(cron)
    begun = time.process_time()
    assert schedule.latest(at("2000-01-01 00:00"), at("2030-06-01 00:00")) == at(newest)
    assert time.process_time() - begun < 1  # second; walking the minutes takes minutes


def test_both_ends_of_a_span_are_told_apart() -> None:
    cron = Cron.parse("@hourly")
    one, two = at("2026-01-01 01:00"), at("2026-01-01 02:00")
    assert cron.ticks(one, two, 9) == [two]
    assert cron.latest(one, two) == two
    assert cron.latest(one, two - timedelta(microseconds=1)) is None
    assert cron.latest(two, one) is None
    assert cron.ticks(one, at("2027-01-01 00:00"), 2) == [two, at("2026-01-01 03:00")]
    assert cron.ticks(one, two, 0) == []


@pytest.mark.parametrize(
    ("nickname", "cron"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@MIDNIGHT", "0 0 * * *"),
        (" @weekly ", "0 0 * * 7"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 JAN *"),
        ("@annually", "0\t0 1  1 *"),
    ],
)
def test_a_nickname_is_short_for_five_fields(nickname: str, cron: str) -> None:
    start, end = at("2025-12-30 00:00"), at("2027-02-01 00:00")
    short, long = (Cron.parse(text, "Europe/Berlin").ticks(start, end, 10_000) for text in (nickname, cron))
    assert short == long
    assert short


@pytest.mark.parametrize(
    ("cron", "rule"),
    [
        ("", "must have five fields (minute, hour, day of month, month, day of week), not 0"),
        ("* * * *", "must have five fields (minute, hour, day of month, month, day of week), not 4"),
        ("0 * * * * *", "must have five fields; six would begin with seconds"),
        ("61 * * * *", '"61" is no minute; it must be from 0 to 59'),
        ("* 24 * * *", '"24" is no hour; it must be from 0 to 23'),
        ("* * 0 * *", '"0" is no day of month'),
        ("* * * MAI *", '"MAI" is no month; it must be from 1 to 12, or JAN to DEC'),
        ("* * * * 8", '"8" is no day of week; it must be from 0 to 7, or SUN to SAT'),
        ("5-1 * * * *", '"5-1" is no minute'),
        ("*/0 * * * *", '"*/0" is no minute'),
        ("1,,2 * * * *", '"1,,2" is no minute'),
        ("@reboot", "may be one of @hourly, @daily"),
        ("0 0 30 2 *", '"30" is no day of month; it must be from 1 to 31 and a day that one of the months has'),
        ("0 0 */31 * MON#5", 'never ticks: no day is what "0 0 */31 * MON#5" asks for'),
        ("\x00 * * * *", "must not contain a NUL character"),
        ("1," * 250 + "1 * * * *", "must have at most 500 characters"),
    ],
)
def test_an_expression_that_cron_does_not_know_is_refused(cron: str, rule: str) -> None:
    with pytest.raises(BadUserInput) as error:
        Cron.parse(cron, prefix="trigger.Schedule.")
    assert error.value.field == "trigger.Schedule.cron"
    assert error.value.detail.startswith("trigger.Schedule.cron")
    assert rule in error.value.detail


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Mars/Olympus",
        "Europe",
        "../Europe/Berlin",
        "/etc/localtime",
        "localtime",
        "right/UTC",
        "zone.tab",
        "a" * 99,
    ],
)
def test_an_unknown_time_zone_is_named(zone: str) -> None:
    with pytest.raises(BadUserInput, match=r"^t\.timezone must be a time zone") as error:
        Cron.parse("@daily", zone, "t.")
    assert error.value.field == "t.timezone"
    assert f'there is no "{zone}"' in error.value.detail


def test_where_time_ends_there_are_no_more_ticks() -> None:
    assert Cron.parse("* * * * *", "Europe/Berlin").next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert Cron.parse("0 0 1 1 *").next_after(datetime(9999, 12, 31, tzinfo=UTC)) is None

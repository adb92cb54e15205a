"""When a schedule ticks.

An expression has the five fields of cron (minute, hour, day of month, month, day of week; names such as MON or JAN, and
`L`, `LW` and `#` as cronsim reads them), or is @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually. As
in Debian's cron, a day must match both the day of month and the day of week where one of these begins with `*`, and
else either of them.

A tick is one instant. Where the clocks change, the rule is Debian's as well:

- a fixed time (neither the minute nor the hour begins with `*`) that the clocks skip ticks once, at the first moment
  after the gap; one that they show twice ticks the first time only. So it ticks on every day it names;
- a wildcard (the minute or the hour begins with `*`) follows the clock on the wall: nothing for what it skips, and for
  what it shows twice, ticks both times. So `*/15 * * * *` is every 15 minutes, come what may.

cronsim knows the calendar and is asked in wall-clock time alone; the instants are made here, since its own walk
through a zone loses ticks where the clocks go back by half an hour (Lord Howe).
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.rules import check_text

MAX_EXPRESSION = 500  # characters
MAX_TIMEZONE = 100  # characters

_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = {  # as cronsim calls them: which of the five, as we call it, what it may be
    "minute": (0, "minute", "from 0 to 59"),
    "hour": (1, "hour", "from 0 to 23"),
    "day-of-month": (2, "day of month", "from 1 to 31 and a day that one of the months has, or L or LW"),
    "month": (3, "month", "from 1 to 12, or JAN to DEC"),
    "day-of-week": (4, "day of week", "from 0 to 7, or SUN to SAT"),
}
_ZONE = re.compile(r"(?!posix/|right/)[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*")
_OF_THE_HOST = {"localtime", "posixrules", "Factory"}  # files beside the zones that mean something else on each machine
_PAST = datetime(2000, 1, 1, tzinfo=UTC)
_MINUTE, _SECOND = timedelta(minutes=1), timedelta(seconds=1)
_STEP = 6 * 86_400  # seconds; no zone changes twice within it (Gaza comes next, at 6.96 days)


class Cron:
    """A cron expression in a time zone."""

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        """Of what `parse` has checked."""
        self._expression = expression
        self._zone = zone
        self._fixed = not any(field.startswith("*") for field in expression.split()[:2])

    @classmethod
    def parse(cls, expression: str, timezone: str = "UTC", prefix: str = "trigger.Schedule.") -> "Cron":
        """A schedule as somebody wrote it; `prefix` names its place.

        Raises:
            BadUserInput: it is not cron's, it never ticks, or there is no such time zone.
        """
        field = f"{prefix}cron"
        text = _five_fields(field, expression)
        cron = cls(text, _zone(f"{prefix}timezone", timezone))
        try:
            CronSim(text, _PAST)
        except CronSimError as error:
            raise BadUserInput(_reason(field, text, str(error)), field=field) from None
        if cron.next_after(_PAST) is None:
            raise BadUserInput(f'{field} never ticks: no day is what "{text}" asks for', field=field)
        return cron

    def next_after(self, moment: datetime) -> datetime | None:
        """The first tick strictly after a moment, in UTC; None when there is none in 50 years."""
        moment = moment.astimezone(UTC)
        try:
            return self._fixed_after(moment) if self._fixed else self._wildcard_after(moment)
        except OverflowError:  # past the last year there is
            return None

    def ticks(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """The ticks in (after, until], oldest first, at most so many."""
        found: list[datetime] = []
        while len(found) < most and (tick := self.next_after(after)) is not None and tick <= until:
            found.append(tick)
            after = tick
        return found

    def newest(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """The newest ticks in (after, until], oldest first, at most so many."""
        found: list[datetime] = []
        while len(found) < most and (tick := self.latest(after, until)) is not None:
            found.append(tick)
            until = tick - _SECOND
        return found[::-1]

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The newest tick in (after, until], found by halves: years of minutes cost some dozens of looks."""
        newest, beyond = None, until  # no tick in (beyond, until]
        tick = self.next_after(after)
        while tick is not None and tick <= until:
            newest = tick
            tick = self.next_after(newest)
            while tick is not None and tick <= until and beyond - newest > _SECOND:
                middle = newest + (beyond - newest) / 2
                ahead = self.next_after(middle)
                if ahead is not None and ahead <= until:
                    tick = ahead
                    break
                beyond = middle
        return newest

    def _walk(self, wall: datetime) -> Iterator[datetime]:
        return CronSim(self._expression, wall)  # of a time without a zone, so that it does nothing about clock changes

    def _fixed_after(self, moment: datetime) -> datetime | None:
        # All that the wall clock showed up to now was an instant up to now; of what comes, some may have been (the
        # second showing of an hour), or be the same one (the end of a gap).
        for wall in self._walk(self._wall(moment)):
            shown = wall.replace(tzinfo=self._zone)
            while self._wall(shown) != shown.replace(tzinfo=None):  # the clocks skip it
                shown += _MINUTE
            if (tick := shown.astimezone(UTC)) > moment:
                return tick
        return None

    def _wildcard_after(self, moment: datetime) -> datetime | None:
        wall = self._wall(moment)
        shown = next(self._walk(wall), None)
        while shown is not None:
            tick = shown.replace(tzinfo=UTC) - self._offset(moment)
            change = self._change(moment, tick)
            if change is None:
                return tick
            moment = change  # no tick before it; from it on, by the new offset
            again = self._wall(change) - _SECOND
            if not wall <= again < shown:  # else it is still the next that the wall clock will show
                wall, shown = again, next(self._walk(again), None)
        return None

    def _change(self, moment: datetime, until: datetime) -> datetime | None:
        """The first instant in (moment, until] with another offset than the moment's."""
        offset = self._offset(moment)
        low, last = int(moment.timestamp()), int(until.timestamp())
        while low < last:
            high = min(low + _STEP, last)
            if self._offset(datetime.fromtimestamp(high, UTC)) != offset:
                while high - low > 1:
                    middle = (low + high) // 2
                    if self._offset(datetime.fromtimestamp(middle, UTC)) == offset:
                        low = middle
                    else:
                        high = middle
                return datetime.fromtimestamp(high, UTC)
            low = high
        return None

    def _wall(self, moment: datetime) -> datetime:
        """What the clock on the wall shows."""
        return moment.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or timedelta()


def _five_fields(field: str, expression: str) -> str:
    text = " ".join(check_text(field, expression, MAX_EXPRESSION).split())
    if text.startswith("@"):
        if text.lower() not in _NICKNAMES:
            raise BadUserInput(f'{field} may be one of {", ".join(_NICKNAMES)}, not "{text}"', field=field)
        return _NICKNAMES[text.lower()]
    count = len(text.split())
    if count == 6:
        raise BadUserInput(
            f"{field} must have five fields; six would begin with seconds, and a minute is the least", field=field
        )
    if count != 5:
        raise BadUserInput(
            f"{field} must have five fields (minute, hour, day of month, month, day of week), not {count}", field=field
        )
    return text


def _reason(field: str, text: str, said: str) -> str:
    index, name, rule = _FIELDS.get(said.removeprefix("Bad "), (None, "", ""))
    if index is None:
        return f'{field} is no cron expression: "{text}"'
    return f'{field}: "{text.split()[index]}" is no {name}; it must be {rule}, or *, or a list, range or step of these'


def _zone(field: str, name: str) -> ZoneInfo:
    check_text(field, name, MAX_TIMEZONE)
    try:
        if _ZONE.fullmatch(name) and name not in _OF_THE_HOST:
            return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # none of that name; or a file, or a folder, that is something else
        pass
    raise BadUserInput(f'{field} must be a time zone such as Europe/Berlin; there is no "{name}"', field=field)

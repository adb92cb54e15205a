"""Each part of a message counts for itself: what another version wrote takes nothing else with it."""

from uuid import UUID

import orjson
import pytest

from atomo_gql.realtime.hub import Hub, Mailbox
from atomo_gql.realtime.transport import url_transport

JOB = UUID("01a22d21-2dd9-74bc-8000-80fa67a7b4e7")


@pytest.mark.parametrize(
    "strange",
    [
        ["u", str(JOB)],  # a progress with other members
        ["u", "no id"],
        ["l", 5],
        ["l", "no id"],
        ["q"],
        ["q", "tenant"],
        ["q", {}, []],
        ["w", "nothing"],
        ["w"],
        ["a word of the future", {}],
        [],
        "text",
        7,
        None,
        {"q": 1},
    ],
    ids=str,
)
def test_a_part_that_cannot_be_read_takes_nothing_else_with_it(strange: object) -> None:
    hub, mailbox = Hub(url_transport("memory://")), Mailbox()
    woken: list[tuple[str, str]] = []
    news: list[None] = []
    hub.on_wake(lambda lanes: woken.extend(lanes))
    hub.on_news(lambda: news.append(None))
    hub.watch(JOB, mailbox)
    parts = [["q", "", "before"], strange, ["q", "", "behind"], ["l", str(JOB)]]

    hub.take_in(orjson.dumps(["another", *parts]).decode())

    assert woken == [("", "before"), ("", "behind")]
    assert mailbox._news == {JOB: None}
    assert news


@pytest.mark.parametrize("message", ["", "x", "7", "null", "{}", "[]", "[1]", '[["q","","a"]]', '"text"'])
def test_a_stranger_s_notification_is_passed_over(message: str) -> None:
    hub = Hub(url_transport("memory://"))
    woken: list[tuple[str, str]] = []
    hub.on_wake(lambda lanes: woken.extend(lanes))
    hub.take_in(message or " ")
    assert woken == []

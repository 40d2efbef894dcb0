"""The text of server-sent events, and who is woken by them."""

import json
from uuid import UUID, uuid4

import pytest

from craftastic.events import _protocol as protocol
from craftastic.events._hub import Hub, TooManyEventStreams
from craftastic.events._repository import Event, Place

ID = UUID("5f0e6f0a-0000-4000-8000-000000000001")


def test_a_body_names_the_thing_and_what_it_belongs_to() -> None:
    assert json.loads(protocol.body("git.changed", "x", ID, ID)) == {
        "type": "git.changed",
        "id": "x",
        "environmentId": str(ID),
        "sessionId": str(ID),
    }
    assert json.loads(protocol.body("github.changed", ID)) == {
        "type": "github.changed",
        "id": str(ID),
    }


def test_a_body_is_one_line_whatever_is_in_it() -> None:
    body = protocol.body("thing.changed", "a\nid: 9-9\n\nb\u2028\r")

    assert body.splitlines() == [body]
    assert json.loads(body)["id"] == "a\nid: 9-9\n\nb\u2028\r"


def test_frames_follow_each_other_with_their_ids() -> None:
    events = [Event(Place(seq, "ab"), "thing.changed", "{}") for seq in (7, 8)]

    assert protocol.frames(events) == (
        b"id: 7-ab\nevent: thing.changed\ndata: {}\n\nid: 8-ab\nevent: thing.changed\ndata: {}\n\n"
    )


def test_a_stream_that_goes_on_gives_no_id_at_its_beginning() -> None:
    place = Place(7, "ab")

    assert b"\nid: 7-ab\n" in protocol.ready(place, resumed=False)
    assert b"id: " not in protocol.ready(place, resumed=True)
    assert b"\nid: 7-ab\n" in protocol.reset(place)


def test_an_id_is_read_as_it_was_written() -> None:
    assert protocol.parse_id("12-0badcafe") == Place(12, "0badcafe")
    assert protocol.parse_id("0-0") == Place(0, "0")


@pytest.mark.parametrize(
    "text",
    ["", "1", "-1-ab", "1-", "1-xyz", "1-AB", " 1-ab", "1-ab\n", "\u0661-ab", "9" * 19 + "-a"],
)
def test_anything_else_is_no_id(text: str) -> None:
    assert protocol.parse_id(text) is None


def test_only_the_owners_followers_that_lack_something_are_woken() -> None:
    hub, mine, theirs = Hub(2), uuid4(), uuid4()
    with hub.follow(mine) as first, hub.follow(mine) as second, hub.follow(theirs) as other:
        second.seq = 5

        hub.reached({mine: 5, theirs: 0})

        assert [one.changed.is_set() for one in (first, second, other)] == [True, False, False]
        hub.wake([theirs, uuid4()])
        assert other.changed.is_set()
        assert hub.count == 3
    assert hub.followers == {}
    assert not hub.somebody.is_set()


def test_one_stream_too_many_is_refused_and_takes_no_place() -> None:
    hub, mine = Hub(1), uuid4()
    with hub.follow(mine):
        for _ in range(2):
            with pytest.raises(TooManyEventStreams), hub.follow(mine):
                pass
        assert hub.count == 1
    with hub.follow(mine):
        assert hub.count == 1

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.cli._escape_keys import Action, EscapeKeys, parse_detach_keys

CTRL_P_Q = b"\x10\x11"


def feed(data: bytes, keys: bytes = CTRL_P_Q) -> list[bytes | Action]:
    return EscapeKeys(keys).feed(data)


def sent(events: list[bytes | Action]) -> bytes:
    return b"".join(event for event in events if isinstance(event, bytes))


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"~.", [Action.DETACH]),
        (b"ls\r~.", [b"ls\r", Action.DETACH]),
        (b"\n~?x", [b"\n", Action.HELP, b"x"]),
        (b"~\x1a", [Action.SUSPEND]),
        (b"~~.", [b"~."]),
        (b"~a~.", [b"~a~."]),
        (b"a~.", [b"a~."]),
        (b"~\r~.", [b"~\r", Action.DETACH]),
        (b"a\x10\x11b", [b"a\x10", Action.DETACH, b"b"]),
        (b"\x10x\x11", [b"\x10x\x11"]),
        (b"\x10\x10\x11", [b"\x10\x10", Action.DETACH]),
    ],
)
def test_escapes_count_where_ssh_counts_them(data: bytes, events: list[bytes | Action]) -> None:
    assert feed(data) == events


def test_pasted_text_never_detaches() -> None:
    pasted = b"\x1b[200~one\r~.\x10\x11\n~?\x1b[201~"

    assert feed(pasted) == [pasted]
    assert feed(pasted + b"\r~.") == [pasted + b"\r", Action.DETACH]


def test_no_key_of_the_detach_sequence_is_held_back() -> None:
    assert feed(b"\x10") == [b"\x10"]


def test_without_detach_keys_only_the_tilde_escapes() -> None:
    assert feed(b"\x10\x11", b"") == [b"\x10\x11"]


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("", b""), ("ctrl-],x", b"\x1dx"), ("Ctrl-A", b"\x01")],
)
def test_detach_keys_are_written_as_in_docker(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "alt-x", "ctrl-1", "ctrl-ä", "ab"])
def test_an_unknown_key_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        parse_detach_keys(text)


@given(
    st.lists(
        st.sampled_from(
            [b"~", b".", b"\r", b"a", b"\x1a", b"\x10", b"\x11", b"\x1b[200~", b"\x1b[201~"]
        )
    ),
    st.data(),
)
def test_how_keys_are_cut_into_reads_changes_nothing(
    keys: list[bytes], cuts: st.DataObject
) -> None:
    data = b"".join(keys)
    whole = feed(data)
    cut = cuts.draw(st.integers(0, len(data)))
    parser = EscapeKeys(CTRL_P_Q)

    pieces = parser.feed(data[:cut]) + parser.feed(data[cut:])

    assert sent(pieces) == sent(whole)
    assert [one for one in pieces if isinstance(one, Action)] == [
        one for one in whole if isinstance(one, Action)
    ]


@given(st.binary(max_size=100).filter(lambda data: b"~" not in data))
def test_keys_without_an_escape_arrive_as_typed(data: bytes) -> None:
    assert sent(feed(data, b"")) == data

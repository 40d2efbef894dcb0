"""The head of a push: whole or in pieces, well-formed or hostile."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.gateway._pkt_line import (
    FLUSH,
    MAX_HEAD_BYTES,
    MAX_OPTION_BYTES,
    MAX_OPTIONS,
    MAX_REF_UPDATES,
    MalformedPush,
    PktReader,
    PushHead,
    PushHeadReader,
    RefUpdate,
    pkt_line,
    report_refused,
)

ZERO = "0" * 40
ONE = "1" * 40
TWO = "2" * 40
PACK = b"PACK\x00\x00\x00\x02and more"


def head(*lines: bytes) -> bytes:
    return b"".join(pkt_line(line) for line in lines) + FLUSH


def command(ref: str, old: str = ZERO, new: str = ONE, capabilities: str | None = None) -> bytes:
    line = f"{old} {new} {ref}".encode()
    return line if capabilities is None else line + b"\0" + capabilities.encode()


def read(data: bytes) -> PushHead | None:
    return PushHeadReader().feed(data)


def test_commands_capabilities_and_the_packs_beginning_are_told_apart() -> None:
    sent = head(
        command("refs/heads/a", capabilities=" report-status side-band-64k agent=git/2.39"),
        command("refs/heads/b", ONE, TWO),
    )

    found = read(sent + PACK)

    assert found is not None
    assert found.updates == (
        RefUpdate("refs/heads/a", ZERO, ONE),
        RefUpdate("refs/heads/b", ONE, TWO),
    )
    assert found.capabilities == {"report-status", "side-band-64k", "agent=git/2.39"}
    assert (found.raw, found.rest) == (sent, PACK)


def test_shallow_lines_are_part_of_the_head() -> None:
    found = read(head(f"shallow {TWO}".encode(), command("refs/heads/a", capabilities="")) + PACK)

    assert found is not None
    assert [update.ref for update in found.updates] == ["refs/heads/a"]
    assert found.rest == PACK


def test_push_options_are_read_when_announced() -> None:
    sent = head(command("refs/heads/a", capabilities="push-options")) + head(b"ci.skip", b"a=b\n")

    found = read(sent + PACK)

    assert found is not None
    assert found.options == ("ci.skip", "a=b")
    assert (found.raw, found.rest) == (sent, PACK)


@pytest.mark.parametrize("announced", ["push-options=", "push-options=x", "agent=a push-options=1"])
def test_push_options_are_read_when_announced_with_a_value(announced: str) -> None:
    sent = head(command("refs/heads/a", capabilities=announced)) + head(b"ci.skip")

    found = read(sent + PACK)

    assert found is not None
    assert (found.options, found.raw, found.rest) == (("ci.skip",), sent, PACK)


def test_push_options_are_not_looked_for_otherwise() -> None:
    found = read(head(command("refs/heads/a", capabilities="")) + head(b"ci.skip"))

    assert found is not None
    assert found.options == ()


def test_lone_flush_is_gits_probe() -> None:
    assert read(FLUSH) == PushHead((), frozenset(), (), FLUSH, b"")


def test_sha256_hashes_are_understood() -> None:
    found = read(head(command("refs/heads/a", "0" * 64, "a" * 64, "object-format=sha256")))

    assert found is not None
    assert found.updates[0].creates


def test_creation_and_deletion_are_told_from_the_zeros() -> None:
    assert RefUpdate("refs/heads/a", ZERO, ONE).creates
    assert RefUpdate("refs/heads/a", ONE, ZERO).deletes
    assert not RefUpdate("refs/heads/a", ONE, TWO).creates
    assert not RefUpdate("refs/heads/a", ONE, TWO).deletes


MALFORMED = {
    "text": b"hello, world",
    "length that is no number": b"00g0" + b"x" * 20,
    "signed length": b"+010" + b"x" * 20,
    "length below four": b"0003",
    "delimiter packet": b"0001",
    "response-end packet": b"0002",
    "empty packet": b"0004",
    "too long a packet": b"fff1" + b"x" * 0xFFF1,
    "no command": head(b"nonsense"),
    "hash too short": head(command("refs/heads/a", "0" * 39)),
    "hash in capitals": head(command("refs/heads/a", "A" * 40)),
    "hashes of two kinds": head(command("refs/heads/a", "0" * 64, ONE)),
    "two kinds of hash in two commands": head(
        command("refs/heads/a"), command("refs/heads/b", "0" * 64, "1" * 64)
    ),
    "two spaces": head(f"{ZERO} {ONE}  refs/heads/a".encode()),
    "no ref": head(f"{ZERO} {ONE} ".encode()),
    "space in a ref": head(command("refs/heads/a b")),
    "newline in a ref": head(command("refs/heads/a\nb")),
    "newline before the capabilities": head(command("refs/heads/a\n", capabilities="x")),
    "two newlines": head(command("refs/heads/a\n\n")),
    "delete character in a ref": head(command("refs/heads/a\x7f")),
    "ref that is not UTF-8": head(command("refs/heads/") + b"\xff\xfe"),
    "capabilities that are not UTF-8": head(command("refs/heads/a") + b"\0\xff"),
    "ref that is too long": head(command("refs/heads/" + "a" * 1025)),
    "ref given twice": head(command("refs/heads/a"), command("refs/heads/a")),
    "capabilities on a later line": head(
        command("refs/heads/a", capabilities=""), command("refs/heads/b", capabilities="atomic")
    ),
    "shallow line with capabilities": head(f"shallow {ONE}".encode() + b"\0push-options"),
    "shallow line with more": head(f"shallow {ONE} x".encode()),
    "signed push": head(b"push-cert\0report-status", b"certificate version 0.1"),
    "too many push options": head(command("refs/heads/a", capabilities="push-options"))
    + head(*[b"x"] * (MAX_OPTIONS + 1)),
    "push option that is too long": head(command("refs/heads/a", capabilities="push-options"))
    + head(b"x" * (MAX_OPTION_BYTES + 1)),
    "too many refs": head(*(command(f"refs/heads/{n}") for n in range(MAX_REF_UPDATES + 1))),
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_head_is_refused(sent: bytes) -> None:
    with pytest.raises(MalformedPush):
        read(sent)


def test_head_that_never_ends_is_refused_within_its_bound() -> None:
    reader = PushHeadReader()
    lines = pkt_line(f"shallow {ONE}".encode()) * 1000
    full = MAX_HEAD_BYTES // len(lines)

    for _ in range(full):
        assert reader.feed(lines) is None
    with pytest.raises(MalformedPush):
        reader.feed(lines)


LETTERS = st.characters(codec="utf-8", exclude_categories=["C", "Z"])
REFS = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=40
    ).map("refs/heads/{}".format),
    min_size=1,
    max_size=8,
    unique=True,
)
HASHES = st.text("0123456789abcdef", min_size=40, max_size=40)


@given(
    refs=REFS,
    hashes=st.tuples(HASHES, HASHES),
    shallow=st.lists(HASHES, max_size=3),
    options=st.none() | st.lists(st.text("abc=.", min_size=1), max_size=3),
    newline=st.booleans(),
    pack=st.binary(max_size=200),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
def test_any_head_cut_anywhere_reads_the_same(
    refs: list[str],
    hashes: tuple[str, str],
    shallow: list[str],
    options: list[str] | None,
    newline: bool,
    pack: bytes,
    cuts: list[int],
) -> None:
    end = b"\n" if newline else b""
    capabilities = "report-status push-options" if options is not None else "report-status"
    lines = [f"shallow {one}".encode() + end for one in shallow]
    lines.append(command(refs[0], *hashes, capabilities) + end)
    lines += [command(ref, *hashes) + end for ref in refs[1:]]
    sent = head(*lines)
    if options is not None:
        sent += head(*(option.encode() for option in options))
    whole = sent + pack
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})

    reader, found, fed = PushHeadReader(), None, 0
    for start, stop in itertools.pairwise(edges):
        fed = stop
        if (found := reader.feed(whole[start:stop])) is not None:
            break

    assert found is not None
    assert [update.ref for update in found.updates] == refs
    assert {(update.old, update.new) for update in found.updates} == {hashes}
    assert found.options == tuple(options or ())
    assert found.raw == sent
    assert found.raw + found.rest == whole[:fed]


@given(st.binary(max_size=400))
def test_any_bytes_are_a_head_or_incomplete_or_malformed(data: bytes) -> None:
    try:
        found = read(data)
    except MalformedPush:
        return

    assert found is None or found.raw + found.rest == data


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=10))
def test_pkt_lines_come_out_as_they_went_in(payloads: list[bytes]) -> None:
    reader = PktReader()
    reader.feed(b"".join(pkt_line(payload) for payload in payloads) + FLUSH)

    found = [reader.next() for _ in range(len(payloads) + 2)]

    assert found == [*payloads, b"", None]


def test_report_of_a_refusal_names_each_ref() -> None:
    asked = read(head(command("refs/tags/a", capabilities="report-status")))
    assert asked is not None

    report = report_refused(asked, [("refs/tags/a", "no tags")], "message")

    assert report == b"000eunpack ok\n001bng refs/tags/a no tags\n0000"


def test_long_report_is_cut_into_packets_that_git_can_read() -> None:
    refs = [f"refs/tags/{number:04}" for number in range(4000)]
    asked = PushHead((), frozenset({"report-status-v2", "side-band-64k"}), (), b"", b"")

    report = report_refused(asked, [(ref, "no") for ref in refs], "message")

    assert report is not None
    reader = PktReader()
    reader.feed(report)
    inner = b""
    while packet := reader.next():
        inner += packet[1:] if packet[:1] == b"\x01" else b""
    assert inner.count(b"ng refs/tags/") == len(refs)
    assert inner.endswith(FLUSH)


def test_client_that_wants_no_report_gets_none() -> None:
    asked = PushHead((), frozenset(), (), b"", b"")

    assert report_refused(asked, [], "message") is None

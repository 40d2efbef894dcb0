"""What is kept of an upstream's list of refs: whole or in pieces, long or hostile."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.gateway import _listing
from craftastic.gateway._listing import RefListReader
from craftastic.gateway._pkt_line import FLUSH, pkt_line

ZERO, ONE, TWO = "0" * 40, "1" * 40, "2" * 40
SERVICE = pkt_line(b"# service=git-receive-pack\n") + FLUSH


def listed(*lines: str, capabilities: str = "report-status delete-refs") -> bytes:
    first = [f"{lines[0]}\0{capabilities}", *lines[1:]] if lines else []
    return SERVICE + b"".join(pkt_line(f"{line}\n".encode()) for line in first) + FLUSH


def read(data: bytes, *interest: str) -> RefListReader:
    reader = RefListReader(set(interest))
    reader.feed(data)
    return reader


def test_branches_are_kept_and_other_refs_only_when_they_are_of_interest() -> None:
    sent = listed(
        f"{ONE} refs/heads/a", f"{TWO} refs/heads/ü", f"{ONE} refs/tags/v1", f"{TWO} refs/notes/x",
        f"{ONE} .have",
    )  # fmt: skip

    reader = read(sent, "refs/tags/v1")

    assert reader.whole
    assert reader.found == {"refs/heads/a": ONE, "refs/heads/ü": TWO, "refs/tags/v1": ONE}


def test_empty_repository_lists_nothing() -> None:
    reader = read(listed(f"{ZERO} capabilities^{{}}"))

    assert (reader.whole, reader.found) == (True, {})


def test_first_version_of_the_protocol_begins_with_its_number() -> None:
    sent = SERVICE + pkt_line(b"version 1\n") + listed(f"{ONE} refs/heads/a")[len(SERVICE) :]

    assert read(sent).found == {"refs/heads/a": ONE}


@pytest.mark.parametrize(("name", "value"), [("MAX_OTHER_BRANCHES", 3), ("MAX_OTHER_BYTES", 36)])
def test_of_a_long_list_the_first_branches_and_those_of_interest_are_kept(
    monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    monkeypatch.setattr(_listing, name, value)

    reader = read(listed(*(f"{ONE} refs/heads/{number}" for number in range(10))), "refs/heads/8")

    kept = {int(ref.rpartition("/")[2]) for ref in reader.found}
    assert (reader.whole, kept) == (True, {0, 1, 2, 8} if value == 3 else {0, 1, 8} | kept & {2})
    assert len(kept) <= 4


def test_list_that_is_too_long_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = listed(f"{ONE} refs/heads/a")
    monkeypatch.setattr(_listing, "MAX_LIST_BYTES", len(sent) - 1)

    assert not read(sent).whole


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        SERVICE,
        listed(f"{ONE} refs/heads/a")[:-4],
        listed(f"{ONE} refs/heads/a") + b"x",
        SERVICE + b"0003" + FLUSH,
        SERVICE + b"zzzz",
    ],
)
def test_list_that_is_cut_malformed_or_goes_on_is_not_whole(sent: bytes) -> None:
    assert not read(sent).whole


def test_what_comes_after_the_end_makes_it_no_list() -> None:
    reader = read(listed(f"{ONE} refs/heads/a"))
    reader.feed(b"more")

    assert not reader.whole


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_list_cut_anywhere_reads_the_same(cuts: list[int]) -> None:
    sent = listed(f"{ONE} refs/heads/a", f"{TWO} refs/heads/b", f"{ONE} refs/tags/c")
    edges = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    reader = RefListReader(set())

    for start, stop in itertools.pairwise(edges):
        reader.feed(sent[start:stop])

    assert (reader.whole, reader.found) == (True, {"refs/heads/a": ONE, "refs/heads/b": TWO})


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_no_bytes_make_it_fail(chunks: list[bytes]) -> None:
    reader = RefListReader({"refs/heads/a"})

    for chunk in chunks:
        reader.feed(chunk)

    assert all(ref.startswith("refs/heads/") for ref in reader.found)

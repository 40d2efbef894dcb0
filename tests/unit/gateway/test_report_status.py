"""Reading what an upstream says of a push, whatever pieces and whatever bytes it comes in."""

import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.gateway._pkt_line import FLUSH, pkt_line
from craftastic.gateway._report_status import MAX_REPORT_BYTES, ReportReader, plain
from craftastic.pushes.service import PushOutcome, RefResult

REFS = ("refs/heads/a", "refs/heads/b", "refs/heads/ü")
PLAIN = ("report-status",)
BANDS = ("report-status-v2", "side-band-64k", "agent=git/2")
OK = RefResult(PushOutcome.OK)


def report(*lines: str) -> bytes:
    return b"".join(pkt_line(f"{line}\n".encode()) for line in lines) + FLUSH


def banded(data: bytes, sizes: Iterable[int] = ()) -> bytes:
    """Put a report into side-band packets of given sizes, with progress in between."""
    out = pkt_line(b"\x02Resolving deltas\r")
    for size in sizes:
        if not data:
            break
        out += pkt_line(b"\x01" + data[:size]) + pkt_line(b"\x02...\n")
        data = data[size:]
    for start in range(0, len(data), 65515):
        out += pkt_line(b"\x01" + data[start : start + 65515])
    return out + FLUSH


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def read(
    data: bytes, capabilities: Sequence[str], places: Sequence[int] = (), refs: Sequence[str] = REFS
) -> ReportReader:
    reader = ReportReader(refs, capabilities)
    for piece in cut(data, places):
        reader.feed(piece)
    return reader


PLACES = st.lists(st.integers(0, 1 << 16), max_size=30)
REASONS = st.text(
    st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40
)  # words that are shown as they are
RESULTS = st.dictionaries(
    st.sampled_from(REFS),
    st.one_of(st.just(OK), REASONS.map(lambda why: RefResult(PushOutcome.REJECTED, why))),
)


@given(RESULTS, PLACES, st.lists(st.integers(1, 9), max_size=9), st.booleans())
def test_report_is_read_the_same_however_it_is_cut(
    results: dict[str, RefResult], places: list[int], sizes: list[int], bands: bool
) -> None:
    lines = [f"ok {ref}" if one == OK else f"ng {ref} {one.reason}" for ref, one in results.items()]
    data = report("unpack ok", *lines)

    reader = read(banded(data, sizes) if bands else data, BANDS if bands else PLAIN, places)

    told = reader.results()
    assert {ref: told[ref] for ref in results} == results
    assert {told[ref].outcome for ref in set(REFS) - set(results)} <= {PushOutcome.FAILED}
    assert all(one.reason for one in told.values() if one.outcome is not PushOutcome.OK)


@given(st.binary(max_size=400), PLACES, st.sampled_from([PLAIN, BANDS, ("agent=x",), ()]))
def test_no_bytes_make_it_raise_or_say_that_a_push_went_well(
    data: bytes, places: list[int], capabilities: Sequence[str]
) -> None:
    reader = read(data, capabilities, places)

    for otherwise in (None, "the transfer was cut"):
        told = reader.results(otherwise)
        assert set(told) == set(REFS)
        assert PushOutcome.OK not in {one.outcome for one in told.values()}


@given(st.integers(0, 200), PLACES, st.booleans())
def test_of_a_report_that_breaks_off_what_was_said_stands_and_the_rest_is_failed(
    length: int, places: list[int], bands: bool
) -> None:
    data = report("unpack ok", "ok refs/heads/a", "ng refs/heads/b hook declined")
    whole = banded(data, [7] * 30) if bands else data
    reader = read(whole[:length], BANDS if bands else PLAIN, places)

    told = reader.results("the transfer was cut")

    assert told["refs/heads/a"] in {OK, RefResult(PushOutcome.FAILED, "the transfer was cut")}
    assert told["refs/heads/b"].outcome in {PushOutcome.REJECTED, PushOutcome.FAILED}
    assert told["refs/heads/ü"] == RefResult(PushOutcome.FAILED, "the transfer was cut")


def test_upstream_that_could_not_unpack_has_taken_nothing() -> None:
    reader = read(report("unpack index-pack abnormal exit"), PLAIN)

    assert reader.results()["refs/heads/a"] == RefResult(
        PushOutcome.REJECTED, "the upstream could not unpack: index-pack abnormal exit"
    )


def test_fatal_message_is_the_reason() -> None:
    data = pkt_line(b"\x02working\n") + pkt_line(b"\x03disk\tfull\n") + pkt_line(b"\x01rubbish")

    for reader in (read(data, BANDS), read(pkt_line(b"ERR disk full"), PLAIN)):
        assert reader.results()["refs/heads/a"] == RefResult(
            PushOutcome.FAILED, "the upstream broke off: disk full"
        )


def test_ref_that_the_upstream_made_elsewhere_is_told_so() -> None:
    lines = ["ok refs/heads/a", "option refname refs/changes/1", "option old-oid " + "0" * 40]
    reader = read(banded(report("unpack ok", *lines, "ok refs/heads/b")), BANDS)

    told = reader.results()

    made = RefResult(PushOutcome.OK, "the upstream made it refs/changes/1")
    assert (told["refs/heads/a"], told["refs/heads/b"]) == (made, OK)


def test_second_word_about_a_ref_and_words_about_others_change_nothing() -> None:
    lines = ["ng refs/heads/a no", "ok refs/heads/a", "option refname refs/x", "ok refs/heads/zz"]
    reader = read(report("unpack ok", *lines), PLAIN)

    told = reader.results()

    assert told["refs/heads/a"] == RefResult(PushOutcome.REJECTED, "no")
    assert "refs/heads/zz" not in told


def test_push_without_a_report_is_not_known_to_have_arrived() -> None:
    reader = read(b"", ("side-band-64k",))

    reason = reader.results()["refs/heads/a"].reason

    assert reason == "git asked for no report, so whether the upstream took it is not known"


def test_report_after_its_end_is_not_read() -> None:
    data = banded(report("unpack ok")) + banded(report("ok refs/heads/a"))

    assert read(data, BANDS).results()["refs/heads/a"].outcome is PushOutcome.FAILED


def test_what_cannot_be_read_says_so() -> None:
    reader = ReportReader(REFS, PLAIN)
    reader.unreadable("it was compressed")
    reader.feed(report("unpack ok", "ok refs/heads/a"))

    assert reader.results()["refs/heads/a"] == RefResult(PushOutcome.FAILED, "it was compressed")


@pytest.mark.parametrize("band", [1, 2])
def test_endless_answer_costs_no_memory(band: int) -> None:
    line = pkt_line(b"ok refs/heads/" + b"x" * 900)
    inner = line * 70
    chunk = pkt_line(bytes([band]) + inner[:65000])
    reader = ReportReader(REFS, BANDS)

    tracemalloc.start()
    try:
        for _ in range(64 * (MAX_REPORT_BYTES // len(chunk))):
            reader.feed(chunk)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 1 << 20
    assert reader.results()["refs/heads/a"].outcome is PushOutcome.FAILED


def test_reason_of_an_upstream_is_one_printable_line() -> None:
    assert plain(b"\x1b[31mno\r\n\xff\xe2\x80\xae way\x00" + b"x" * 9000).startswith(
        "[31mno � way x"
    )
    assert len(plain(b"x" * 9000)) == 500

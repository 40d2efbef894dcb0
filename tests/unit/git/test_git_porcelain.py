"""git's machine formats: what is in them comes out, and no bytes at all make a parser fail."""

import time
from collections.abc import Callable, Sized
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.git import _porcelain
from craftastic.git._porcelain import (
    Counts,
    PushedRef,
    body_of,
    cut_to_lines,
    parse_counts,
    parse_log,
    parse_push,
    parse_raw,
    parse_refs,
    parse_shortstat,
    parse_status,
    subject_of,
)

HASH = b"a" * 40
NAMES = st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b"\0", b"x"))
MODES = b"N... 100644 100644 100644 " + HASH + b" " + HASH


@given(st.lists(NAMES, max_size=8), st.lists(st.tuples(NAMES, NAMES), max_size=8))
def test_status_gives_every_name_back(
    plain: list[bytes], renamed: list[tuple[bytes, bytes]]
) -> None:
    raw = b"# branch.oid " + HASH + b"\0# branch.head main\0# branch.upstream origin/main\0"
    raw += b"# branch.ab +2 -3\0"
    raw += b"".join(b"1 .M " + MODES + b" " + name + b"\0" for name in plain)
    raw += b"".join(
        b"2 R. " + MODES + b" R100 " + new + b"\0" + old + b"\0" for new, old in renamed
    )
    raw += b"".join(b"? " + name + b"\0" for name in plain)
    raw += b"".join(
        b"u UU N... 1 2 3 4 " + b" ".join([HASH] * 3) + b" " + name + b"\0" for name in plain
    )

    status = parse_status(raw, 100)

    assert (status.head, status.branch, status.upstream) == ("a" * 40, "main", "origin/main")
    assert (status.ahead, status.behind, status.complete) == (2, 3, True)
    found = [(one.code, one.name, one.original, one.conflicted) for one in status.files]
    assert found == [
        *((" M", name, None, False) for name in plain),
        *(("R ", new, old, False) for new, old in renamed),
        *(("??", name, None, False) for name in plain),
        *(("UU", name, None, True) for name in plain),
    ]


@given(st.binary(max_size=200))
def test_no_bytes_break_a_parser(raw: bytes) -> None:
    for parse in (parse_status, parse_counts, parse_raw, _porcelain.names):
        parse(raw, 100)
    parse_log(raw, 100, bytes)
    parse_refs(raw, 100, bytes)
    text = raw.decode(errors="replace")
    parse_push(text)
    parse_shortstat(text)
    subject_of(text)
    body_of(text)


@given(st.data())
def test_a_status_that_is_cut_anywhere_gives_a_beginning(data: st.DataObject) -> None:
    raw = b"# branch.head (detached)\0" + b"".join(
        b"1 M. " + MODES + b" file%d\0" % at for at in range(5)
    )
    cut = data.draw(st.integers(0, len(raw)))

    status = parse_status(raw[:cut], 100)

    assert [one.name for one in status.files] == [b"file%d" % at for at in range(len(status.files))]
    assert status.complete == (raw[:cut].endswith(b"\0"))


def test_a_detached_head_and_the_time_before_the_first_commit() -> None:
    status = parse_status(b"# branch.oid (initial)\0# branch.head (detached)\0", 1)

    assert (status.head, status.branch) == (None, None)


def test_a_submodule_is_known() -> None:
    raw = b"1 .M SC.. 160000 160000 160000 " + HASH + b" " + HASH + b" lib\0"

    (file,) = parse_status(raw, 1).files

    assert file.submodule


@given(st.lists(st.tuples(NAMES, st.integers(0, 10**9), st.integers(0, 10**9)), max_size=8))
def test_counts_are_found_by_name(files: list[tuple[bytes, int, int]]) -> None:
    raw = b"".join(b"%d\t%d\t%b\0" % (added, deleted, name) for name, added, deleted in files)
    raw += b"-\t-\tbinary\x01\0" + b"1\t2\t\0old\0renamed\x01\0"

    counts = parse_counts(raw, 100)

    assert counts[b"binary\x01"] == Counts(None, None)
    assert counts[b"renamed\x01"] == Counts(1, 2)
    for name, added, deleted in {one[0]: one for one in files}.values():
        assert counts[name] == Counts(added, deleted)


def test_a_file_with_conflicts_is_listed_once_as_such() -> None:
    change = b":100644 100644 " + HASH + b" " + HASH
    raw = change + b" M\0f\0" + b":000000 100644 " + HASH + b" " + HASH + b" U\0f\0"
    raw += change + b" R087\0old\0new\0" + b"nonsense\0" + change + b" D\0gone\0"

    found = [(one.name, one.status, one.original) for one in parse_raw(raw, 100)]

    assert found == [(b"f", "U", None), (b"new", "R", b"old"), (b"gone", "D", None)]


@given(
    st.lists(
        st.tuples(*[st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b""))] * 3),
        max_size=6,
    )
)
def test_no_commit_is_lost(commits: list[tuple[bytes, bytes, bytes]]) -> None:
    raw = b"".join(
        b"\0".join([HASH, b"", author, email, b"2026-01-01 00:00:00 +0000", b"", message, b""])
        + b"\0"
        for author, email, message in commits
    )

    found = parse_log(raw, 100, bytes)

    assert [(one.author, one.email) for one in found] == [
        (author.decode(errors="replace"), email.decode(errors="replace"))
        for author, email, _ in commits
    ]


def test_refs_of_a_commit_are_whole_names() -> None:
    shown = b"HEAD -> refs/heads/a,b, tag: refs/tags/v1, refs/remotes/origin/main, HEAD"
    raw = b"\0".join([HASH, HASH + b" " + HASH, b"a", b"e", b"d", shown, b"s\n\nb\n", b""]) + b"\0"

    (commit,) = parse_log(raw, 100, bytes)

    assert commit.refs == ("refs/heads/a,b", "refs/tags/v1", "refs/remotes/origin/main")
    assert len(commit.parents) == 2
    assert (commit.subject, commit.body) == ("s", "b")


def test_branches_tell_how_far_they_are_from_their_upstream() -> None:
    line = [b"refs/heads/a", b"", HASH, b"refs/remotes/origin/a", b"ahead 1, behind 22", b"yes"]
    gone = [b"refs/heads/b", b"", HASH, b"refs/remotes/origin/b", b"gone", b""]
    raw = b"".join(b"\0".join([*one, b"2026", b"s"]) + b"\0\n" for one in (line, gone))

    first, second = parse_refs(raw, 100, bytes)

    assert (first.name, first.ahead, first.behind, first.checked_out) == (
        "refs/heads/a",
        1,
        22,
        True,
    )
    assert (second.name, second.ahead, second.behind, second.checked_out) == (
        "refs/heads/b", 0, 0, False,
    )  # fmt: skip


def test_numbers_of_a_commit() -> None:
    assert parse_shortstat(" 3 files changed, 1 insertion(+), 20 deletions(-)\n") == (3, 1, 20)
    assert parse_shortstat(" 1 file changed, 2 deletions(-)") == (1, 0, 2)
    assert parse_shortstat("") == (0, 0, 0)


def test_what_git_says_of_a_push() -> None:
    output = (
        "To http://x/git/y.git\n"
        "*\trefs/heads/a:refs/heads/a\t[new branch]\n"
        " \trefs/heads/b:refs/heads/b\t1..2\n"
        "=\trefs/heads/c:refs/heads/c\t[up to date]\n"
        "!\tHEAD:refs/heads/d\t[rejected] (fetch first)\n"
        "!\tHEAD:refs/heads/e\t[remote rejected] (hook (mine) declined)\n"
        "Done\n"
    )

    assert parse_push(output) == [
        PushedRef("*", "refs/heads/a", None, None),
        PushedRef(" ", "refs/heads/b", None, None),
        PushedRef("=", "refs/heads/c", None, None),
        PushedRef("!", "refs/heads/d", "rejected", "fetch first"),
        PushedRef("!", "refs/heads/e", "remote rejected", "hook (mine) declined"),
    ]


@given(st.binary(max_size=100), st.integers(0, 100))
def test_what_is_cut_ends_with_a_whole_line(raw: bytes, limit: int) -> None:
    shown, cut = cut_to_lines(raw, limit)

    assert raw.startswith(shown)
    assert len(shown) <= limit
    assert cut == (len(raw) > limit)
    assert not cut or shown == b"" or shown.endswith(b"\n")


CLEAR = HASH + b"\0" * 7
MANY: dict[str, tuple[Callable[[bytes], Sized], bytes]] = {
    "status": (lambda raw: parse_status(raw, 10).files, b"? a\0"),
    "renames": (lambda raw: parse_status(raw, 10).files, b"2 R. " + MODES + b" R9 b\0a\0"),
    "headers": (lambda raw: parse_status(raw, 10).files, b"# branch.head x\0"),
    "counts": (lambda raw: parse_counts(raw, 10), b"1\t1\t\0\0"),
    "raw": (lambda raw: parse_raw(raw, 10), b":000000 100644 0000 aaaa A\0x\0"),
    "log": (lambda raw: parse_log(raw, 10, bytes), CLEAR + b"\0"),
    "refs": (lambda raw: parse_refs(raw, 10, bytes), CLEAR + b"\0\n"),
    "names": (lambda raw: _porcelain.names(raw, 10), b"a\0"),
}


class Counted(bytes):
    """Bytes that note how far they are read, and refuse to be taken apart as a whole."""

    reached = 0

    def find(self, *sought: Any) -> int:
        found = super().find(*sought)
        Counted.reached = max(Counted.reached, found)
        return found

    def split(self, *_: Any) -> list[bytes]:  # type: ignore[override] - nobody may call it
        raise AssertionError


@pytest.mark.parametrize("kind", MANY)
def test_no_parser_reads_much_more_than_it_was_asked_for(kind: str) -> None:
    parse, record = MANY[kind]
    Counted.reached = 0

    found = parse(Counted(record * 10_000))

    assert len(found) <= 30
    assert 0 < Counted.reached < 100 * len(record)


def test_a_status_with_more_files_than_were_asked_for_is_not_complete() -> None:
    assert parse_status(b"? a\0? b\0", 2).complete
    assert not parse_status(b"? a\0? b\0? c\0", 2).complete


@pytest.mark.parametrize(
    "hostile",
    [
        b":000000" + b" 123456" * 700_000 + b"\0",
        HASH + b"\0" + b" a" * 2_500_000 + b"\0" * 7,
        HASH + b"\0" * 5 + b", a" * 1_700_000 + b"\0\0\0",
        HASH + b"\0" * 6 + b"\n" * 5_000_000 + b"\0\0",
        HASH + b"\0" * 6 + b"\n \t" * 1_700_000 + b"a\0\0",
        b"\0" * 4 + b"ahead 1, " * 600_000 + b"\0" * 4,
        b"# branch.ab " + b"+1 -1" * 1_000_000 + b"\0",
        b"\0" * 5_000_000,
    ],
    ids=["raw", "parents", "decorations", "lines", "blanks", "track", "header", "nothing"],
)
def test_no_five_megabytes_take_a_parser_long(hostile: bytes) -> None:
    begun = time.process_time()

    parse_status(hostile, 5000)
    parse_counts(hostile, 5000)
    parse_raw(hostile, 5000)
    parse_log(hostile, 200, bytes)
    parse_refs(hostile, 5000, bytes)

    assert time.process_time() - begun < 2


@given(st.text(alphabet="ab \t\r\n\x0b\x1c\x85\u2028", max_size=30))
def test_subject_and_body_are_the_paragraphs_of_a_message(message: str) -> None:
    lines = message.split("\n")
    while lines and not lines[0].strip():
        del lines[0]
    end = next((at for at, line in enumerate(lines) if not line.strip()), len(lines))
    rest = lines[end:]
    while rest and not rest[0].strip():
        del rest[0]

    assert subject_of(message) == " ".join(lines[:end])
    assert body_of(message) == "\n".join(rest).rstrip("\n")


def test_secrets_in_messages_and_names_are_masked_in_one_go() -> None:
    asked: list[bytes] = []

    def mask(raw: bytes) -> bytes:
        asked.append(raw)
        return raw.replace(b"hunter2\nhunter2", b"***")

    fields = [HASH, b"", b"hunter2\nhunter2", b"e", b"d", b"", b"s hunter2\nhunter2 s\n\nb\n", b""]
    raw = (b"\0".join(fields) + b"\0") * 3

    found = parse_log(raw, 10, mask)

    assert [(one.author, one.subject, one.body) for one in found] == [("***", "s *** s", "b")] * 3
    assert len(asked) == 2
    # A masker that gives up hides all of it.
    assert {one.body + one.author for one in parse_log(raw, 10, lambda _: b"***")} == {"***"}

"""The form of the scripts' answers, and what a push's many endings mean."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.git._pulling import moves
from craftastic.git._pushing import Attempt, network_failure, verdict
from craftastic.git._scripts import Answer, Part, last_lines, parse_answer, refusal
from craftastic.githosts.service import ASKS_FOR_ACCOUNT

MARK = b"0123456789abcdef0123456789abcdef"
COMMIT, OTHER, ZEROS = "a" * 40, "b" * 40, "0" * 40


def test_fields_and_parts_and_a_refusal_are_told_apart() -> None:
    raw = (
        MARK + b" - operation \n" + MARK + b" status\na\nb\0\n" + MARK + b" = 0\n"
        + MARK + b" - head abc def\n" + MARK + b" said\n\n" + MARK + b" = 141\ngit_locked\n/x y\n"
    )  # fmt: skip

    answer = parse_answer(raw, MARK)

    assert answer == Answer(
        {"operation": "", "head": "abc def"},
        {"status": Part(b"a\nb\0", 0), "said": Part(b"", 141)},
        ("git_locked", "/x y"),
    )
    assert answer.part("nothing") == Part(b"", 0)


@given(st.binary(max_size=200))
def test_a_part_holds_any_bytes(output: bytes) -> None:
    raw = MARK + b" x\n" + output + b"\n" + MARK + b" = 0\n" + MARK + b" - last one\n"

    answer = parse_answer(raw, MARK)

    assert answer.parts == {"x": Part(output, 0)}
    assert answer.fields == {"last": "one"}


@given(st.data())
def test_an_answer_that_is_cut_anywhere_is_some_answer(data: st.DataObject) -> None:
    raw = MARK + b" x\nabc\n" + MARK + b" = 0\n" + MARK + b" - field value\nbusy\n\n"
    cut = data.draw(st.integers(0, len(raw) - 1))

    answer = parse_answer(raw[:cut], MARK)

    assert answer.part("x").output in {b"", *(b"abc\n"[:end] for end in range(5))} or (
        answer.part("x").ended == 141
    )


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_an_answer(raw: bytes) -> None:
    parse_answer(raw, MARK)
    parse_answer(MARK + b" " + raw, MARK)


def test_every_refusal_of_all_scripts_has_a_way_on() -> None:
    for code in ("worktree_missing", "git_locked", "too_long"):
        error = refusal(code, "/somewhere")
        assert error is not None
        assert error.details
    assert refusal("made_up", "") is None


@dataclass
class Seen:
    outcome: str
    reason: str | None = None
    ref: str = "refs/heads/work"
    old: str = ZEROS
    new: str = COMMIT


REJECTED = "!\trefs/heads/work:refs/heads/work\t[rejected] (fetch first)\nDone\n"
UP_TO_DATE = "=\trefs/heads/work:refs/heads/work\t[up to date]\nDone\n"
NEW = "*\trefs/heads/work:refs/heads/work\t[new branch]\nDone\n"
REMOTE_FAILED = "!\trefs/heads/work:refs/heads/work\t[remote failure] (no report)\nDone\n"
DENIED = "fatal: unable to access 'x': The requested URL returned error: "
ASKED = f"remote: h {ASKS_FOR_ACCOUNT}: connect.\nfatal: unable to access 'x': error: 403"


@pytest.mark.parametrize(
    ("seen", "status", "stdout", "stderr", "code"),
    [
        ([Seen("ok")], 0, NEW, "", None),
        ([Seen("ok")], 1, "", "", None),  # what arrived has arrived
        ([], 0, UP_TO_DATE, "", "PUSH_NOT_SEEN"),  # git's own word alone
        ([], 1, UP_TO_DATE, "", "PUSH_HOOK_REFUSED"),
        ([], 0, NEW, "", "PUSH_NOT_SEEN"),
        ([Seen("ok", ref="refs/heads/other")], 0, NEW, "", "PUSH_NOT_SEEN"),
        ([Seen("ok", new=OTHER)], 0, NEW, "", "PUSH_NOT_SEEN"),
        ([Seen("refused", "not this branch")], 1, "", "", "PUSH_NOT_ALLOWED"),
        ([Seen("rejected", "pre-receive hook declined")], 1, "", "", "UPSTREAM_REJECTED"),
        ([Seen("rejected", "protected branch")], 1, "", "remote: why", "UPSTREAM_REJECTED"),
        ([Seen("rejected", "non-fast-forward")], 1, "", "", "PUSH_REJECTED"),
        ([Seen("rejected", "cannot lock ref 'x': is at y")], 1, "", "", "PUSH_REJECTED"),
        ([Seen("failed", "cut")], 1, REMOTE_FAILED, "", "PUSH_UNCONFIRMED"),
        ([Seen("failed")], 1, "", "error: RPC failed; HTTP 502 curl 22", "UPSTREAM_UNAVAILABLE"),
        ([], 1, REJECTED, "", "PUSH_REJECTED"),
        ([], 128, "", ASKED, "GIT_AUTHENTICATION_REQUIRED"),
        ([], 128, "", "fatal: unable to access 'x': Could not resolve", "UPSTREAM_UNAVAILABLE"),
        ([], 1, "", "lint failed", "PUSH_HOOK_REFUSED"),
        ([], 124, "", "", "PUSH_UNCONFIRMED"),
    ],
)
def test_what_the_gateway_saw_decides_how_a_push_ended(
    seen: list[Seen], status: int, stdout: str, stderr: str, code: str | None
) -> None:
    error = verdict(Attempt("work", COMMIT, status, stdout, stderr, seen))

    assert (error and error.code) == code


@pytest.mark.parametrize(
    ("advertised", "after", "exact", "there"),
    [
        ({"refs/heads/work": COMMIT}, COMMIT, True, COMMIT),
        ({"refs/heads/work": OTHER}, COMMIT, True, None),
        ({"refs/heads/work": OTHER}, OTHER, True, None),
        ({"refs/heads/work": OTHER}, OTHER, False, OTHER),  # it moved before git read it
        ({"refs/heads/other": COMMIT}, COMMIT, False, None),
        ({"refs/heads/work": ""}, "", False, None),
        ({}, COMMIT, True, None),
        (None, COMMIT, True, None),
    ],
)
def test_only_the_upstreams_own_refs_tell_that_it_has_everything(
    advertised: dict[str, str] | None, after: str, exact: bool, there: str | None
) -> None:
    attempt = Attempt(
        "work", COMMIT, 0, UP_TO_DATE, "", [], after=after, exact=exact, advertised=advertised
    )

    assert attempt.there == there
    assert (verdict(attempt) is None) == (there is not None)


def test_a_branch_that_moved_before_git_read_it_is_found_by_its_name() -> None:
    moved = [Seen("failed", new=OTHER), Seen("ok", new=OTHER)]

    attempt = Attempt("work", COMMIT, 0, NEW, "", moved, exact=False)

    assert attempt.arrived == moved[1]
    assert Attempt("work", COMMIT, 0, NEW, "", [*moved, Seen("ok")], exact=False).arrived == Seen(
        "ok"
    )
    assert Attempt("work", COMMIT, 0, NEW, "", moved, exact=True).arrived is None
    assert Attempt("other", COMMIT, 0, NEW, "", moved, exact=False).arrived is None


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (f"remote: no.\n{DENIED}403", "UPSTREAM_REFUSES_ACCESS"),
        ("fatal: repository 'http://x/' not found", "UPSTREAM_REFUSES_ACCESS"),
        (f"{DENIED}429", "UPSTREAM_UNAVAILABLE"),
        (f"{DENIED}504", "UPSTREAM_UNAVAILABLE"),
        ("fatal: early EOF", "UPSTREAM_UNAVAILABLE"),
        ("fatal: something else", None),
        ("", None),
    ],
)  # fmt: skip
def test_why_a_transfer_did_not_work(said: str, code: str | None) -> None:
    error = network_failure(said)

    assert (error and error.code) == code


def test_what_the_remote_says_is_told() -> None:
    error = network_failure("remote: first\nremote: second\nfatal: unable to access 'x'")

    assert error is not None
    assert error.details == "first second"


def test_an_answer_has_few_entries_of_bounded_size() -> None:
    line = MARK + b" - f%d " + b"x" * 100_000 + b"\n"

    answer = parse_answer(b"".join(line % at for at in range(200)), MARK)

    assert len(answer.fields) == 100
    assert max(map(len, answer.fields.values())) <= 10_000


@pytest.mark.parametrize(
    ("raw", "most", "kept"),
    [(b"abc\ndef\n", 8, b"abc\ndef\n"), (b"secret\nx\n", 5, b"x\n"), (b"secret", 3, b"")],
)
def test_the_end_of_a_text_begins_with_a_whole_line(raw: bytes, most: int, kept: bytes) -> None:
    assert last_lines(raw, most) == kept


def test_moves_are_the_difference_of_two_lists() -> None:
    found = moves(b"a refs/1\nb refs/2\nd refs/4\n\n", b"a refs/1\nc refs/2\ne refs/3\n")

    assert [(one.ref, one.old, one.new) for one in found] == [
        ("refs/2", "b", "c"), ("refs/3", None, "e"), ("refs/4", "d", None),
    ]  # fmt: skip

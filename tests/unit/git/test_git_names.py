"""Names from outside: which are taken as what, and which are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.errors import InvalidInput
from craftastic.git._committing import Wanted, check_message, select
from craftastic.git._names import (
    BadCommitId,
    BadFileName,
    BadIdentity,
    BadRef,
    check_commit_id,
    check_file_name,
    check_identity,
    check_ref,
    chosen_name,
    chosen_names,
    exact,
    shown,
)
from craftastic.git._porcelain import Status, StatusFile
from craftastic.git._refusals import MergeConflicts, NothingToCommit


@given(st.binary(max_size=60))
def test_an_accepted_file_name_stays_inside_and_is_plain(raw: bytes) -> None:
    try:
        name = check_file_name(raw)
    except BadFileName:
        assert raw.startswith(b"/") or b"\0" in raw or b".." in raw
        return

    assert not name.startswith(b"/")
    assert not {b"..", b".", b""} & set(name.split(b"/")) or name == b""


@pytest.mark.parametrize("raw", [b"/a", b"..", b"a/..", b"../a", b"a/../b", b"a\0", b"x" * 5000])
def test_names_that_lead_elsewhere_are_refused(raw: bytes) -> None:
    with pytest.raises(BadFileName):
        check_file_name(raw)


@pytest.mark.parametrize(
    ("raw", "name"),
    [(b"", b""), (b".", b""), (b"./a//b/", b"a/b"), (b"...", b"..."), (b"a..b", b"a..b")],
)
def test_names_are_brought_to_their_plain_form(raw: bytes, name: bytes) -> None:
    assert check_file_name(raw) == name


@given(st.binary(min_size=1, max_size=40))
def test_the_text_or_the_base64_of_a_name_tells_its_bytes(raw: bytes) -> None:
    encoded = exact(raw)

    assert (encoded is None) == (shown(raw).encode() == raw)
    if encoded is not None and b"\0" not in raw and b"/" not in raw:
        assert chosen_name(None, encoded) == raw


def test_one_name_is_given_once() -> None:
    assert chosen_name("", "") == b""
    assert chosen_name(None, "/w==") == b"\xff"
    assert chosen_names(["a", "./a", "b"], ["YQ=="]) == [b"a", b"b"]
    for file, encoded in (("a", "YQ=="), (None, "a"), (None, "é")):
        with pytest.raises(BadFileName):
            chosen_name(file, encoded)
    with pytest.raises(BadFileName):
        chosen_names(["."], [])


@pytest.mark.parametrize(
    "name", ["main", "feature/x", "origin/main", "v1.0", "abc123", "é", "a;id"]
)
def test_names_of_branches_and_commits_are_taken(name: str) -> None:
    assert check_ref(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "-x",
            "--all",
            "a..b",
            "a...b",
            "a~1",
            "a^",
            "a^{tree}",
            "a:b",
            ":/x",
            "@{-1}",
            "a@{u}",
        ),
        *("a b", "a\n", "a*", "a?", "[a", "/a", "a//b", "a\\b", "x" * 500),
    ],
)
def test_calculations_and_options_are_no_names(name: str) -> None:
    with pytest.raises(BadRef):
        check_ref(name)


def test_an_expected_commit_is_a_whole_hash() -> None:
    assert check_commit_id(None) == ""
    assert check_commit_id("A" * 40) == "a" * 40
    assert check_commit_id("0" * 64) == "0" * 64
    for text in ("", "abc", "g" * 40, "a" * 41, "main", "a" * 40 + "\n"):
        with pytest.raises(BadCommitId):
            check_commit_id(text)


@given(st.text(max_size=30), st.text(max_size=30))
def test_an_accepted_identity_cannot_break_a_commits_header(name: str, email: str) -> None:
    try:
        found = check_identity(name, email)
    except BadIdentity:
        return

    assert found == (name, email)
    assert not set("<>\n\r\0") & set(name + email)


@pytest.mark.parametrize("message", ["", " ", "\n\t\n", "é" * 33_000])
def test_messages_that_no_commit_can_have(message: str) -> None:
    with pytest.raises(InvalidInput):
        check_message(message)


def files(*changed: StatusFile) -> Status:
    return Status(files=list(changed))


def test_a_renamed_file_stands_for_its_old_name_and_a_folder_for_what_is_in_it() -> None:
    status = files(
        StatusFile(b"new", "R ", b"old"),
        StatusFile(b"copy", "C ", b"kept"),
        StatusFile(b"d/one", "??"),
        StatusFile(b"d/two", " M"),
        StatusFile(b"dd", "??"),
        StatusFile(b"repo/", "??"),
    )

    assert select(status, Wanted([b"new"])) == ([], [b"new", b"old"])
    assert select(status, Wanted([b"old"])) == ([], [b"new", b"old"])
    assert select(status, Wanted([b"copy"])) == ([], [b"copy"])
    assert select(status, Wanted([b"d"])) == ([b"d/one"], [b"d/one", b"d/two"])
    for name in (b"dd/x", b"nowhere", b"on"):
        with pytest.raises(NothingToCommit):
            select(status, Wanted([b"new", name]))


def test_conflicts_keep_named_files_from_being_committed() -> None:
    status = files(StatusFile(b"a", " M"), StatusFile(b"b", "UU", conflicted=True))

    with pytest.raises(MergeConflicts) as refusal:
        select(status, Wanted([b"a"]))

    assert refusal.value.answer == {"files": ["b"]}

"""What a repository holds can never drive the terminal of who looks at it."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.cli._git_text import (
    GrowingLog,
    coloured,
    diff_lines,
    file_name,
    joined_diffs,
    plain,
    short_code,
    status_lines,
    visible,
    without_escapes,
)

HOSTILE = "\x1b]0;pwned\x07\x1b[2J\r\x9b31m\u202egnp.exe\u2028\ud800\x00"


def harmless(text: str) -> bool:
    return not any(
        unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} and char != "\t"
        for char in text
    )


def changed(name: str, status: str = "M", **more: Any) -> dict[str, Any]:
    return {
        "filename": name,
        "status": status,
        "staged": False,
        "modified": True,
        "untracked": status == "??",
        "conflicted": False,
        **more,
    }


def status_of(*files: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "branch": "work",
        "head": "a" * 40,
        "ahead": 0,
        "behind": 0,
        "detached": False,
        "operation": None,
        "files": list(files),
        **more,
    }


@given(st.text(st.characters(), max_size=200))
def test_a_line_is_shown_without_any_control_character(line: str) -> None:
    assert harmless(visible(line))


@given(st.text(st.characters(), max_size=200))
def test_a_name_of_a_file_is_one_harmless_line(name: str) -> None:
    shown = file_name(name)

    assert harmless(shown)
    assert "\t" not in shown


@given(st.text(st.characters(), max_size=200), st.text(st.characters(), max_size=200))
def test_two_names_that_differ_are_shown_differently(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


def test_what_cannot_be_seen_is_shown_as_a_sign() -> None:
    assert visible("a\tb\x1b[0m\x7f\x00é日🎉") == "a\tb^[[0m^?^@é日🎉"
    assert visible("x\u202ey\u200bz\x9b") == "x<U+202E>y<U+200B>z<U+009B>"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("src/a b.py", "src/a b.py"),
        ("naïve 日本.txt", "naïve 日本.txt"),
        ("two\nlines", '"two\\nlines"'),
        ("a\x1b[2J", '"a\\u001b[2J"'),
        ("a\u202eb", '"a\\u202eb"'),
        ("a\x7f<U+202E>", '"a\\u007f<U+202E>"'),
        (" edge", '" edge"'),
        ('"quoted"', '"\\"quoted\\""'),
        ("-rf", "-rf"),
    ],
)
def test_a_name_that_is_plain_stays_as_it_is_and_others_are_quoted(name: str, shown: str) -> None:
    assert file_name(name) == shown


@pytest.mark.parametrize(
    ("status", "staged", "code"),
    [("M", False, " M"), ("M", True, "M "), ("AM", True, "AM"), ("??", False, "??")],
)
def test_the_two_columns_are_gits_own(status: str, staged: bool, code: str) -> None:
    assert short_code(changed("a", status, staged=staged)) == code


def test_a_status_reads_like_gits_short_form_with_counts() -> None:
    status = status_of(
        changed("a.txt", added=3, deleted=1),
        changed("new", "R", staged=True, modified=False, originalFilename="old"),
        changed("pic", "??", binary=True),
        upstream="origin/work",
        ahead=2,
        behind=1,
        operation="rebase",
    )

    assert list(status_lines(status, plain)) == [
        "## work...origin/work [ahead 2, behind 1]",
        "## rebase in progress",
        " M a.txt  +3 -1",
        "R  old -> new",
        "?? pic  binary",
    ]


def test_a_branch_without_commits_and_no_branch_at_all_are_told() -> None:
    assert list(status_lines(status_of(head=None), plain)) == ["## No commits yet on work"]
    assert list(status_lines(status_of(detached=True), plain)) == ["## HEAD (no branch)"]


def test_hostile_words_in_every_field_of_a_status_are_harmless() -> None:
    status = status_of(
        changed(HOSTILE, HOSTILE, originalFilename=HOSTILE),
        branch=HOSTILE,
        upstream=HOSTILE,
        operation=HOSTILE,
    )

    assert all(harmless(line) for line in status_lines(status, plain))


def test_a_diff_has_colours_by_what_each_line_is() -> None:
    text = (
        "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ f()\n"
        " same\n--- removed\n+++ added\n\\ No newline at end of file\n"
        "diff --git a/y b/y\nnew file mode 100644\n"
    )

    roles = [
        (line[2 : line.index("m")] if line.startswith("\x1b") else "")
        for line in diff_lines(text, coloured)
    ]

    assert roles == ["1", "1", "1", "36", "", "31", "32", "", "1", "1"]


@given(st.text(st.characters(), max_size=500))
def test_a_diff_of_anything_is_harmless_and_keeps_its_lines(text: str) -> None:
    lines = list(diff_lines(text, plain))

    assert all(harmless(line) for line in lines)
    assert len(lines) == len(text.split("\n")) - (text == "" or text.endswith("\n"))


def test_the_only_escapes_in_a_coloured_diff_are_our_own() -> None:
    text = f"diff --git a/x b/x\n@@ -0,0 +1 @@{HOSTILE}\n+{HOSTILE}\n-{HOSTILE}\n {HOSTILE}\n"

    for line in diff_lines(text, coloured):
        bare = line
        for code in ("1", "31", "32", "36", "0"):
            bare = bare.replace(f"\x1b[{code}m", "")
        assert harmless(bare)


def test_diffs_of_several_paths_become_one() -> None:
    one = {"diff": "a\n", "file": "a", "files": [1], "truncated": False, "masked": True}
    other = {"diff": "b\n", "file": "b", "files": [2], "truncated": True, "masked": False}

    assert joined_diffs([one]) == one
    assert joined_diffs([one, other]) == {
        "diff": "a\nb\n",
        "file": None,
        "files": [1, 2],
        "truncated": True,
        "masked": True,
    }


def test_a_programs_output_loses_its_colours_and_tricks() -> None:
    output = "\x1b[1;32mok\x1b[0m 10%\r20%\r\n\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x1b[2K\x07\n"

    assert without_escapes(output) == "ok 10%\n20%\nlink^G\n"
    assert harmless(without_escapes(HOSTILE).replace("\n", ""))


def test_a_log_that_grows_gives_each_line_once_and_a_half_line_at_the_end() -> None:
    log = GrowingLog()

    assert log.new("one\ntw") == "one\n"
    assert log.new("one\ntw") == ""
    assert log.new("one\ntwo\n") == "two\n"
    assert log.new("one\ntwo\nrest", ended=True) == "rest"


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=20),
)
def test_a_log_whose_oldest_lines_fall_off_still_gives_every_line_in_order(
    words: list[int], steps: list[int]
) -> None:
    lines = [f"{number} {'x' * word}\n" for number, word in enumerate(words)]
    log, given_out, there = GrowingLog(), "", 0
    while there < len(lines):
        # No more comes between two looks than the window holds, so that nothing is lost.
        there = min(there + steps[there % len(steps)], len(lines))
        whole = "".join(lines[:there])
        window = whole[-600:]
        given_out += log.new(window, cut=len(window) < len(whole), ended=there == len(lines))

    assert given_out == "".join(lines)

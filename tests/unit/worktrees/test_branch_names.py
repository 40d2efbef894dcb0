"""Branch names and their folders."""

import posixpath
import unicodedata
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from craftastic.worktrees._branches import branch_key, check_branch, conflicting, encode_branch
from craftastic.worktrees._progress import CloneOutput, readable
from craftastic.worktrees.service import BadBranchName, worktree_path

ENVIRONMENT = UUID("6f9d5b7e-1c1f-4a86-9a53-0d4a2d7c8f11")
ROOT = f"/home/dev/.craftastic/worktrees/{ENVIRONMENT}"


def NFC(text: str) -> str:  # noqa: N802
    return unicodedata.normalize("NFC", text)


COMPONENTS = st.text(
    st.one_of(
        st.sampled_from("aAbBéÉß\u017fKÅ-_%2eE@#;$'\"+.{}"),
        st.characters(categories=["L", "N", "P", "S"], exclude_characters="~^:?*[\\/"),
    ),
    min_size=1,
    max_size=12,
)
NAMES = st.lists(COMPONENTS, min_size=1, max_size=3).map(lambda parts: NFC("/".join(parts)))
RELAXED = settings(suppress_health_check=[HealthCheck.filter_too_much])


def accepted(name: str) -> bool:
    try:
        return check_branch(name) == name
    except BadBranchName:
        return False


def folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


@RELAXED
@given(NAMES, NAMES)
@example("a%2Eb", "a.b")
@example("a./b", "a%2E/b")
@example("é", "%C3%A9")
@example("A", "a")
def test_two_branches_that_may_live_together_have_two_folders(one: str, two: str) -> None:
    assume(one != two and accepted(one) and accepted(two))
    if branch_key(one) == branch_key(two) or conflicting(branch_key(one), branch_key(two)):
        assert encode_branch(one) != encode_branch(two)
        return

    first, second = worktree_path(ENVIRONMENT, one), worktree_path(ENVIRONMENT, two)

    assert folded(first) != folded(second)
    assert not folded(first).startswith(folded(second) + "/")


@RELAXED
@given(NAMES)
@example("a./b")
@example("x" * 119 + "/" + "é" * 39)
def test_a_folder_never_leaves_the_root_and_fits_every_file_system(name: str) -> None:
    assume(accepted(name))

    path = worktree_path(ENVIRONMENT, name)

    assert path.isascii()
    assert posixpath.normpath(path) == path
    assert path.startswith(f"{ROOT}/")
    for part in path.removeprefix(f"{ROOT}/").split("/"):
        assert part not in {"", ".", ".."}
        assert not part.startswith(".")
        assert not part.endswith((".", " "))
        assert len(part) <= 255


def test_usual_names_are_folders_as_they_are() -> None:
    assert encode_branch("feature/JIRA-12_new.thing") == "feature/JIRA-12_new.thing"


def test_long_parts_that_differ_at_their_end_have_different_folders() -> None:
    one, two = "é" * 59 + "a", "é" * 59 + "b"

    assert accepted(one)
    assert encode_branch(one) != encode_branch(two)
    assert len(encode_branch(one)) <= 200


@pytest.mark.parametrize(
    "name",
    [
        *("", "@", "HEAD", "-D", "refs/heads/x", "a..b", "a b", "a\n", "a:b", "a.lock", "a/.b"),
        *("e\u0301", "a\u202eb", "a\u200bb", "\ufeffa", "x" * 201, "x" * 121, "\ud800"),
    ],
)
def test_a_name_is_refused(name: str) -> None:
    with pytest.raises(BadBranchName):
        check_branch(name)


@pytest.mark.parametrize("name", ["$(id)", "a;id", 'a"b', "a@b", "a/-b", "ü", "x" * 120])
def test_a_name_that_only_looks_odd_is_accepted(name: str) -> None:
    assert check_branch(name) == name


@pytest.mark.parametrize(
    ("one", "two", "is_one"), [("Main", "main", True), ("É", "é", True), ("a", "b", False)]
)
def test_names_that_some_file_system_takes_for_one_share_a_key(
    one: str, two: str, is_one: bool
) -> None:
    assert (branch_key(one) == branch_key(two)) == is_one


def test_progress_is_read_across_any_split_of_the_bytes() -> None:
    raw = b"remote: Counting objects: 5, done.\rReceiving objects:  50% (1/2)\rfatal: no\n"
    for cut in range(len(raw)):
        output = CloneOutput()
        seen = [output.feed(raw[:cut]), output.feed(raw[cut:])]
        assert any(one is not None and one.percent == 40 for one in seen)
        assert output.said == "fatal: no"


def test_endless_output_without_a_line_end_stays_bounded() -> None:
    output = CloneOutput()
    for _ in range(100):
        output.feed(b"x" * 10_000)

    assert len(output.said) <= 1000


def test_hostile_output_is_shown_without_control_characters() -> None:
    assert readable(b"a\x1b]0;evil\x07b\xff\r\nc") == "a ]0;evil b\ufffd c"

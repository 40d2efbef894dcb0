"""The table of what may be pushed, by policy and by kind of ref."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.gateway._pkt_line import RefUpdate
from craftastic.pushes._policy import MAX_REFS, moved_branches, refusals
from craftastic.pushes.service import PushIntent, PushPolicy

NONE, ONE, TWO = "0" * 40, "1" * 40, "2" * 40
KNOWN = {"session", "own"}

NEW_BRANCH = RefUpdate("refs/heads/new", NONE, ONE)
SESSION_BRANCH = RefUpdate("refs/heads/session", ONE, TWO)
OWN_BRANCH = RefUpdate("refs/heads/own", ONE, TWO)
OTHER_BRANCH = RefUpdate("refs/heads/main", ONE, TWO)
NEW_TAG = RefUpdate("refs/tags/v1", NONE, ONE)
MOVED_TAG = RefUpdate("refs/tags/v1", ONE, TWO)
DELETED_OTHER = RefUpdate("refs/heads/main", ONE, NONE)
DELETED_OWN = RefUpdate("refs/heads/own", ONE, NONE)
DELETED_NOTHING = RefUpdate("refs/heads/x", NONE, NONE)
NOTES = RefUpdate("refs/notes/commits", NONE, ONE)
CHANGES = RefUpdate("refs/for/main", NONE, ONE)
OURS = RefUpdate("refs/craftastic/kept/1", NONE, ONE)
HEAD = RefUpdate("HEAD", ONE, TWO)

ROWS = {
    NEW_BRANCH: (True, True),
    SESSION_BRANCH: (True, True),
    OWN_BRANCH: (True, True),
    OTHER_BRANCH: (True, False),
    NEW_TAG: (True, False),
    MOVED_TAG: (True, False),
    DELETED_OTHER: (True, False),
    DELETED_OWN: (True, False),
    DELETED_NOTHING: (True, False),
    NOTES: (True, False),
    CHANGES: (True, False),
    OURS: (False, False),
    HEAD: (False, False),
}
"""Whether each may be pushed, under `any` and under `sessions`; under `none` nothing may."""

ODD = [
    "refs/heads/",
    "refs/heads//x",
    "refs/heads/../tags/v1",
    "refs/heads/./x",
    "refs/heads/.x",
    "refs/heads/-x",
    "refs/heads/@",
    "refs",
    "refs/",
    "/refs/heads/x",
    "Refs/heads/x",
    "heads/x",
    "refs/craftastic",
    "refs/Craftastic/x",
    "refs/CRAFTASTIC",
]


@pytest.mark.parametrize("update", ROWS, ids=lambda one: f"{one.ref} {one.old[0]}{one.new[0]}")
@pytest.mark.parametrize("policy", PushPolicy)
def test_policy_says_which_refs_may_be_pushed(policy: PushPolicy, update: RefUpdate) -> None:
    by_any, by_sessions = ROWS[update]
    allowed = {PushPolicy.ANY: by_any, PushPolicy.SESSIONS: by_sessions, PushPolicy.NONE: False}

    reasons = refusals(policy, PushIntent([update]), KNOWN)

    assert (reasons == {}) == allowed[policy]
    assert set(reasons) <= {update.ref}


@pytest.mark.parametrize("ref", ODD)
@pytest.mark.parametrize("policy", PushPolicy)
def test_odd_names_may_never_be_pushed(policy: PushPolicy, ref: str) -> None:
    assert set(refusals(policy, PushIntent([RefUpdate(ref, NONE, ONE)]), {""})) == {ref}


def test_reasons_name_what_would_help() -> None:
    updates = [NEW_TAG, OTHER_BRANCH, RefUpdate("refs/heads/y", ONE, NONE), NOTES]

    reasons = list(refusals(PushPolicy.SESSIONS, PushIntent(updates), KNOWN).values())

    allowed = "this environment allows pushes to its sessions' branches and to new branches; "
    assert reasons == [
        f"{allowed}change its push policy to push tags",
        f"{allowed}start a session on this branch, or change its push policy, to push to it",
        f"{allowed}change its push policy to delete branches",
        f"{allowed}change its push policy to push refs that are not branches",
    ]


def test_only_branches_that_move_have_to_be_known() -> None:
    updates = [NEW_BRANCH, SESSION_BRANCH, DELETED_OTHER, NEW_TAG, MOVED_TAG]

    assert moved_branches(updates) == {"session", "main"}


@given(
    st.lists(
        st.builds(
            RefUpdate,
            st.one_of(st.sampled_from(ODD), st.text(max_size=30).map(lambda x: f"refs/heads/{x}")),
            st.sampled_from([NONE, ONE]),
            st.sampled_from([NONE, TWO]),
        ),
        max_size=8,
    ),
    st.sets(st.text(max_size=5)),
)
def test_narrower_policies_allow_nothing_that_a_wider_one_refuses(
    updates: list[RefUpdate], known: set[str]
) -> None:
    refused = [
        set(refusals(policy, PushIntent(updates), known))
        for policy in (PushPolicy.ANY, PushPolicy.SESSIONS, PushPolicy.NONE)
    ]

    assert refused[0] <= refused[1] <= refused[2] == {update.ref for update in updates}


@pytest.mark.parametrize("policy", list(PushPolicy))
def test_options_of_a_push_need_the_widest_policy(policy: PushPolicy) -> None:
    intent = PushIntent([NEW_BRANCH, SESSION_BRANCH], options=["merge_request.create"])

    reasons = refusals(policy, intent, KNOWN)

    assert set(reasons) == (
        set() if policy is PushPolicy.ANY else {NEW_BRANCH.ref, SESSION_BRANCH.ref}
    )
    assert all("change its push policy" in reason for reason in reasons.values())


@pytest.mark.parametrize("policy", list(PushPolicy))
def test_push_of_more_refs_than_can_be_named_is_refused_whatever_the_policy(
    policy: PushPolicy,
) -> None:
    updates = [RefUpdate(f"refs/heads/b{number}", NONE, ONE) for number in range(MAX_REFS + 1)]

    whole = refusals(policy, PushIntent(updates), KNOWN)
    fewer = refusals(policy, PushIntent(updates[:-1]), KNOWN)

    assert set(whole) == {update.ref for update in updates}
    assert all(f"{MAX_REFS} refs; push fewer" in reason for reason in whole.values())
    assert not any("push fewer" in reason for reason in fewer.values())

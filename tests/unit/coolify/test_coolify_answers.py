"""Coolify's answers, true and hostile ones, and what may be put into a question."""

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.coolify._answers import (
    MAX_LINE_CHARS,
    MAX_LIST,
    MAX_NAME_CHARS,
    Asked,
    LogLine,
    RollbackImage,
    Run,
    RunStatus,
    base_of,
    check_application_id,
    check_commit,
    check_run_id,
    clean,
    clean_lines,
    parsed,
    read_application,
    read_application_log,
    read_applications,
    read_asked,
    read_images,
    read_run,
    read_runs,
    read_version,
)
from craftastic.coolify.errors import (
    BadApplicationId,
    BadCommit,
    BadCoolifyUrl,
    CoolifyUnavailable,
)
from craftastic.errors import CraftasticError

SHA = "0123456789abcdef0123456789abcdef01234567"

ODD_IDS = [
    "",
    ".",
    "..",
    "../servers/x",
    "..%2fservers%2fx",
    "a/b",
    "a%2Fb",
    "a\\b",
    "a?force=true",
    "a#b",
    "a,b",
    "a b",
    "a\n",
    "a\r\nX-Header: 1",
    "a\0",
    "ä",
    "١٢٣",
    "a" * 65,
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["abc123", "HEAD", "finished", SHA, "/page", "[]", '[{"output":1}]']),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "uuid", "name", "status", "logs", "output", "hidden", "order", "type",
                    "message", "deployments", "deployment_uuid", "resource_uuid", "commit",
                    "created_at", "pull_request_id", "deployment_url", "fqdn", "git_branch",
                    "images", "tag", "count", "0", "1", "command", "timestamp",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)  # fmt: skip


def row(**more: Any) -> dict[str, Any]:
    return {
        "id": 4,
        "application_id": "17",
        "deployment_uuid": "run1",
        "status": "in_progress",
        "commit": SHA,
        "pull_request_id": 0,
        "created_at": "2026-07-19T10:00:00.000000Z",
        "deployment_url": "/project/p/environment/e/application/a/deployment/run1",
    } | more


# ---- questions ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a", "vgsco4o", "A-b_9", "0" * 64])
def test_plain_id_is_taken_as_it_is(text: str) -> None:
    assert check_application_id(text) == check_run_id(text) == text


@pytest.mark.parametrize("text", ODD_IDS)
def test_id_that_could_change_a_path_is_refused(text: str) -> None:
    with pytest.raises(BadApplicationId):
        check_application_id(text)
    with pytest.raises(BadApplicationId):
        check_run_id(text)


def test_commit_is_taken_in_lower_case_and_nothing_else_is_a_commit() -> None:
    assert check_commit(f" {SHA.upper()} ") == SHA
    assert check_commit("abcdef0") == "abcdef0"

    for text in ["", "HEAD", "abcdef", "main", SHA * 2, "abcdefg", "--upload-pack=x"]:
        with pytest.raises(BadCommit):
            check_commit(text)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://coolify.example.com", "https://coolify.example.com/api/v1"),
        ("https://coolify.example.com/", "https://coolify.example.com/api/v1"),
        ("https://coolify.example.com/api/v1", "https://coolify.example.com/api/v1"),
        ("https://coolify.example.com/api/v1/", "https://coolify.example.com/api/v1"),
        ("  HTTPS://Coolify.Example.com:443//\n", "https://coolify.example.com/api/v1"),
        ("http://10.0.0.5:8000/api/v1", "http://10.0.0.5:8000/api/v1"),
        ("http://h:80", "http://h/api/v1"),
        ("https://h:80", "https://h:80/api/v1"),
        ("https://h/tools/coolify/", "https://h/tools/coolify/api/v1"),
        ("https://h/tools/api/v1", "https://h/tools/api/v1"),
        ("https://[::1]:8000", "https://[::1]:8000/api/v1"),
        ("https://bücher.example", "https://xn--bcher-kva.example/api/v1"),
    ],
)
def test_address_has_one_form_however_it_is_written(url: str, base: str) -> None:
    assert base_of(url) == base
    assert base_of(base) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "coolify.example.com",
        "ftp://h",
        "file:///etc/passwd",
        "https://",
        "https:///api/v1",
        "https://user:password@h",
        "https://user@h",
        "https://h?x=1",
        "https://h/api/v1?x",
        "https://h#x",
        "https://h/../x",
        "https://h/./x",
        "https://h/a//b",
        "https://h/%2e%2e/x",
        "https://h\\@evil.example",
        "https://h/\\evil.example",
        "https://h\nX: 1",
        "https://h h",
        "https://h:0",
        "https://h:65536",
        "https://h:80:90",
        "https://h:x",
        "https://a..b",
        "https://[::1",
        "https://[gg]",
        "https://straße.example",
        "https://h/" + "a" * 300,
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadCoolifyUrl):
        base_of(url)


@given(st.text(max_size=60) | st.from_regex(r"https?://[^ ]{0,40}", fullmatch=True))
def test_address_is_one_that_stays_as_it_is_or_none(url: str) -> None:
    try:
        base = base_of(url)
    except BadCoolifyUrl:
        return

    assert base_of(base) == base
    assert base.isascii()
    assert base.endswith("/api/v1")
    assert not set("@?#\\ ") & set(base)


# ---- texts ----------------------------------------------------------------------------------


def test_text_is_one_line_without_control_characters() -> None:
    hostile = "a\x1b[31m\0b\r\nc\u202ed\ud800e\u2028f\x7f   g"

    assert clean(hostile, 100) == "a [31m b c d e f g"
    assert clean("x" * 1000, 10) == "x" * 10
    assert clean(7, 10) == clean(None, 10) == clean([], 10) == ""


def test_lines_lose_colours_and_marks_and_keep_their_ends() -> None:
    hostile = "\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07two\tthree\0\u202e\ud800\u2066"

    shown = clean_lines(hostile, 100)

    assert shown == "red\ntwo\tthree"
    assert shown.encode()
    assert clean_lines("abc", 2) == "bc"


# ---- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b"null", b"1" * 5000]
)
def test_answer_that_is_no_json_or_too_deep_is_unreadable(body: bytes) -> None:
    with pytest.raises(CoolifyUnavailable):
        parsed(body)


def test_version_is_plain_text() -> None:
    assert read_version(b"4.3.11") == "4.3.11"
    assert read_version(b'"v4.0.0-beta.400"\n') == "4.0.0-beta.400"
    for body in [b"", b"<html>4.3.11</html>", b"OK", b"4", b"4.3.11 <script>", b"9" * 300]:
        with pytest.raises(CoolifyUnavailable):
            read_version(body)


def test_run_is_read_with_all_its_fields() -> None:
    assert read_run(row()) == Run(
        id="run1",
        status=RunStatus.IN_PROGRESS,
        word="in_progress",
        commit=SHA,
        pull_request_id=0,
        created_at=datetime(2026, 7, 19, 10, tzinfo=UTC),
        path="/project/p/environment/e/application/a/deployment/run1",
        log=None,
    )


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", RunStatus.QUEUED),
        ("in_progress", RunStatus.IN_PROGRESS),
        ("finished", RunStatus.FINISHED),
        ("failed", RunStatus.FAILED),
        ("cancelled-by-user", RunStatus.CANCELLED),
        ("cancelled", RunStatus.UNKNOWN),
        ("unknown", RunStatus.UNKNOWN),
        ("Finished", RunStatus.UNKNOWN),
        (None, RunStatus.UNKNOWN),
        (["finished"], RunStatus.UNKNOWN),
    ],
)
def test_word_that_is_not_known_is_still_running(word: object, status: RunStatus) -> None:
    assert read_run(row(status=word)).status is status


@pytest.mark.parametrize("commit", ["HEAD", "", None, "main", 5, ["a"], "abc"])
def test_commit_that_is_not_known_yet_is_none(commit: object) -> None:
    assert read_run(row(commit=commit)).commit is None


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/project/x", "/project/x"),
        ("/", "/"),
        ("//evil.example/x", None),
        ("/\\evil.example", None),
        ("https://evil.example", None),
        ("javascript:alert(1)", None),
        ("/a b", None),
        ("/a\nb", None),
        ("/" + "a" * 600, None),
        (None, None),
        ({}, None),
    ],
)
def test_page_of_a_run_is_a_path_at_coolify_or_nothing(path: object, read: str | None) -> None:
    assert read_run(row(deployment_url=path)).path == read


def test_log_is_json_in_a_text_and_hidden_lines_never_get_out() -> None:
    lines = [
        {"order": 3, "output": "three", "type": "stderr", "timestamp": "t3", "hidden": False},
        {"order": 1, "output": "\x1b[32mone\x1b[0m\n", "type": "stdout", "hidden": False},
        {"order": 2, "output": "SECRET=1", "type": "stdout", "hidden": True},
        {"order": 4, "output": "odd", "type": "x", "hidden": "false"},
        {"order": 5, "output": "odder", "type": "x", "hidden": [1]},
        {"order": 6, "output": "", "command": "docker build .", "hidden": None},
        "no line",
    ]

    log = read_run(row(logs=json.dumps(lines))).log

    assert log == (
        LogLine(1, "one", "stdout", None),
        LogLine(3, "three", "stderr", "t3"),
        LogLine(6, "$ docker build .", "stdout", None),
    )


def test_log_that_may_not_be_read_is_not_an_empty_one() -> None:
    assert read_run(row()).log is None
    for nothing in [None, "", "[]", "{", 7, "[" * 100_000, '{"a":1}']:
        assert read_run(row(logs=nothing)).log == ()


def test_long_line_keeps_its_end() -> None:
    log = read_run(row(logs=json.dumps([{"output": "a" * 10_000 + "end"}]))).log

    assert log is not None
    assert log[0].text.endswith("end")
    assert len(log[0].text) == MAX_LINE_CHARS


def test_log_has_an_end_and_is_not_read_in_lists() -> None:
    found = row(logs=json.dumps([{"output": f"line {number}"} for number in range(10_050)]))

    log, (listed,) = read_run(found).log, read_runs([found])

    assert log is not None
    assert (len(log), log[0].text, log[-1].order) == (10_000, "line 50", 10_050)
    assert listed.log == ()
    assert read_runs([row()])[0].log is None


def test_list_may_be_an_object_keyed_by_number() -> None:
    rows = [row(deployment_uuid="b"), row(deployment_uuid="a")]
    keyed = {"7": rows[0], "3": rows[1]}

    for found in [rows, keyed, {"count": 2, "deployments": rows}, {"deployments": keyed}]:
        assert [run.id for run in read_runs(found)] == ["b", "a"]
    assert read_runs([]) == read_runs({}) == []


@pytest.mark.parametrize("found", ["x", 7, None, True, {"message": "x"}, {"deployments": 7}])
def test_what_is_no_list_is_unreadable(found: object) -> None:
    for read in (read_runs, read_applications, read_images):
        with pytest.raises(CoolifyUnavailable):
            read(found)


def test_rows_of_other_shapes_are_left_out_and_lists_have_an_end() -> None:
    runs = read_runs([row(), 7, None, [], {}, row(deployment_uuid="../x"), row(deployment_uuid=5)])
    many = read_applications([{"uuid": f"a{number}"} for number in range(MAX_LIST * 2)])

    assert [run.id for run in runs] == ["run1"]
    assert len(many) == MAX_LIST


@pytest.mark.parametrize(
    ("status", "state", "health"),
    [
        ("running:healthy", "running", "healthy"),
        ("running:unknown", "running", "unknown"),
        ("running", "running", None),
        ("exited:unhealthy", "exited", "unhealthy"),
        ("running:healthy:excluded", "running", "healthy"),
        ("", "unknown", None),
        (None, "unknown", None),
        (5, "unknown", None),
    ],
)
def test_status_is_a_state_and_a_health(status: object, state: str, health: str | None) -> None:
    application = read_application({"uuid": "a", "name": "web", "status": status})

    assert (application.state, application.health) == (state, health)


def test_application_is_read_with_the_first_address_that_can_be_a_link() -> None:
    application = read_application(
        {
            "uuid": "a",
            "name": "w\0eb\n" + "x" * 500,
            "git_branch": "main",
            "git_repository": "example/web",
            "fqdn": "javascript:alert(1),https://u:p@h, https://web.example.com,https://b.example",
        }
    )

    assert application.address == "https://web.example.com"
    assert application.name.startswith("w eb x")
    assert len(application.name) == MAX_NAME_CHARS
    assert (application.branch, application.repository) == ("main", "example/web")
    assert read_application({"uuid": "a"}).name == "a"


def test_answer_without_an_application_or_a_run_is_unreadable() -> None:
    for found in [{}, [], None, "x", {"uuid": "../x"}, {"deployment_uuid": 7}]:
        with pytest.raises(CoolifyUnavailable):
            read_application(found)
        with pytest.raises(CoolifyUnavailable):
            read_run(found)


def test_wish_is_answered_for_the_application_that_was_asked_for() -> None:
    found = {
        "deployments": [
            {"message": "other", "resource_uuid": "b", "deployment_uuid": "rb"},
            {"message": "Queued.", "resource_uuid": "a", "deployment_uuid": "ra"},
        ]
    }

    assert read_asked(found, "a") == Asked("ra", already_queued=False, message="Queued.")


def test_id_beside_already_queued_is_not_believed() -> None:
    text = "Deployment already queued for this commit."
    found = {"deployments": [{"message": text, "resource_uuid": "a", "deployment_uuid": "ghost"}]}

    assert read_asked(found, "a") == Asked(None, already_queued=True, message=text)


def test_wish_may_be_answered_by_a_message_alone() -> None:
    found = {"deployments": [{"message": "Service x started.", "resource_uuid": "a"}]}

    assert read_asked(found, "a") == Asked(None, False, "Service x started.")
    assert read_asked({"message": "Rollback queued.", "deployment_uuid": "r"}, "a").run_id == "r"
    for nothing in [{}, [], {"deployments": []}, {"deployments": [{}]}, None]:
        with pytest.raises(CoolifyUnavailable):
            read_asked(nothing, "a")


def test_images_to_go_back_to_are_those_that_name_a_commit() -> None:
    images = [
        {"tag": SHA, "created_at": "2026-07-19 10:00:00 +0000 UTC", "is_current": True},
        {"commit": SHA[:8], "current": "yes"},
        {"tag": "latest"},
        7,
    ]

    assert read_images({"images": images}) == read_images(images)
    assert read_images(images) == [
        RollbackImage(SHA, "2026-07-19 10:00:00 +0000 UTC", current=True),
        RollbackImage(SHA[:8], None, current=False),
    ]


@given(JSON)
def test_whatever_is_sent_is_read_or_refused_and_never_breaks(found: object) -> None:
    readers = [
        read_run,
        read_runs,
        read_application,
        read_applications,
        read_images,
        read_application_log,
        partial(read_asked, application_id="a"),
    ]

    for read in readers:
        try:
            told = repr(read(found))
        except CraftasticError:
            continue
        # It can be stored and sent: no halves of characters are left.
        told.encode()
        assert "\\ud8" not in told


@pytest.mark.parametrize(
    "body",
    [
        b'{"deployments":[' + b"{}," * 1_000_000 + b"{}]}",
        b"[" + b"0," * 3_000_000 + b"0]",
        b"[" + b'"",' * 1_000_000 + b'""]',
    ],
)
def test_answer_of_millions_of_values_is_not_read(body: bytes) -> None:
    with pytest.raises(CoolifyUnavailable):
        parsed(body)


def test_log_of_millions_of_values_is_not_read_and_one_with_many_commas_is() -> None:
    hostile = json.dumps({"deployment_uuid": "a", "logs": "[" + '{"a":0},' * 600_000 + "{}]"})
    listed = json.dumps([{"output": "1,{" * 2000, "type": "stdout"}] * 300)
    honest = json.dumps({"deployment_uuid": "a", "logs": listed})

    assert read_run(parsed(hostile.encode())).log == ()
    assert len(read_run(parsed(honest.encode())).log or ()) == 300

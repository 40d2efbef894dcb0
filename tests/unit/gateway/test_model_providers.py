"""What passes to a model API, whose token it is, and what an answer says that it cost."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craftastic.gateway._providers import (
    PROVIDERS,
    BadKey,
    error_body,
    key_header,
    recognise,
    speaks,
    token_of,
)
from craftastic.gateway._usage import MAX_NAME, JsonScanner, UsageReader
from tests.fakes import model_shapes as shapes
from tests.fakes.model_shapes import Answer, Tool

ALLOWED = [
    ("anthropic", "POST", "/v1/messages", "", True),
    ("anthropic", "POST", "/v1/messages", "beta=true", True),
    ("anthropic", "POST", "/v1/messages/count_tokens", "beta=true", False),
    ("anthropic", "GET", "/v1/models", "limit=20&after_id=x", False),
    ("anthropic", "GET", "/v1/models/claude-x-4.5", "", False),
    ("openai", "POST", "/v1/responses", "", True),
    ("openai", "POST", "/v1/responses/compact", "", True),
    ("openai", "POST", "/v1/chat/completions", "", True),
    ("openai", "POST", "/v1/embeddings", "", True),
    ("openai", "GET", "/v1/models", "client_version=0.169.0", False),
    ("openai", "GET", "/v1/models/ft:gpt-x:org::id", "", False),
    ("openai-compatible", "POST", "/v1/chat/completions", "", True),
    ("gemini", "POST", "/v1beta/models/gemini-2.5-pro:generateContent", "", True),
    ("gemini", "POST", "/v1beta/models/gemini-2.5-pro:streamGenerateContent", "alt=sse", True),
    ("gemini", "POST", "/v1beta/models/gemini-2.5-pro:countTokens", "", False),
    ("gemini", "POST", "/v1beta/models/gemini-2.5-pro:embedContent", "", True),
    ("gemini", "GET", "/v1beta/models", "pageSize=5", False),
    ("gemini", "GET", "/v1beta/models/gemini-2.5-pro", "", False),
]
REFUSED = [
    ("anthropic", "GET", "/v1/messages", ""),
    ("anthropic", "PUT", "/v1/messages", ""),
    ("anthropic", "POST", "/v1/messages/", ""),
    ("anthropic", "POST", "//v1/messages", ""),
    ("anthropic", "POST", "/v1//messages", ""),
    ("anthropic", "POST", "/V1/messages", ""),
    ("anthropic", "POST", "/v1/messages\n", ""),
    ("anthropic", "POST", "/v1/%6dessages", ""),
    ("anthropic", "POST", "/v1%2fmessages", ""),
    ("anthropic", "POST", "/v1/messages%00", ""),
    ("anthropic", "POST", "/v1/./messages", ""),
    ("anthropic", "POST", "/v1/x/../messages", ""),
    ("anthropic", "POST", "/v1/messages/batches", ""),
    ("anthropic", "POST", "/v1/files", ""),
    ("anthropic", "GET", "/v1/organizations/api_keys", ""),
    ("anthropic", "POST", "/v1/complete", ""),
    ("anthropic", "POST", "/v1/messages", "beta=true&beta=true"),
    ("anthropic", "POST", "/v1/messages", "key=x"),
    ("anthropic", "POST", "/v1/messages", "beta=%74rue"),
    ("anthropic", "POST", "/v1/messages", "beta=true&"),
    ("anthropic", "POST", "/v1/messages", "other=1"),
    ("anthropic", "GET", "/v1/models/..", ""),
    ("anthropic", "GET", "/v1/models/a/b", ""),
    ("anthropic", "POST", "/v1/responses", ""),
    ("openai", "POST", "/v1/messages", ""),
    ("openai", "GET", "/v1/responses/resp_1", ""),
    ("openai", "DELETE", "/v1/models/ft:x", ""),
    ("openai", "POST", "/v1/files", ""),
    ("openai", "GET", "/v1/organization/admin_api_keys", ""),
    ("openai", "POST", "/chat/completions", ""),
    ("gemini", "POST", "/v1beta/models/../x:generateContent", ""),
    ("gemini", "POST", "/v1beta/models/a%2Fb:generateContent", ""),
    ("gemini", "POST", "/v1beta/models/a:generateContent:x", ""),
    ("gemini", "POST", "/v1beta/models/a:batchGenerateContent", ""),
    ("gemini", "POST", "/v1beta/tunedModels/a:generateContent", ""),
    ("gemini", "POST", "/v1beta/models/a:generateContent", "$alt=sse"),
    ("gemini", "POST", "/v1/models/a:generateContent", ""),
    ("gemini", "GET", "/v1beta/files", ""),
    (None, "POST", "/v1/messages", ""),
    ("nobody", "POST", "/v1/messages", ""),
]


@pytest.mark.parametrize(("provider", "method", "path", "query", "generates"), ALLOWED)
def test_calls_that_agents_make_are_known(
    provider: str, method: str, path: str, query: str, generates: bool
) -> None:
    call = recognise(provider, method, path.encode(), query.encode())

    assert call is not None
    assert (call.path, call.query, call.generates) == (path, query, generates)


@pytest.mark.parametrize(("provider", "method", "path", "query"), REFUSED)
def test_everything_else_is_no_call(
    provider: str | None, method: str, path: str, query: str
) -> None:
    assert recognise(provider, method, path.encode(), query.encode()) is None


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=30))
def test_path_is_taken_as_it_is_or_not_at_all(path: bytes, query: bytes) -> None:
    for provider in PROVIDERS:
        call = recognise(provider, "POST", b"/v1/" + path, query)
        if call is not None:
            assert call.path.encode() == b"/v1/" + path
            assert b"%" not in path


def test_token_in_the_query_is_not_passed_on() -> None:
    path = b"/v1beta/models/x:streamGenerateContent"

    call = recognise("gemini", "POST", path, b"key=secret&alt=sse")

    assert call is not None
    assert call.query == "alt=sse"
    assert recognise("gemini", "POST", path, b"key=a&key=b") is None


@pytest.mark.parametrize(
    ("headers", "query", "token"),
    [
        ({b"authorization": b"Bearer t"}, b"", "t"),
        ({b"authorization": b"bearer  t "}, b"", "t"),
        ({b"x-api-key": b"t"}, b"", "t"),
        ({b"x-goog-api-key": b"t"}, b"", "t"),
        ({}, b"alt=sse&key=t", "t"),
        ({b"authorization": b"Basic dDp0"}, b"", None),
        ({b"authorization": b"Bearer"}, b"", None),
        ({b"authorization": b"Bearer a b"}, b"", None),
        ({b"x-api-key": b"t" * 513}, b"", None),
        ({b"x-api-key": b"\xe9"}, b"", None),
        ({b"cookie": b"key=t"}, b"monkey=t", None),
        ({}, b"", None),
    ],
)
def test_token_is_found_where_each_api_has_its_key(
    headers: dict[bytes, bytes], query: bytes, token: str | None
) -> None:
    assert token_of(headers, query) == token


@pytest.mark.parametrize(
    ("scheme", "header"),
    [
        ("x-api-key", (b"x-api-key", b"k")),
        ("x-goog-api-key", (b"x-goog-api-key", b"k")),
        ("bearer", (b"Authorization", b"Bearer k")),
    ],
)
def test_key_goes_where_its_api_wants_it(scheme: str, header: tuple[bytes, bytes]) -> None:
    assert key_header(scheme, "k") == header


@pytest.mark.parametrize("key", ["", "a b", "a\r\nHost: x", "a\n", "k\u00e9y", "k" * 4097])
def test_key_that_no_header_can_carry_is_named_so(key: str) -> None:
    with pytest.raises(BadKey):
        key_header("bearer", key)
    with pytest.raises(BadKey):
        key_header("basic", "k")


@pytest.mark.parametrize(
    ("provider", "base", "path", "url"),
    [
        ("anthropic", "https://a.example", "/v1/messages", "https://a.example/v1/messages"),
        ("anthropic", "https://a.example/v1", "/v1/messages", "https://a.example/v1/messages"),
        ("anthropic", "https://a.example/x/", "/v1/messages", "https://a.example/x/v1/messages"),
        ("openai", "https://a.example", "/v1/models", "https://a.example/v1/models"),
        ("openai", "https://v1.example/x", "/v1/models", "https://v1.example/x/v1/models"),
        ("openai", "https://v1", "/v1/models", "https://v1/v1/models"),
        ("openai", "https://a.example/v1/", "/v1/models", "https://a.example/v1/models"),
        ("openai", "https://a.example/p/v4", "/v1/models", "https://a.example/p/v4/models"),
        ("openai", "https://a.example/v1beta/o", "/v1/models", "https://a.example/v1beta/o/models"),
        ("gemini", "https://a.example/v1beta", "/v1beta/models", "https://a.example/v1beta/models"),
        ("gemini", "https://a.example", "/v1beta/models", "https://a.example/v1beta/models"),
    ],
)
def test_addresses_work_with_their_version_and_without(
    provider: str, base: str, path: str, url: str
) -> None:
    assert PROVIDERS[provider].url(base, path) == url


@pytest.mark.parametrize(
    ("path", "provider"),
    [
        (b"/v1/messages", "anthropic"),
        (b"/v1beta/models/x:y", "gemini"),
        (b"/v1/responses", "openai"),
        (b"", "openai"),
    ],
)
def test_errors_have_the_form_that_the_caller_knows(path: bytes, provider: str) -> None:
    api = speaks(path)
    body = json.loads(error_body(api, 403, "no \ud800 way"))

    assert api.name == provider
    assert body["error"]["message"] == "no ? way"
    kind = {"anthropic": "type", "openai": "code", "gemini": "status"}[provider]
    assert str(body["error"][kind]).lower() in {"permission_error", "permission_denied"}


# ---- usage ----------------------------------------------------------------------------------

TOKENS = (shapes.INPUT_TOKENS, shapes.OUTPUT_TOKENS)
SHAPES: dict[str, shapes.Shape] = {
    "messages": shapes.Anthropic(),
    "responses": shapes.Responses(),
    "chat": shapes.Chat(),
    "gemini": shapes.Gemini(),
}
BODY: dict[str, Any] = {"stream_options": {"include_usage": True}}
ODD_TEXT = 'a "quoted" \\ {"usage": {"input_tokens": 999, "output_tokens": 999}}, \u00fc\n'
ANSWERS = [
    Answer(("hello",)),
    Answer((ODD_TEXT, ODD_TEXT)),
    Answer(tool=Tool("Bash", {}), command='echo {"usage": {"output_tokens": 5}}'),
]


def read(content: bytes, *, streams: bool, cuts: list[int] | None = None) -> UsageReader:
    reader = UsageReader(streams=streams)
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts or []), len(content)]
    for begin, end in itertools.pairwise(edges):
        reader.feed(content[begin:end])
    return reader


def tokens(reader: UsageReader) -> tuple[int | None, int | None]:
    return reader.input_tokens, reader.output_tokens


def forms(shape: shapes.Shape, answer: Answer) -> dict[str, tuple[bytes, bool]]:
    whole = shape.whole(BODY, answer)
    events = b"".join(shape.stream(BODY, answer))
    return {
        "json": (json.dumps(whole).encode(), False),
        "pretty": (json.dumps(whole, indent=2, ensure_ascii=False).encode(), False),
        "events": (events, True),
        "events with CRLF": (events.replace(b"\n", b"\r\n"), True),
        "events with comments": (events.replace(b"data:", b": hi\nid: 1\ndata:"), True),
    }


@pytest.mark.parametrize("name", SHAPES)
@settings(deadline=None)
@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 10_000), max_size=20))
def test_usage_is_the_same_however_the_bytes_are_split(
    name: str, answer: Answer, cuts: list[int]
) -> None:
    for content, streams in forms(SHAPES[name], answer).values():
        assert tokens(read(content, streams=streams, cuts=cuts)) == TOKENS


@pytest.mark.parametrize("name", SHAPES)
def test_usage_is_read_byte_by_byte_too(name: str) -> None:
    for content, streams in forms(SHAPES[name], ANSWERS[1]).values():
        every = list(range(len(content)))
        assert tokens(read(content, streams=streams, cuts=every)) == TOKENS


@pytest.mark.parametrize("streams", [True, False])
@settings(deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_no_bytes_raise_and_every_split_gives_the_same(
    streams: bool, content: bytes, cuts: list[int]
) -> None:
    whole, split = (
        read(content, streams=streams),
        read(content, streams=streams, cuts=cuts),
    )

    assert (tokens(whole), whole.events) == (tokens(split), split.events)


FRAGMENTS = [
    *b'data: \n \r " \\ "usage" "message" "output_tokens" : { } [ ] , 7 -1 1e9 null'.split(b" "),
    b" ",
    b"9" * 12,
]


@pytest.mark.parametrize("streams", [True, False])
@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(FRAGMENTS),
        max_size=60,
    ),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_malformed_answers_raise_nothing_either(
    streams: bool, parts: list[bytes], cuts: list[int]
) -> None:
    content = b"".join(parts)
    whole, split = (
        read(content, streams=streams),
        read(content, streams=streams, cuts=cuts),
    )

    assert (tokens(whole), whole.events) == (tokens(split), split.events)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "input_tokens", "x", "[", ""]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "usage", "message"]), JSON_VALUES, max_size=3))
def test_number_is_read_exactly_where_the_parsed_answer_has_it(value: dict[str, Any]) -> None:
    def said(inside: Any) -> list[int]:
        found = inside.get("usage") if isinstance(inside, dict) else None
        number = found.get("input_tokens") if isinstance(found, dict) else None
        fits = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 10**9
        return [number] if fits and number is not None else []

    expected = max([*said(value), *said(value.get("message"))], default=None)
    for content in (json.dumps(value), json.dumps(value, indent=1), json.dumps([value])):
        assert read(content.encode(), streams=False).input_tokens == expected


def test_gemini_answers_in_one_array_are_read() -> None:
    answer = shapes.Gemini().whole({}, Answer(("x",)))

    assert tokens(read(json.dumps([answer, answer]).encode(), streams=False)) == TOKENS


def test_thoughts_and_caches_count() -> None:
    gemini = {
        "usageMetadata": {
            "promptTokenCount": 1,
            "toolUsePromptTokenCount": 2,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 4,
        }
    }
    anthropic = {
        "usage": {
            "input_tokens": 1,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 4,
            "output_tokens": 8,
        }
    }

    assert tokens(read(json.dumps(gemini).encode(), streams=False)) == (3, 7)
    assert tokens(read(json.dumps(anthropic).encode(), streams=False)) == (7, 8)


def test_answer_that_says_nothing_gives_none_and_its_events_are_counted() -> None:
    reader = read(b'data: {"x": 1}\n\ndata: {"x": 2}\n\n: nothing\n\n', streams=True)

    assert (tokens(reader), reader.events) == ((None, None), 2)


@pytest.mark.parametrize("number", ["-5", "1.5", "1e3", "null", '"7"', "[7]", "12345678901234"])
def test_what_is_no_count_is_left_out(number: str) -> None:
    content = f'{{"usage": {{"input_tokens": {number}, "output_tokens": 3}}}}'

    assert tokens(read(content.encode(), streams=False)) == (None, 3)


def test_scanner_holds_little_whatever_passes() -> None:
    reader = UsageReader(streams=True)
    scanner = JsonScanner(reader._counts)
    for content in (b"[" * 100_000, b'{"' + b"x" * 100_000, b'{"a":' * 100_000, b"data:" * 100_000):
        reader.feed(content)
        scanner.feed(content)

        for one in (scanner, reader._events._json if reader._events else scanner):
            assert len(one._path) <= 4
            assert len(one._kept or b"") <= MAX_NAME
    assert reader._events is not None
    assert len(reader._events._line or b"") <= 5


def test_answer_made_to_keep_the_server_busy_is_not_read_on() -> None:
    reader = UsageReader(streams=True)
    reader._counts.steps = 1000

    reader.feed(b"data: {" + b"[" * 1000)
    reader.feed(b"\n\n" + b'data: {"usage": {"output_tokens": 7}}\n\n')

    assert reader._counts.steps == 0
    assert tokens(reader) == (None, None)

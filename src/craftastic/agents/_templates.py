"""Templates of manifests: `{name}`, `{json:name}`, `{toml:name}`; every other brace is itself."""

import json
import re
from collections.abc import Iterator, Mapping

from craftastic.errors import InternalError

PLACEHOLDERS = frozenset(
    {
        "home",
        "worktree",
        "prompt",
        "conversation",
        "gateway",
        "token",
        "run",
        "model",
        "hook",
        "memory",
        "message",
        "credential",
    }
)
FORM = re.compile(r"\{(?:([a-z]+):)?([a-z_]+)\}")
KINDS = (None, "json", "toml")
FIRST_SURROGATE, LAST_SURROGATE = 0xD800, 0xDFFF


class PlaceholderMissing(InternalError):
    """A template wants a value that the caller did not give."""


def used(template: str) -> Iterator[tuple[str, str]]:
    """Yield what a template refers to, as (kind, name).

    `{a:b}` counts only where `a` is one of our kinds or `b` one of our names: JavaScript has such
    texts too.
    """
    for match in FORM.finditer(template):
        kind, name = match[1], match[2]
        if kind in KINDS or name in PLACEHOLDERS:
            yield kind or "", name


def render(template: str, values: Mapping[str, str]) -> str:
    """Put values in the places of a template's placeholders, once: values are not looked at.

    `{json:x}` becomes a JSON string, `{toml:x}` a TOML string, both with their quotes.

    Raises:
        PlaceholderMissing: One of the known placeholders has no value.
    """

    def value_of(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        if kind not in KINDS or name not in PLACEHOLDERS:
            return match[0]
        if name not in values:
            raise PlaceholderMissing(f"There is no value for {match[0]}")
        return _as(kind, values[name])

    return FORM.sub(value_of, template)


def _as(kind: str | None, value: str) -> str:
    if kind == "json":
        return json.dumps(value)
    if kind == "toml":
        # TOML's basic strings have JSON's escapes, but no half surrogates, and DEL is escaped.
        whole = "".join(
            "\ufffd" if FIRST_SURROGATE <= ord(one) <= LAST_SURROGATE else one for one in value
        )
        return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")
    return value

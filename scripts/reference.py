"""Write the pages of docs/reference that follow from the code: `make reference`.

A test compares each page with what this makes of the code, so a page cannot fall behind.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import AliasChoices, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import craftastic
from craftastic.errors import CraftasticError
from craftastic.http.answers import ANSWERS, answer_for
from craftastic.settings import Settings, parse_bytes

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- Made by `make reference`; change the code instead. -->"
SIZES = (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10))
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def first_paragraph(text: str | None) -> str:
    """Return the first paragraph of a docstring, in one line."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


# ---- settings -------------------------------------------------------------------------------


def variables(name: str, field: FieldInfo) -> list[str]:
    """Return the environment variables that set a field, the usual one first."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    prefix = Settings.model_config.get("env_prefix", "")
    return [alias if isinstance(alias, str) else f"{prefix}{name}".upper()]


def is_size(field: FieldInfo) -> bool:
    return any(
        isinstance(one, BeforeValidator) and one.func is parse_bytes for one in field.metadata
    )


def default_text(field: FieldInfo) -> str:
    """Return a default as an operator would write it."""
    default = field.default
    if field.default_factory is not None:
        return "see the text"
    if (
        default is None
        or default is PydanticUndefined
        or default == ()
        or isinstance(default, SecretStr)
    ):
        return "unset"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if is_size(field):
        unit, factor = next(((u, f) for u, f in SIZES if default % f == 0), ("", 1))
        return f"`{default // factor}{unit}`"
    if isinstance(default, float) and default.is_integer():
        return f"`{int(default)}`"
    return f"`{default}`"


def settings_page() -> str:
    rows: list[tuple[str, ...]] = []
    for name, field in Settings.model_fields.items():
        first, *others = [f"`{variable}`" for variable in variables(name, field)]
        shown = first if not others else f"{first} (also {', '.join(others)})"
        rows.append((shown, default_text(field), field.description or ""))
    return f"""# Settings

{MADE}

Every setting is an environment variable, or a line of a `.env` file in the folder where the server
is started; the environment wins. `craftastic settings` prints the values in force with secrets
masked. A value that does not parse stops the server at its start, with the variable's name.

Sizes take the units k, m and g. Times are in seconds where the name or the text says so. Lists are
separated by commas. Switches take `true` or `false`, `1` or `0`.

{table(("variable", "default", "meaning"), rows)}
"""


# ---- errors ---------------------------------------------------------------------------------


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(craftastic.__path__, "craftastic."):
        if not found.name.startswith("craftastic.migrations.") and "__main__" not in found.name:
            yield found.name


def error_classes() -> list[type[CraftasticError]]:
    """Import every module of the package and return the errors that they define."""
    for name in modules():
        importlib.import_module(name)
    found: set[type[CraftasticError]] = set()
    waiting: list[type[CraftasticError]] = [CraftasticError]
    while waiting:
        error = waiting.pop()
        if error not in found:
            found.add(error)
            waiting += error.__subclasses__()
    return sorted(
        (one for one in found if one.__module__.startswith("craftastic")),
        key=lambda one: (one.code, one.__name__, one.__module__),
    )


OF_THE_EDGE = {
    "METHOD_NOT_ALLOWED": ("405", "none", "none", "The route exists, and not for this method."),
    "REQUEST_TIMEOUT": ("408", "none", "none", "The request, or its body, did not come in time."),
    "ROUTE_NOT_FOUND": ("404", "none", "none", "The server has no such route."),
}
"""Codes of requests that reach no route, hence no class of an error."""


def own_docstring(error: type[CraftasticError]) -> str:
    """Return what an error says about itself, not what it has from its category."""
    return first_paragraph(vars(error).get("__doc__"))


CATEGORY_TEXTS = {
    "INVALID_INPUT": "The request can never succeed as it was sent.",
    "UNAUTHENTICATED": "No credential, or one that does not hold.",
    "FORBIDDEN": "The caller is known and may not do this.",
    "NOT_FOUND": "Absent, or not the caller's: the two are never told apart.",
    "CONFLICT": "The present state refuses the request.",
    "TOO_LARGE": "More bytes than the route takes.",
    "MISDIRECTED": "The request is for a name that is not this server's.",
    "UNPROCESSABLE": "Well-formed, and at odds with an earlier request.",
    "RATE_LIMITED": "Too many of these; `Retry-After` says when to come back.",
    "STORAGE_FULL": "A disk, or somebody's share of it, is full.",
    "UNAVAILABLE": "Something that the server needs does not answer; trying again may help.",
    "NOT_CONFIGURED": "The operator has not set this up.",
    "INTERNAL_ERROR": "A fault of the server. The log has it, under the answer's `requestId`.",
}


def category_text(error: type[CraftasticError]) -> str:
    return next((CATEGORY_TEXTS[one.code] for one in error.__mro__ if one in ANSWERS), "")


def errors_page() -> str:
    meanings: dict[str, list[str]] = {}
    answers: dict[str, tuple[str, ...]] = {}
    categories: dict[str, str] = {}
    for error in error_classes():
        answer = answer_for(error.__new__(error))
        answers[error.code] = (str(answer.status), str(answer.close_code), str(answer.exit_code))
        texts = meanings.setdefault(error.code, [])
        text = CATEGORY_TEXTS.get(error.code) or own_docstring(error)
        if text and text not in texts:
            texts.append(text)
        categories[error.code] = category_text(error)
    rows = {
        code: (*answers[code], " ".join(meanings[code]) or categories[code]) for code in answers
    } | OF_THE_EDGE
    lines = [(f"`{code}`", *rows[code]) for code in sorted(rows)]
    return f"""# Errors

{MADE}

Every error of the API carries a sentence for people in `error`, a stable code for programs in
`code`, and `requestId`, by which the operator finds it in the log. The tables are complete: a code
that is not here does not occur. A code never changes its meaning.

{table(("code", "HTTP", "WebSocket", "exit", "meaning"), lines)}

The column *WebSocket* is the code with which a terminal's socket closes, *exit* the exit code of
the command line.
"""


# ---- routes ---------------------------------------------------------------------------------


UNSAID = {
    "/api/openapi.json": "Return the OpenAPI document.",
    "/api/docs": "Show the OpenAPI document as a page.",
}
"""Routes that are no part of the document itself and so describe themselves nowhere."""

WHO = {"public": "anyone", "self-checked": "a user", "user": "a user", "admin": "an administrator"}


def routes() -> list[tuple[str, str, str, str]]:
    """Return method, path, who may call it and what it does, for every route of the app."""
    from fastapi.routing import iter_route_contexts  # noqa: PLC0415

    from craftastic.app import build_app  # noqa: PLC0415
    from craftastic.http.policy import policy_of  # noqa: PLC0415

    found: list[tuple[str, str, str, str]] = []
    app = build_app(Settings(_env_file=None))  # type: ignore[call-arg]
    for route in iter_route_contexts(app.routes):
        text = first_paragraph(route.endpoint.__doc__) or UNSAID.get(route.path or "", "")
        allowed = route.methods
        methods = [one for one in METHODS if one in allowed] if allowed else ["WebSocket"]
        who = WHO.get(policy_of(route) or "", "")
        found.extend((method, route.path or "", who, text) for method in methods)
    return found


def api_page() -> str:
    rows = [(method, f"`{path}`", who, text) for method, path, who, text in routes()]
    return f"""# The API

{MADE}

JSON in and out. Bodies and answers are described field by field in the OpenAPI document that the
server itself offers at `/api/openapi.json` and shows at `/api/docs`. Routes that are not for anyone
need `Authorization: Bearer TOKEN`. An id that does not exist and an id of someone else answer
alike: 404. [Errors](errors.md) lists the codes, [The terminal WebSocket](terminal-protocol.md) the
frames.

{table(("method", "path", "for", "what it does"), rows)}
"""


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "api.md": api_page,
}


def main() -> None:
    wanted = sys.argv[1:] or list(PAGES)
    for name in wanted:
        (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()

"""The bodies of error answers; their statuses are in `answers.py`.

There are two families: A (`/api/auth`, `/api/git`) answers `{success: false, error}`, B (all
others) `{error, details?}`; both add `code` and `requestId`.
"""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from craftastic.errors import (
    CraftasticError,
    InternalError,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from craftastic.http.answers import answer_for
from craftastic.http.ids import ABSENT, Absent
from craftastic.http.paths import shown_path

log = structlog.stdlib.get_logger(__name__)

REQUEST_ID = "craftastic.request_id"
EMPTY_JSON = "craftastic.empty_json"
FAMILY_A = ("/api/auth", "/api/git")
RETRY_AFTER_S = 2
MAX_SENTENCES = 5


class BrokenJson(InvalidInput):
    code = "BROKEN_JSON"


class OutOfFiles(Unavailable):
    """The server has no file descriptor left; those of others are given back after a while."""

    code = "OUT_OF_FILES"

    def __init__(self) -> None:
        super().__init__("The server has too much open at once; try again in a moment.")


class EmptyJsonBody(InvalidInput):
    """The request says that it carries JSON, and carries nothing."""

    code = "FST_ERR_CTP_EMPTY_JSON_BODY"

    def __init__(self) -> None:
        super().__init__(
            "Body cannot be empty when content-type is set to 'application/json'",
            answer={"statusCode": 400},
        )


def refuse_empty_json(scope: Scope) -> None:
    """Refuse a request that announced JSON and sent nothing, once its caller is known.

    Raises:
        EmptyJsonBody: It did.
    """
    if scope.get(EMPTY_JSON):
        raise EmptyJsonBody


def respond(scope: Scope, error: CraftasticError) -> JSONResponse:
    """Render an error in the family's form of the path that was asked for."""
    status = answer_for(error).status
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request failed", code=error.code, message=error.message, why=error.context)
    elif error.context:
        log.debug("request refused", code=error.code, message=error.message, why=error.context)
    if isinstance(error, EmptyJsonBody | BrokenJson):
        return _as_framework(scope, 400, error.message, code=error.code)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error(scope)
    body: dict[str, object] = {"error": error.code if error.code_is_error else error.message}
    if error.code_is_error:
        body["message"] = error.message
    if error.details is not None:
        body["details"] = error.details
    return _json(
        scope,
        status,
        {**body, **error.answer},
        code=error.code,
        headers=_headers(error),
        refused_caller=isinstance(error, Unauthenticated),
    )


def internal_error(scope: Scope) -> JSONResponse:
    """Render a bug: nothing about it but the id to find it in the log by."""
    return _json(
        scope,
        500,
        {
            "error": "Internal Server Error",
            "message": "Something went wrong in the server; its log tells more by this request id.",
            "statusCode": 500,
        },
        code=InternalError.code,
    )


def install(app: FastAPI) -> None:
    """Make every error of the app's routes answer in the contract's form."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        return respond(request.scope, cast("CraftasticError", error))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        return _invalid(request.scope, cast("RequestValidationError", error))

    async def framework(request: Request, error: Exception) -> JSONResponse:
        return respond_framework(request.scope, cast("HTTPException", error))

    app.add_exception_handler(CraftasticError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)


def _headers(error: CraftasticError) -> dict[str, str]:
    retry_after_s: float | None = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        return {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    if isinstance(error, Unavailable):
        return {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    return {}


def _is_family_a(path: str) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in FAMILY_A)


def _json(
    scope: Scope,
    status: int,
    body: Mapping[str, object],
    *,
    code: str,
    headers: Mapping[str, str] | None = None,
    refused_caller: bool = False,
) -> JSONResponse:
    # The missing sign-in has family A's form everywhere.
    begin = {"success": False} if refused_caller or _is_family_a(scope["path"]) else {}
    end = {"code": code, "requestId": scope.get(REQUEST_ID, "")}
    return JSONResponse({**begin, **body, **end}, status, headers=dict(headers or {}))


def _as_framework(
    scope: Scope,
    status: int,
    message: str,
    *,
    code: str,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    phrase = HTTPStatus(status).phrase
    body: dict[str, object] = {"error": phrase, "message": message, "statusCode": status}
    if code == BrokenJson.code:
        # Clients of family A show `error`, those of B `details` before `error`.
        body |= {"error": message} if _is_family_a(scope["path"]) else {"details": message}
    return _json(scope, status, body, code=code, headers=headers)


def respond_framework(scope: Scope, error: HTTPException) -> JSONResponse:
    status = error.status_code
    route = f"Route {scope['method']}:{shown_path(scope)}"
    if status == HTTPStatus.NOT_FOUND:
        return _as_framework(scope, 404, f"{route} not found", code="ROUTE_NOT_FOUND")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{route} not found: the path takes other methods"
        return _as_framework(scope, 405, message, code="METHOD_NOT_ALLOWED", headers=error.headers)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return respond(scope, TooLarge("The request's body is too large"))
    if status == HTTPStatus.REQUEST_TIMEOUT:
        message = "The request's body did not come in time"
        # What still comes of it would be taken for the next request.
        headers = {"Connection": "close"}
        return _as_framework(scope, 408, message, code="REQUEST_TIMEOUT", headers=headers)
    if status == HTTPStatus.BAD_REQUEST:
        return respond(scope, BrokenJson("The body is not valid JSON"))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error(scope)
    phrase = HTTPStatus(status).phrase
    code = phrase.upper().replace(" ", "_").replace("-", "_")
    return _as_framework(scope, status, phrase, code=code, headers=error.headers)


def _invalid(scope: Scope, error: RequestValidationError) -> JSONResponse:
    if scope.get(EMPTY_JSON):
        return respond(scope, EmptyJsonBody())
    problems = cast("Sequence[Mapping[str, Any]]", error.errors())
    if any(problem["type"] == "json_invalid" for problem in problems):
        why = problems[0].get("ctx", {}).get("error", "")
        return respond(scope, BrokenJson(f"The body is not valid JSON: {why}"[:200]))
    for problem in problems:
        if problem["loc"][0] == "path":
            name = str(problem["loc"][-1])
            return respond(scope, _absent(ABSENT.get(name, Absent("Not found", "NOT_FOUND"))))
    sentences = [_sentence(problem) for problem in problems[:MAX_SENTENCES]]
    return respond(scope, InvalidInput("; ".join(dict.fromkeys(sentences))))


def _absent(absent: Absent) -> NotFound:
    error = NotFound(absent.message)
    error.code = absent.code  # type: ignore[misc]
    return error


SENTENCES = {
    "missing": "{field} is required",
    "string_type": "{field} must be text",
    "string_unicode": "{field} must be valid Unicode text",
    "string_too_short": "{field} must have at least {min_length} characters",
    "string_too_long": "{field} must have at most {max_length} characters",
    "too_long": "{field} must have at most {max_length} items",
    "too_short": "{field} must have at least {min_length} items",
    "string_pattern_mismatch": "{field} has characters that are not allowed",
    "uuid_parsing": "{field} is not a valid id",
    "uuid_type": "{field} is not a valid id",
    "bool_type": "{field} must be true or false",
    "bool_parsing": "{field} must be true or false",
    "int_type": "{field} must be a whole number",
    "int_parsing": "{field} must be a whole number",
    "int_parsing_size": "{field} is too large a number",
    "int_from_float": "{field} must be a whole number",
    "greater_than": "{field} must be more than {gt}",
    "greater_than_equal": "{field} must be at least {ge}",
    "less_than": "{field} must be less than {lt}",
    "less_than_equal": "{field} must be at most {le}",
    "enum": "{field} must be {expected}",
    "literal_error": "{field} must be {expected}",
    "list_type": "{field} must be a list",
    "dict_type": "{field} must be an object",
    "model_type": "{field} must be an object",
    "model_attributes_type": "{field} must be an object",
}


def _sentence(problem: Mapping[str, Any]) -> str:
    names = [str(part)[:64] for part in problem["loc"][1:] if part != "__root__"]
    field = ".".join(names) or "the body"
    context: dict[str, Any] = dict(problem.get("ctx") or {})
    if problem["type"] == "value_error":
        return f"{field}: {context.get('error', problem['msg'])}"[:300]
    template = SENTENCES.get(problem["type"], "{field} is not valid")
    return template.format(**context | {"field": field})[:300]

"""Finds what the user means: an id, the beginning of one, or a name; and equal repositories."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from craftastic.cli.output import choose, interactive
from craftastic.cli.remote import Remote, segment
from craftastic.errors import InvalidInput, NotFound

SCP_FORM = re.compile(r"(?:[^@/\s]+@)?(?P<host>[\w.-]+):(?P<path>(?!//)\S+)")
DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Names:
    """One listing of everything the user has.

    Args:
        environments: As the API lists them, newest first, each with its sessions.
    """

    environments: Sequence[Row]

    @property
    def sessions(self) -> list[tuple[Row, Row]]:
        """Return every session with its environment, newest environments first."""
        return [
            (session, environment)
            for environment in self.environments
            for session in environment["sessions"]
        ]

    def environment(self, wanted: str | None) -> Row:
        """Return the environment that was meant; a person is asked when nothing was said.

        Raises:
            NotFound: There is none.
            InvalidInput: Several fit, or nothing was said and nobody can be asked.
        """
        return self._find(
            "environment",
            wanted,
            list(self.environments),
            names=_environment_names,
            label=_environment_label,
        )

    def session(self, wanted: str | None) -> tuple[Row, Row]:
        """Return the session that was meant with its environment; `ENVIRONMENT/NAME` works too.

        A dead session's name may be in use again, so the living one is meant first.

        Raises:
            NotFound: There is none.
            InvalidInput: Several fit, or nothing was said and nobody can be asked.
        """
        pairs = [
            {"id": session["id"], "session": session, "environment": environment}
            for session, environment in self.sessions
        ]
        alive = [pair for pair in pairs if pair["session"]["status"] != "dead"]

        def names(pair: Row) -> set[str]:
            name = str(pair["session"].get("name") or "")
            return {
                name,
                f"{pair['environment']['name']}/{name}",
                f"{pair['environment']['id']}/{name}",
            }

        candidates = alive
        if wanted is None or not any(_fits(pair, wanted, names(pair)) for pair in alive):
            candidates = alive if wanted is None else pairs
        found = self._find("session", wanted, candidates, names=names, label=_session_label)
        return cast("Row", found["session"]), cast("Row", found["environment"])

    def _find(
        self, kind: str, wanted: str | None, rows: list[Row], *, names: Any, label: Any
    ) -> Row:
        if wanted is None:
            return self._ask(kind, rows, label)
        # An id or name that is whole wins over the beginning of another.
        exact = [row for row in rows if row["id"] == wanted or wanted in names(row)]
        found = exact or [row for row in rows if wanted and str(row["id"]).startswith(wanted)]
        if not found:
            raise NotFound(f"There is no {kind} {wanted}.")
        if len(found) > 1:
            raise InvalidInput(
                f"{wanted} fits several; say more of the id: "
                + ", ".join(sorted(str(label(row)) for row in found)[:10])
            )
        return found[0]

    def _ask(self, kind: str, rows: list[Row], label: Any) -> Row:
        if not rows:
            raise NotFound(f"You have no {kind} yet.")
        if not interactive():
            raise InvalidInput(f"Name the {kind}: an id, the beginning of one, or a name.")
        return rows[choose(kind, [str(label(row)) for row in rows])]


def _fits(row: Row, wanted: str, names: set[str]) -> bool:
    return wanted in names or str(row["id"]).startswith(wanted)


def _environment_names(row: Row) -> set[str]:
    return {str(row["name"])}


def _environment_label(row: Row) -> str:
    return f"{row['id'][:8]} {row['name']} ({row['status']})"


def _session_label(pair: Row) -> str:
    session, environment = pair["session"], pair["environment"]
    return f"{session['id'][:8]} {environment['name']}/{session.get('name')} ({session['status']})"


async def load_names(remote: Remote) -> Names:
    """List everything the caller has, in one request."""
    answer = await remote.get(f"/api/environments/user/{segment(remote.signed_in().user_id)}")
    return Names(answer["environments"])


def normal_repository(url: str) -> str:
    """Return what is equal for two ways to write one repository's address.

    The scheme, a user, a default port, letter case of the host, a final slash and `.git` do not
    count: `git@github.com:a/b.git` is `https://github.com/a/b`.
    """
    text = url.strip()
    if "://" in text:
        parts = urlsplit(text)
        host = (parts.hostname or "").lower()
        port = parts.port
        where = host if port in {None, DEFAULT_PORTS.get(parts.scheme)} else f"{host}:{port}"
        path = parts.path
    elif match := SCP_FORM.fullmatch(text):
        where, path = match["host"].lower(), match["path"]
    else:
        where, _, path = text.partition("/")
        where = where.lower()
    return f"{where}/{path.strip('/').removesuffix('.git').rstrip('/')}"


def repository_name(url: str) -> str:
    """Return a name for an environment: the last part of the repository's address."""
    name = normal_repository(url).rsplit("/", 1)[-1]
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:64] or "repository"


def without_user(url: str) -> str:
    """Return an address without a user or password before its host, if it is an http one."""
    parts = urlsplit(url) if "://" in url else None
    if parts is None or parts.scheme not in {"http", "https"} or "@" not in parts.netloc:
        return url
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]).geturl()


def meant(known: Sequence[Row], text: str, is_called: Callable[[Row], bool], absent: str) -> Row:
    """Return which of these rows a text means: a name or id, else the beginning of an id.

    Args:
        known: Rows with an `id`.
        text: What the user typed.
        is_called: Whether it is a row's name.
        absent: What to say when it means none.

    Raises:
        NotFound: There is none.
        InvalidInput: Several fit.
    """
    found = [one for one in known if is_called(one) or one["id"] == text]
    found = found or [one for one in known if text and one["id"].startswith(text)]
    if not found:
        raise NotFound(absent)
    if len(found) > 1:
        raise InvalidInput(f"{text} fits several; say more of the id.")
    return found[0]

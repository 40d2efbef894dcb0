"""Names, messages and people that break what reads them carelessly: all come through whole."""

import base64
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from craftastic.database import Database
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime

COUNT = 200
LOOKED_AT = 40
COMMITTED = 25

NAMES = [
    b"--all", b"-a", b"--", b"-", b"--output=x", b":(glob)*", b":(exclude)a.txt", b":!a.txt",
    b":^x", b":(literal)x", b"*", b"**", b"?", b"[a]", b"a b", b" lead", b"trail ",
    b"new\nline", b"tab\t",
    b"cr\r", b'quo"te', b"apo'strophe", b"back\\slash", b"\\n", b"$(id)", b"`id`", b"a;id", b"a|b",
    b"a&b", b"#x", b"~", b"!x", b"%s", b"a -> b", b"\x01", b"\x1b[31mred", b"\x7f", b"\xff",
    b"\xc3\x28", b"\x81\x82\x83", "é".encode(), "e\u0301".encode(), "\u202etxt.exe".encode(),
    "\u200b".encode(), "李.txt".encode(), "🚀".encode(), b"d/--x", b"d/ /\n/\xfe", b"HEAD", b"main",
    b"x" * 255, b"? untracked", b"1 .M N...", b"# branch.oid x", b"a\x81\x88b",
]  # fmt: skip
MESSAGES = [
    "# not a comment", "  leading", "trailing  ", "tab\there", 'quo"te', "apo'strophe",
    "back\\slash",
    "$(id)", "`id`", "%H%x00%an", "\u202ebidi", "🚀 é 李", "Signed-off-by: x <y@z>", "fixup! x",
    ";", "a\n", "\n\nlate", "a\n\nbody", "a\n\n# body\n\n---\ndiff --git a/x b/x",
    "one\ntwo\n\nbody  \n", "\x01\x1b[31m", "'; DROP TABLE users; --", "x" * 5000,
    "scissors\n# --- >8 ---\nx", "HEAD -> x",
]  # fmt: skip


@pytest.fixture
async def database(copy_of_template: Callable[[str], str]) -> AsyncIterator[Database]:
    """Give one kind only: nothing here depends on the database."""
    database = Database(driver_url(copy_of_template("sqlite")))
    yield database
    await database.close()


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[GitRig]:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = GitRuntime(folder)
    async with git_rig(database, clock, runtime, tmp_path) as rig:
        yield rig
    await runtime.close()


def generated(count: int, forbidden: bytes) -> list[bytes]:
    """Make byte strings of every kind; the same at each run."""
    chance = random.Random(7)  # noqa: S311 - it has to be the same at each run
    pieces = [bytes([one]) for one in range(1, 256) if one not in forbidden]
    pieces += [
        one for one in (*NAMES, *(m.encode() for m in MESSAGES)) if not set(one) & set(forbidden)
    ]
    found: dict[bytes, None] = {}
    while len(found) < count:
        one = b"".join(chance.choices(pieces, k=chance.randint(1, 6)))[:200]
        if one not in {b".", b".."} and one.lower() != b".git":
            found[one] = None
    return list(found)


def raw(file: dict[str, Any]) -> bytes:
    """Return a file's name as its bytes."""
    if "filenameBase64" in file:
        name = base64.b64decode(file["filenameBase64"])
        assert name.decode(errors="replace") == file["filename"]
        return name
    return file["filename"].encode()


def chosen(names: list[bytes]) -> dict[str, list[str]]:
    texts: list[str] = []
    encoded: list[str] = []
    for name in names:
        try:
            texts.append(name.decode())
        except UnicodeDecodeError:
            encoded.append(base64.b64encode(name).decode())
    return {"files": texts, "filenamesBase64": encoded}


async def write(rig: GitRig, names: list[bytes]) -> None:
    """Make files in the worktree; each holds its name and a line's end."""
    script = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for name in sys.stdin.buffer.read().split(b'\\0')[:-1]:\n"
        "    if os.path.dirname(name): os.makedirs(os.path.dirname(name), exist_ok=True)\n"
        "    open(name, 'wb').write(b'content\\n')\n"
    )
    result = await rig.runtime.run(
        rig.environment.sandbox,
        ["python3", "-c", script, rig.path],
        stdin=b"".join(name + b"\0" for name in names),
    )
    assert result.exit_code == 0, result.stderr


async def test_names_of_any_bytes_come_through_status_diff_and_commit(rig: GitRig) -> None:
    names = NAMES + [one for one in generated(COUNT - len(NAMES), b"/\0") if one not in NAMES]
    await write(rig, names)

    status = await rig.get("status")
    diff = await rig.get("diff")

    assert sorted(raw(one) for one in status["files"]) == sorted(names)
    assert all(one["added"] == 1 for one in status["files"])
    assert sorted(raw(one) for one in diff["files"]) == sorted(names)
    assert not status["truncated"]
    assert not diff["truncated"]

    for name in [*NAMES, *names[-LOOKED_AT:]]:
        encoded = base64.b64encode(name).decode()
        one = await rig.get("diff", filenameBase64=encoded)
        assert [raw(file) for file in one["files"]] == [name]
        assert one["diff"].endswith("@@ -0,0 +1 @@\n+content\n")

    half = names[::2]
    made = await rig.post("commit", message="half", **chosen(half))
    left = await rig.get("status")
    against = await rig.get("diff", base="main")

    assert made["data"]["filesChanged"] == len(half)
    assert sorted(raw(one) for one in left["files"]) == sorted(names[1::2])
    assert sorted(raw(one) for one in against["files"]) == sorted(names)
    # Deletions and changes of them, too.
    await rig.sh(
        "git ls-files -z | head -z -n 20 | xargs -0 rm --;"
        "find . -name '*x*' -type f -exec sh -c 'echo x >> \"$1\"' sh {} \\;"
    )
    changed = await rig.get("status")
    some = [raw(one) for one in changed["files"]][::2]
    await rig.post("commit", message="some", **chosen(some))
    await rig.post("commit", message="all")
    assert (await rig.get("status"))["files"] == []


async def test_messages_that_were_sent_are_what_the_log_shows(rig: GitRig) -> None:
    for message in MESSAGES[:COMMITTED]:
        await rig.post("commit", message=message, amend=True, staged=True)
        (commit,) = (await rig.get("log", limit=1))["commits"]

        subject, _, body = message.strip("\n").partition("\n\n")
        assert commit["message"] == subject.replace("\n", " ")
        assert commit["body"] == body
        # git log adds one line's end of its own.
        stored = await rig.sh("git log -1 --format=%B | od -v -An -tx1 | tr -d ' \\n'")
        assert stored == (message + "\n").encode().hex()


async def test_no_commit_is_lost_whatever_is_in_it(rig: GitRig) -> None:
    names = generated(COUNT, b"<>\n\0")
    subjects = generated(COUNT, b"\0")
    stream: list[bytes] = []
    for at, (name, subject) in enumerate(zip(names, subjects, strict=True)):
        encoding = (
            b"encoding ISO-8859-1\n"
            if at % 5 == 0
            else b"encoding x-none\n"
            if at % 7 == 0
            else b""
        )
        author = b"author %b <%b> %d +0130\n" % (
            name.strip(b" ") or b"x",
            name.strip(b" "),
            10**9 + at,
        )
        stream += [
            b"commit refs/heads/odd\n",
            author,
            b"committer C <c@example.com> %d +0000\n" % (10**9 + at),
            encoding,
            b"data %d\n%b\n" % (len(subject), subject),
        ]
    result = await rig.runtime.run(
        rig.environment.sandbox,
        ["git", "-C", rig.path, "fast-import", "--quiet"],
        stdin=b"".join(stream),
    )
    assert result.exit_code == 0, result.stderr
    ids = (await rig.sh("git rev-list odd")).splitlines()

    seen: list[dict[str, Any]] = []
    for offset in range(0, COUNT, 50):
        seen += (await rig.get("log", ref="odd", limit=50, offset=offset))["commits"]

    assert [one["hash"] for one in seen] == ids
    assert len(seen) == COUNT
    for at, one in enumerate(reversed(seen)):
        assert one["date"].endswith("+0130")
        if at % 5 and at % 7:  # those that say their encoding are shown in Unicode
            assert one["author"].strip() in {decoded(names[at]).strip(), "x"}
            assert squeezed(one["message"] + one["body"]) == squeezed(decoded(subjects[at]))


def decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.slow
async def test_a_diff_of_a_gigabyte_is_cut_and_costs_little_memory(rig: GitRig) -> None:
    await rig.sh(
        "yes 'a line of some length, as lines of source code are' | head -c 16777216 > f;"
        "for n in $(seq 64); do cp f f$n; done; rm f"
    )
    await asked(rig, "status")  # what is loaded once is loaded
    before = peak_kib(reset=True)

    answer = await asked(rig, "diff")

    assert peak_kib() - before < MAX_GROWTH_KIB
    assert len(answer) > 5_000_000
    assert b'"truncated":true' in answer[-20_000:] or b'"truncated":true' in answer[:1000]


MAX_GROWTH_KIB = 32 << 10


def peak_kib(*, reset: bool = False) -> int:
    """Return the most memory that this process has had since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


async def asked(rig: GitRig, route: str) -> bytearray:
    """Ask the app without a client in between, whose copies would count; keep the end."""
    app: Any = cast("Any", rig.client._transport).app
    body = bytearray()
    path = f"/api/git/{route}/{rig.session.id}"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "headers": [(b"authorization", f"Bearer {rig.shop.owner}".encode())],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return body

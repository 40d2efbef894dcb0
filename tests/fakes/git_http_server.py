"""A real git server over HTTP on loopback: `git http-backend` behind a small threaded server."""

import base64
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from pathlib import Path
from threading import Thread
from typing import BinaryIO, Self, cast
from urllib.parse import urlsplit

CHUNK = 1 << 16
PASS_ON_TIMEOUT_S = 30.0
OF_ONE_CONNECTION = {"connection", "content-length", "date", "host", "server", "transfer-encoding"}
GIT_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "LC_ALL": "C",
}


class GitHttpServer:
    """Serves every repository under a folder, for reading and for pushing.

    Args:
        root: Folder of bare (or other) repositories.
        host: Address to listen at; the port is chosen.
        password: Ask for Basic authentication with this password, of any user, when given.
        accepts: Ask for Basic authentication, and let in the usernames and passwords that this
            function is true for, when given.
        elsewhere: How paths begin that another server answers, by that server's address: a git
            host has pages and an API at the same origin.
        tls: Serve https with this context when given.

    Attributes:
        requests: Method, path with query, and headers (lower-case names) of each request.
        failing: Says the status that a request (method, path with query) is answered with instead
            of by git; None for none.
    """

    def __init__(
        self,
        root: Path,
        host: str = "127.0.0.1",
        *,
        password: str | None = None,
        accepts: Callable[[str, str], bool] | None = None,
        elsewhere: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.root = root
        self.password = password
        self.accepts = accepts
        self.elsewhere = dict(elsewhere or {})
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.failing: Callable[[str, str], int | None] = lambda _method, _path: None
        owner = self

        class Handler(_Handler):
            server_of_git = owner

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.scheme = "http" if tls is None else "https"
        self.host = host
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url(self, name: str) -> str:
        """Return the clone URL of the repository in `root / name`."""
        return f"{self.scheme}://{self.host}:{self.port}/{name}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a header and a chunk are one write
    disable_nagle_algorithm = True
    server_of_git: GitHttpServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server_of_git.requests.append((self.command, self.path, headers))
        for beginning, address in self.server_of_git.elsewhere.items():
            if self.path.startswith(beginning):
                self._pass_on(address, headers)
                return
        status = self.server_of_git.failing(self.command, self.path)
        if status is not None:
            for _ in self._body(headers):
                pass
        elif not self._authorized(headers.get("authorization", "")):
            status = 401
        if status is not None:
            self.close_connection = True
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Connection", "close")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with subprocess.Popen(
            ["git", "http-backend"],
            env=self._cgi(headers),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as backend:
            assert backend.stdin
            assert backend.stdout
            # git reads and writes at once, so the body goes in from a thread of its own.
            feeder = Thread(target=self._feed, args=(backend.stdin, headers), daemon=True)
            feeder.start()
            try:
                self._answer(cast(BufferedReader, backend.stdout))
            except OSError:
                self.close_connection = True
                backend.kill()
            feeder.join()

    def _pass_on(self, address: str, headers: dict[str, str]) -> None:
        body = b"".join(self._body(headers))
        kept = {name: value for name, value in headers.items() if name not in OF_ONE_CONNECTION}
        other = HTTPConnection(urlsplit(address).netloc, timeout=PASS_ON_TIMEOUT_S)
        try:
            other.request(self.command, self.path, body or None, kept)
            answer = other.getresponse()
            content = answer.read()
        finally:
            other.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in OF_ONE_CONNECTION:
                self.send_header(name, value)
        if answer.status not in {204, 304}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _authorized(self, header: str) -> bool:
        server = self.server_of_git
        if server.password is None and server.accepts is None:
            return True
        try:
            decoded = base64.b64decode(header.removeprefix("Basic ")).decode()
        except ValueError:
            return False
        username, _, password = decoded.partition(":")
        if server.accepts is not None:
            return server.accepts(username, password)
        return password == server.password

    def _cgi(self, headers: dict[str, str]) -> dict[str, str]:
        parts = urlsplit(self.path)
        variables = {
            "GIT_PROJECT_ROOT": str(self.server_of_git.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REMOTE_USER": "someone",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": headers.get("content-type", ""),
        }
        # Repositories made by the tests may belong to another user than the one who runs them.
        safe = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        for name, variable in (
            ("content-length", "CONTENT_LENGTH"),
            ("content-encoding", "HTTP_CONTENT_ENCODING"),
            ("git-protocol", "GIT_PROTOCOL"),
        ):
            if name in headers:
                variables[variable] = headers[name]
        return GIT_ENVIRONMENT | safe | variables

    def _feed(self, stdin: BinaryIO, headers: dict[str, str]) -> None:
        try:
            stdin.writelines(self._body(headers))
        except (OSError, ValueError):
            self.close_connection = True
        finally:
            try:
                stdin.close()
            except OSError:
                self.close_connection = True

    def _body(self, headers: dict[str, str]) -> Iterator[bytes]:
        if headers.get("transfer-encoding", "") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self._exactly(int(headers.get("content-length", "0")))

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            chunk = self.rfile.read(min(size, CHUNK))
            if not chunk:
                raise OSError("the client went away")
            size -= len(chunk)
            yield chunk

    def _answer(self, stdout: BufferedReader) -> None:
        status, headers = 200, list[tuple[str, str]]()
        while line := stdout.readline().strip():
            name, _, value = line.decode().partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value.strip()))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while chunk := stdout.read1(CHUNK):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


def git(*arguments: str, cwd: Path | None = None, check: bool = True, timeout_s: float = 60) -> str:
    """Run git as a person would, without any configuration, and return what it printed.

    Raises:
        subprocess.CalledProcessError: It failed and `check` is set.
    """
    done = run_git(*arguments, cwd=cwd, timeout_s=timeout_s)
    if check and done.returncode:
        raise AssertionError(f"git {arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def run_git(
    *arguments: str,
    cwd: Path | None = None,
    timeout_s: float = 60,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run git without any configuration but the given variables, and never with a prompt."""
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
        "GIT_TERMINAL_PROMPT": "0",
        "HOME": "/nonexistent",
    }
    return subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env=GIT_ENVIRONMENT | identity | dict(variables or {}),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def make_repository(path: Path, *, bytes_of_noise: int = 0) -> Path:
    """Make a bare repository with a `main` branch of one commit.

    Args:
        path: Where; its parent exists.
        bytes_of_noise: Size of one file of random bytes in it, which no compression shrinks.
    """
    work = path.with_name(f"{path.name}.work")
    git("init", "--quiet", "--initial-branch=main", str(work))
    git("config", "core.compression", "0", cwd=work)
    (work / "README").write_text("hello\n")
    if bytes_of_noise:
        with (work / "noise").open("wb") as noise:
            for _ in range(0, bytes_of_noise, 1 << 20):
                noise.write(os.urandom(1 << 20))
    git("add", ".", cwd=work)
    git("commit", "--quiet", "-m", "first", cwd=work)
    git("clone", "--quiet", "--bare", str(work), str(path))
    git("config", "http.receivepack", "true", cwd=path)
    git("config", "core.compression", "0", cwd=path)
    return path

"""nginx and Caddy with the configurations that the project ships, and a certificate for them."""

import datetime as dt
import re
import shutil
import ssl
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import free_port, missing
from tests.leaks import MARK_NAME, RUN

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "craft.example.com"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NGINX = """daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    include {folder}/craftastic.conf;
}}
"""
CADDY = """{
	admin off
	auto_https disable_redirects
}
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for the name in the shipped configurations, which signs itself."""

    file: Path
    key: Path

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.file)


def make_certificate(folder: Path, host: str = NAME) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = Certificate(folder / "certificate.pem", folder / "key.pem")
    files.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that runs."""

    name: str
    port: int
    log: Path

    @property
    def origin(self) -> str:
        return f"https://{NAME}:{self.port}"


def changed(text: str, *changes: tuple[str, str]) -> str:
    """Return a configuration with what differs between the tests and the world exchanged.

    Raises:
        AssertionError: The configuration does not have it any more.
    """
    for old, new in changes:
        found = re.findall(old, text)
        assert found, f"the configuration has no {old}"
        text = re.sub(old, lambda _, new=new: new, text)
    return text


@contextmanager
def nginx(
    folder: Path, upstream: int, certificate: Certificate, timeout_s: int
) -> Generator[Proxy]:
    """Run nginx with the shipped configuration, and less patience.

    Args:
        folder: For its files.
        upstream: The server's port.
        certificate: In the place of the real one.
        timeout_s: How long the server may say nothing.
    """
    port, log = free_port(), folder / "access.log"
    shipped = (DEPLOY / "nginx" / "craftastic.conf").read_text()
    ours = changed(
        shipped,
        (r"\n *listen \[::\]:\d+( ssl)?;", ""),
        (r"listen 80;", f"listen 127.0.0.1:{free_port()};"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (r"server 127\.0\.0\.1:3000;", f"server 127.0.0.1:{upstream};"),
        (r"/etc/letsencrypt/\S+/fullchain\.pem", str(certificate.file)),
        (r"/etc/letsencrypt/\S+/privkey\.pem", str(certificate.key)),
        (r"/var/log/nginx/craftastic\.log", str(log)),
        (r"proxy_(read)_timeout 1h;", f"proxy_read_timeout {timeout_s}s;"),
    )
    (folder / "craftastic.conf").write_text(ours)
    main = folder / "nginx.conf"
    main.write_text(NGINX.format(folder=folder))
    arguments = ["nginx", "-p", str(folder), "-c", str(main), "-e", "stderr"]
    with _running(arguments, folder):
        yield Proxy("nginx", port, log)


@contextmanager
def caddy(folder: Path, upstream: int, certificate: Certificate) -> Generator[Proxy]:
    """Run Caddy with the shipped configuration."""
    port, log = free_port(), folder / "access.log"
    shipped = (DEPLOY / "caddy" / "Caddyfile").read_text()
    ours = changed(
        shipped,
        (
            r"craft\.example\.com \{",
            f"https://{NAME}:{port} {{\nbind 127.0.0.1\ntls {certificate.file} {certificate.key}",
        ),
        (r"reverse_proxy 127\.0\.0\.1:3000", f"reverse_proxy 127.0.0.1:{upstream}"),
        (r"/var/log/caddy/craftastic\.log", str(log)),
    )
    main = folder / "Caddyfile"
    main.write_text(CADDY + ours)
    arguments = ["caddy", "run", "--config", str(main), "--adapter", "caddyfile"]
    with _running(arguments, folder):
        yield Proxy("caddy", port, log)


@contextmanager
def _running(arguments: list[str], folder: Path) -> Generator[None]:
    program = shutil.which(arguments[0], path=PATH)
    if program is None:
        missing(f"{arguments[0]} is not installed")
    assert program is not None
    environment = {"PATH": PATH, "HOME": str(folder), MARK_NAME: RUN.mark}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [program, *arguments[1:]],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)

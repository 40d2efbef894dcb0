"""The server's settings: one frozen class, and the only reader of the environment."""

import os
import re
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from craftastic import failpoints
from craftastic._setting_forms import (
    MailServer,
    is_plain_address,
    parse_bytes,
    parse_mail_server,
    parts_of,
    split_commas,
)

__all__ = ["MODEL_PROVIDERS", "MailServer", "Settings", "default_data_dir", "load_settings"]

MODEL_PROVIDERS = ("anthropic", "openai", "openai-compatible", "gemini")
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]


def default_data_dir() -> Path:
    """Return where state lives when nothing is set.

    A server that runs as root gives each sandbox a user id of its own, and such a user must be
    able to pass the folder's parents: root's home is closed to it.
    """
    return Path("/var/lib/craftastic") if os.geteuid() == 0 else Path.home() / ".craftastic"


class Settings(BaseSettings):
    """Everything an operator can set, by environment variable or in `.env`.

    Raises:
        pydantic.ValidationError: A value does not parse, or a key is shorter than 32 bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix="CRAFTASTIC_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # a key that is refused is a key all the same
    )

    host: str = Field("127.0.0.1", description="Address of the API listener.")
    port: int = Field(
        3000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("CRAFTASTIC_PORT", "PORT"),
        description="Port of the API listener.",
    )
    public_url: str | None = Field(
        None, description="Where browsers reach the server; from host and port when unset."
    )
    gateway_port: int = Field(
        3010, ge=0, le=65535, description="Port of the private listener that only sandboxes reach."
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Where state is kept. Default: `~/.craftastic`, as root `/var/lib/craftastic`.",
    )
    runtime: Literal["auto", "docker", "local"] = Field(
        "auto", description="What runs sandboxes: `docker`, `local`, or the first that works."
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "CRAFTASTIC_DATABASE_URL"),
        description="`postgresql://…` or `sqlite:///…`; SQLite in the data folder when unset.",
    )
    jwt_secret: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("JWT_SECRET", "CRAFTASTIC_JWT_SECRET"),
        description="Key of access tokens, at least 32 bytes; made once in `keys/` when unset.",
    )
    encryption_key: SecretStr | None = Field(
        None,
        description="Key of secrets at rest, at least 32 bytes; made once in `keys/` when unset.",
    )
    encryption_old_keys: SecretStr | None = Field(
        None,
        description="Older keys of secrets at rest, separated by commas: they decrypt only.",
    )
    cors_origin: Words = Field(
        (),
        validation_alias=AliasChoices("CORS_ORIGIN", "CRAFTASTIC_CORS_ORIGIN"),
        description="Origins that browsers may call from, with commas; the public URL when unset.",
    )
    docker_host: str | None = Field(
        None,
        validation_alias=AliasChoices("DOCKER_HOST", "CRAFTASTIC_DOCKER_HOST"),
        description="The engine: `unix://…`, `tcp://…` or a path; its usual socket when unset.",
    )
    sandbox_image: str = Field(
        "craftastic-sandbox:latest",
        validation_alias=AliasChoices("SANDBOX_IMAGE", "CRAFTASTIC_SANDBOX_IMAGE"),
        description="Image of Docker sandboxes.",
    )
    sandbox_memory_limit: Bytes = Field(
        2 << 30,
        validation_alias=AliasChoices("SANDBOX_MEMORY_LIMIT", "CRAFTASTIC_SANDBOX_MEMORY_LIMIT"),
        description="Memory of one sandbox; units k, m, g. Default 2g.",
    )
    sandbox_cpu_limit: float = Field(
        2.0,
        gt=0,
        validation_alias=AliasChoices("SANDBOX_CPU_LIMIT", "CRAFTASTIC_SANDBOX_CPU_LIMIT"),
        description="Processors of one sandbox.",
    )
    sandbox_pids_limit: int = Field(
        512,
        ge=32,
        validation_alias=AliasChoices("SANDBOX_PIDS_LIMIT", "CRAFTASTIC_SANDBOX_PIDS_LIMIT"),
        description="Processes and threads of one sandbox.",
    )
    sandbox_uid_base: int = Field(
        200_000,
        ge=1000,
        description="First of 65,536 user ids: one for each environment of a server run by root.",
    )
    sandbox_self_test: bool = Field(
        True, description="Try tmux and a commit in a scratch sandbox before serving."
    )
    agent_tools: Words = Field(
        ("claude-code", "codex", "gemini-cli", "qwen-coder", "opencode"),
        description="Agents whose command lines sandboxes have, with commas; `none` for none.",
    )
    agent_credential_reads: bool = Field(
        False,
        description="Let programs with a `write` access token read credentials of agents back.",
    )
    image_base: str | None = Field(
        None, description="Base image to build the sandbox image from; Debian's when unset."
    )
    image_ca_bundle: Path | None = Field(
        None, description="File of extra certificate authorities that sandboxes trust."
    )
    git_allow_http: bool = Field(False, description="Allow upstreams over plain http.")
    git_allow_private: bool = Field(
        False, description="Allow upstreams at private, loopback or link-local addresses."
    )
    git_max_bytes: Bytes = Field(
        4 << 30, description="Most bytes one git transfer may carry in either direction."
    )
    git_timeout_s: float = Field(1800.0, gt=0, description="Longest git transfer, in seconds.")
    git_idle_timeout_s: float = Field(
        60.0, gt=0, description="Longest silence of an upstream in a git transfer, in seconds."
    )
    model_upstreams: Words = Field(
        (),
        description="Model APIs of the operator's own in place of the vendors', with commas: "
        "`anthropic=https://models.example.com,openai=http://10.0.0.5:4000/v1`. Names: "
        "`anthropic`, `openai`, `openai-compatible`, `gemini`. They may be at private addresses.",
    )
    agent_token_limit: int = Field(
        0,
        ge=0,
        description="Tokens (read and written) that an agent session may use before it waits and "
        "its owner is asked; 0 for no limit.",
    )
    github_client_id: str | None = Field(
        None,
        validation_alias=AliasChoices("GITHUB_CLIENT_ID", "CRAFTASTIC_GITHUB_CLIENT_ID"),
        description="Client id of a GitHub App or OAuth app; without it GitHub is not offered.",
    )
    github_client_secret: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("GITHUB_CLIENT_SECRET", "CRAFTASTIC_GITHUB_CLIENT_SECRET"),
        description="Secret of that app; only used to revoke tokens, and not needed.",
    )
    github_app_slug: str | None = Field(
        None,
        validation_alias=AliasChoices("GITHUB_APP_SLUG", "CRAFTASTIC_GITHUB_APP_SLUG"),
        pattern=r"^[A-Za-z0-9-]{1,100}$",
        description="Name of the GitHub App in its address, for the link that installs it.",
    )
    github_url: str = Field(
        "https://github.com",
        validation_alias=AliasChoices("GITHUB_URL", "CRAFTASTIC_GITHUB_URL"),
        description="Where GitHub is, for an Enterprise server of one's own.",
    )
    github_api_url: str | None = Field(
        None,
        validation_alias=AliasChoices("GITHUB_API_URL", "CRAFTASTIC_GITHUB_API_URL"),
        description="Where its API is; follows from the address of GitHub when unset.",
    )
    github_scopes: str = Field(
        "repo read:user user:email",
        validation_alias=AliasChoices("GITHUB_SCOPES", "CRAFTASTIC_GITHUB_SCOPES"),
        pattern=r"^[A-Za-z0-9:_./, -]{0,500}$",
        description="What an OAuth app asks for; a GitHub App has its own permissions.",
    )
    github_webhook_secret: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("GITHUB_WEBHOOK_SECRET", "CRAFTASTIC_GITHUB_WEBHOOK_SECRET"),
        description="Secret of the GitHub App's webhook; without it the webhook is refused.",
    )
    coolify_api_url: str | None = Field(
        None,
        validation_alias=AliasChoices("COOLIFY_API_URL", "CRAFTASTIC_COOLIFY_API_URL"),
        description="Coolify that everyone with an account may deploy by, `https://host`; it may "
        "be at a private address. Goes together with the token.",
    )
    coolify_api_token: SecretStr | None = Field(
        None,
        validate_default=True,
        validation_alias=AliasChoices("COOLIFY_API_TOKEN", "CRAFTASTIC_COOLIFY_API_TOKEN"),
        description="API token of that Coolify, whole, with the abilities `deploy` and `read`.",
    )
    coolify_origins: Words = Field(
        (),
        description="Where users' own Coolify may be besides public https addresses, with commas: "
        "`https://coolify.example.com,http://10.0.0.5:8000`.",
    )
    registration: Literal["invite", "open", "closed"] = Field(
        "invite", description="Who may register after the first account."
    )
    smtp_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("SMTP_URL", "CRAFTASTIC_SMTP_URL"),
        description="Mail server, `smtp://user:password@host:587` (STARTTLS) or `smtps://…`; "
        "without one, messages are files in `mail/`.",
    )
    smtp_ca_bundle: Path | None = Field(
        None, description="File of extra certificate authorities for the mail server."
    )
    mail_from: str | None = Field(
        None,
        validation_alias=AliasChoices("MAIL_FROM", "CRAFTASTIC_MAIL_FROM"),
        pattern=r"^[^\x00-\x1f\x7f]{1,200}@[^\x00-\x1f\x7f@]{1,100}$",
        description="Sender of mail, an address or `Name <address>`; at the public URL's host "
        "when unset.",
    )
    require_verified_email: bool = Field(
        False, description="Let nobody but administrators in whose address is not confirmed."
    )
    sign_in_attempts_per_minute: int = Field(
        30, ge=1, description="Sign-ins, registrations and the like that one address may try."
    )
    trusted_proxies: Words = Field(
        (),
        description="Addresses and networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` count, separated by commas.",
    )
    allowed_hosts: Words = Field(
        (),
        description="Names that the server answers to, besides the public URL's, `localhost` and "
        "plain addresses, separated by commas; `*` takes every name.",
    )
    local_share_network: bool = Field(
        False,
        description="Let `local` sandboxes share the host's network; not safe for strangers' code.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        validation_alias=AliasChoices("LOG_LEVEL", "CRAFTASTIC_LOG_LEVEL"),
        description="Least severe message that is written.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        validation_alias=AliasChoices("LOG_FORMAT", "CRAFTASTIC_LOG_FORMAT"),
        description="`json`, `console`, or by whether standard error is a terminal.",
    )
    access_token_ttl_s: int = Field(
        900, ge=60, le=3600, description="Life of access tokens, seconds."
    )
    refresh_token_ttl_s: int = Field(
        30 * 86400, ge=3600, description="Life of refresh tokens, in seconds."
    )
    reconcile_interval_s: float = Field(
        30.0, gt=0, description="Seconds between two rounds of the reconciler."
    )
    event_retention_s: float = Field(
        86400.0, ge=60, description="Seconds that events are kept for pages that come back."
    )
    idle_stop_minutes: int = Field(
        0,
        ge=0,
        le=525_600,
        description="Minutes without use after which an environment is stopped; 0 for never. "
        "Each environment may have a policy of its own.",
    )
    disk_quota_mib: int = Field(
        0,
        ge=0,
        le=1 << 30,
        description="MiB of disk that one environment may use; 0 for as much as there is. Over it "
        "new sessions are refused, far over it a growing one is stopped.",
    )
    disk_free_floor_mib: int = Field(
        512,
        ge=0,
        le=1 << 30,
        description="MiB that stay free of the data folder's file system: below, no environments "
        "and sessions are made; 0 for no floor.",
    )
    max_environments_per_user: int = Field(50, ge=1, description="Environments one user may have.")
    max_sessions_per_environment: int = Field(
        64, ge=1, description="Live sessions one environment may have."
    )
    max_terminals_per_user: int = Field(
        128, ge=1, description="Terminals one user may have open at once."
    )
    max_body_bytes: Bytes = Field(1 << 20, description="Largest request body of the API.")
    terminal_history_lines: int = Field(
        50_000, ge=1000, description="Lines of history that each terminal keeps."
    )

    terminal_link: bool = Field(
        True,
        description="Let terminals of Docker sandboxes go round the engine, over a socket in a "
        "mounted folder; without it, or where that fails, they go through the engine.",
    )

    failpoint: str | None = Field(
        None,
        description="For tests of crashes: the place where this server dies, `NAME` or "
        "`NAME:SKIP`. Never set it on a server that anybody uses.",
    )

    @field_validator("failpoint")
    @classmethod
    def _known_failpoint(cls, value: str | None) -> str | None:
        if value is not None:
            failpoints.parse(value)
        return value

    @field_validator("agent_tools")
    @classmethod
    def _known_agents(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = ("claude-code", "codex", "gemini-cli", "qwen-coder", "opencode")
        chosen = tuple(dict.fromkeys(one for one in value if one != "none"))
        if unknown := [one for one in chosen if one not in known]:
            raise ValueError(f"no such agent: {', '.join(unknown)}; known are {', '.join(known)}")
        return tuple(one for one in known if one in chosen)

    @field_validator("log_level", mode="before")
    @classmethod
    def _known_level_names(cls, value: object) -> object:
        names = {"warn": "warning", "fatal": "error", "critical": "error", "trace": "debug"}
        return names.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        known = ("postgresql://", "postgres://", "sqlite://", "postgresql+asyncpg://")
        known += ("sqlite+aiosqlite://",)
        if value is not None and not value.get_secret_value().startswith(known):
            raise ValueError("it must begin with postgresql:// or sqlite:///")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _known_mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        parse_mail_server(value.get_secret_value().strip())
        return value

    @field_validator(
        "github_client_id",
        "github_client_secret",
        "github_webhook_secret",
        "github_api_url",
        "github_app_slug",
        "coolify_api_url",
        "coolify_api_token",
        "mail_from",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return (value.strip() or None) if isinstance(value, str) else value

    @field_validator("github_url", "github_api_url")
    @classmethod
    def _web_address(cls, value: str | None, seen: ValidationInfo) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        schemes = {"https", "http"} if seen.data.get("git_allow_http") else {"https"}
        if parts.scheme not in schemes:
            raise ValueError("it must begin with https:// (CRAFTASTIC_GIT_ALLOW_HTTP allows http)")
        plain = parts.port != 0 and not (parts.query or parts.fragment)  # a wrong port raises
        if not parts.hostname or "@" in parts.netloc or not plain:
            raise ValueError("it must have the form https://host")
        if seen.field_name == "github_url" and parts.path.strip("/"):
            raise ValueError("it must not have a path")
        return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"

    @field_validator("model_upstreams")
    @classmethod
    def _model_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            provider, _, url = one.partition("=")
            if provider not in MODEL_PROVIDERS:
                raise ValueError(f"each must begin with one of {', '.join(MODEL_PROVIDERS)} and =")
            if not is_plain_address(url):
                raise ValueError(
                    "after the equals sign there must be a plain address, https://host/…, without "
                    "a user or a password"
                )
        if len({one.partition("=")[0] for one in value}) < len(value):
            raise ValueError("each name may be there once")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                ip_network(one, strict=False)
            except ValueError:
                raise ValueError(
                    "each must be an address or a network such as 10.0.0.0/8"
                ) from None
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch(r"\*|[A-Za-z0-9_.-]{1,253}", one) for one in value):
            raise ValueError("each must be a name without scheme and port, or * for all")
        return value

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(one.rstrip("/").lower() for one in value)
        if any(not re.fullmatch(r"\*|https?://[^/?#@\s*]+", one) for one in origins):
            raise ValueError("each must have the form https://host or https://host:port")
        return origins

    @field_validator("coolify_origins")
    @classmethod
    def _places_of_coolify(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(one.rstrip("/").lower() for one in value)
        if any(not is_plain_address(one) or urlsplit(one).path for one in origins):
            raise ValueError("each must have the form https://host or https://host:port")
        return origins

    @field_validator("coolify_api_url")
    @classmethod
    def _coolify_address(cls, value: str | None) -> str | None:
        form = r"(?i)https?://[a-z0-9_.:\[\]-]+(/[a-z0-9._~-]+)*/*"
        if value and not (is_plain_address(value) and re.fullmatch(form, value)):
            raise ValueError("it must have the form https://host or http://host:port, and no more")
        return value

    @field_validator("coolify_api_token")
    @classmethod
    def _whole_coolify(cls, value: SecretStr | None, seen: ValidationInfo) -> SecretStr | None:
        if value is not None and re.search(r"[^\x21-\x7e]", value.get_secret_value()):
            raise ValueError("it must be the token alone: letters, digits and the bar in it")
        url = seen.data.get("coolify_api_url", value)  # absent where it is wrong itself
        if (url is None) != (value is None):
            raise ValueError("COOLIFY_API_URL and COOLIFY_API_TOKEN go together: set both or none")
        return value

    @field_validator("jwt_secret", "encryption_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < 32:  # noqa: PLR2004
            raise ValueError("a key needs at least 32 bytes")
        return value

    @field_validator("encryption_old_keys")
    @classmethod
    def _each_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        keys = parts_of(value.get_secret_value()) if value else []
        if any(len(key.encode()) < 32 for key in keys):  # noqa: PLR2004
            raise ValueError("each key needs at least 32 bytes")
        return value

    @property
    def model_upstreams_by_provider(self) -> dict[str, str]:
        """Return the operator's own model APIs: addresses by the names of providers."""
        return dict(one.split("=", 1) for one in self.model_upstreams)

    @property
    def old_encryption_keys(self) -> list[str]:
        """Return the older keys as texts; not kept, since what is cached shows in `repr`."""
        return parts_of(
            self.encryption_old_keys.get_secret_value() if self.encryption_old_keys else ""
        )

    @cached_property
    def github_api(self) -> str:
        """Return the address of GitHub's API, without a trailing slash."""
        if self.github_api_url is not None:
            return self.github_api_url
        scheme, _, host = self.github_url.partition("://")
        if host == "github.com" or host.endswith(".ghe.com"):
            return f"{scheme}://api.{host}"
        return f"{self.github_url}/api/v3"

    @cached_property
    def keys_dir(self) -> Path:
        return self.data_dir / "keys"

    @cached_property
    def base_url(self) -> str:
        """Return the public URL, without a trailing slash."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @cached_property
    def host_names(self) -> tuple[str, ...]:
        """Return the names that requests may be for, besides `localhost` and plain addresses."""
        public = urlsplit(self.base_url).hostname
        return (*self.allowed_hosts, self.host, *([public] if public else []))

    @cached_property
    def https(self) -> bool:
        """Return whether browsers reach the server by https."""
        return self.base_url.startswith("https://")

    @property
    def mail_server(self) -> MailServer | None:
        """Return where mail goes; not kept, since what is cached shows in `repr`."""
        return (
            parse_mail_server(self.smtp_url.get_secret_value().strip()) if self.smtp_url else None
        )

    @property
    def mail_sender(self) -> str:
        return self.mail_from or f"craftastic@{urlsplit(self.base_url).hostname or 'localhost'}"

    @cached_property
    def sqlalchemy_url(self) -> str:
        """Return the database's URL with the async driver that the project uses."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{self.data_dir / 'craftastic.db'}"
        url = self.database_url.get_secret_value()
        for plain, driver in (
            ("postgresql://", "postgresql+asyncpg://"),
            ("postgres://", "postgresql+asyncpg://"),
            ("sqlite://", "sqlite+aiosqlite://"),
        ):
            if url.startswith(plain):
                return driver + url.removeprefix(plain)
        return url


def load_settings() -> Settings:
    """Read the settings from the environment and `.env`.

    Raises:
        pydantic.ValidationError: See `Settings`.
    """
    return Settings.model_validate({})

"""The repositories that a user's GitHub account can reach, page by page."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import anyio

from craftastic.github._api_answers import (
    Repository,
    matching,
    ordered,
    read_installations,
    read_repositories,
)
from craftastic.github._client import GitHubAuthenticationRequired, GitHubUnavailable
from craftastic.github._repository import Account
from craftastic.github._tokens import Tokens

AFFILIATION = "owner,collaborator,organization_member"
LARGEST_PAGE = 100
MAX_PAGES = 20
MAX_INSTALLATIONS = 50
LIST_TIMEOUT_S = 30.0
MAX_CACHED = 200
MAX_CACHED_OF_ONE = 25


@dataclass(frozen=True, slots=True)
class RepositoryPage:
    """One page of a user's repositories.

    Args:
        next_page: Number of the page after it; None at the end.
        install_url: Where a GitHub App gets to see more repositories.
        sso_url: Where a person opens what an organization's single sign-on hides.
    """

    repositories: Sequence[Repository]
    page: int
    per_page: int
    next_page: int | None
    install_url: str | None
    sso_url: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list is asked for."""

    page: int
    per_page: int
    sort: str
    query: str | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A page of GitHub's, read."""

    items: Sequence[Any]
    etag: str | None
    next_url: str | None
    sso_url: str | None


@dataclass(slots=True)
class _Walk:
    """Pages of GitHub's that are read with one token for one answer, within one bound."""

    lists: "Lists"
    account: Account
    token: str = field(repr=False)
    pages_left: int = MAX_PAGES
    sso_url: str | None = None
    slug: str | None = None

    async def repositories(self, url: str) -> tuple[list[Repository], str | None]:
        """Read one page of repositories; return also where the list goes on."""
        part = await self._part(url, read_repositories)
        return list(part.items), part.next_url

    async def all_repositories(self, url: str | None) -> list[Repository]:
        found: list[Repository] = []
        while url is not None and self.pages_left > 0:
            more, url = await self.repositories(url)
            found += more
        return found

    async def installations(self, url: str | None) -> list[int]:
        """Read the installations of the app that the user can use."""
        found: list[int] = []
        while url is not None and self.pages_left > 0 and len(found) < MAX_INSTALLATIONS:
            part = await self._part(url, read_installations)
            found += [number for number, _ in part.items]
            self.slug = next((slug for _, slug in part.items if slug), self.slug)
            url = part.next_url
        return found[:MAX_INSTALLATIONS]

    async def _part(self, url: str, read: Any) -> _Part:
        self.pages_left -= 1
        part = await self.lists.part(self.account, self.token, url, read)
        self.sso_url = part.sso_url or self.sso_url
        return part


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of repositories; what GitHub says has not changed is not sent again."""

    tokens: Tokens
    _cache: OrderedDict[tuple[UUID, int, str], _Part] = field(
        init=False, repr=False, default_factory=OrderedDict[tuple[UUID, int, str], _Part]
    )

    async def page(self, owner: UUID, wanted: Wanted) -> RepositoryPage:
        """Return one page of the user's repositories.

        Raises:
            GitHubAuthenticationRequired: No account, or GitHub takes none of its tokens.
            GitHubRateLimited, GitHubRefused, GitHubUnavailable: As named.
        """
        account = await self.tokens.find(owner)
        if account is None:
            raise GitHubAuthenticationRequired("Connect a GitHub account first.")

        async def question(token: str) -> RepositoryPage:
            walk = _Walk(self, account, token)
            if account.kind == "app":
                return await self._of_app(walk, wanted)
            if wanted.query:
                return await self._searched(walk, wanted)
            return await self._of_oauth(walk, wanted)

        try:
            with anyio.fail_after(LIST_TIMEOUT_S):
                return (await self.tokens.ask(owner, question))[1]
        except TimeoutError as error:
            raise GitHubUnavailable("GitHub takes too long to answer; try again.") from error

    def install_url(self, account: Account, slug: str | None = None) -> str | None:
        """Return where the owner of a GitHub App's connection lets it see repositories."""
        if account.kind != "app":
            return None
        settings = self.tokens.client.settings
        web, slug = settings.github_url, settings.github_app_slug or slug
        if slug is None:
            return f"{web}/settings/installations"
        apps = "apps" if settings.github_api.startswith("https://api.") else "github-apps"
        return f"{web}/{apps}/{quote(slug, safe='')}/installations/new"

    def forget(self, owner: UUID) -> None:
        """Drop what is remembered of a user's lists."""
        for key in [key for key in self._cache if key[0] == owner]:
            self._cache.pop(key, None)

    async def part(self, account: Account, token: str, url: str, read: Any) -> _Part:
        """Return one page of GitHub's, from memory when GitHub says that it is still the same."""
        key = None if account.github_id is None else (account.user_id, account.github_id, url)
        known = None if key is None else self._cache.get(key)
        page = await self.tokens.client.page(token, url, known.etag if known else None)
        if page.body is None and known is not None:
            return known
        part = _Part(read(page.body), page.etag, page.next_url, page.sso_url)
        if key is not None and part.etag is not None:
            self._remember(key, part)
        return part

    def _remember(self, key: tuple[UUID, int, str], part: _Part) -> None:
        self._cache[key] = part
        self._cache.move_to_end(key)
        of_one = [other for other in self._cache if other[0] == key[0]]
        for other in islice(of_one, max(0, len(of_one) - MAX_CACHED_OF_ONE)):
            del self._cache[other]
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    async def _of_oauth(self, walk: _Walk, wanted: Wanted) -> RepositoryPage:
        found, more = await walk.repositories(
            self._user_repos(page=wanted.page, per_page=wanted.per_page, sort=wanted.sort)
        )
        following = wanted.page + 1 if more is not None else None
        return RepositoryPage(found, wanted.page, wanted.per_page, following, None, walk.sso_url)

    async def _searched(self, walk: _Walk, wanted: Wanted) -> RepositoryPage:
        url = self._user_repos(page=1, per_page=LARGEST_PAGE, sort=wanted.sort)
        return self._cut(walk, await walk.all_repositories(url), wanted)

    async def _of_app(self, walk: _Walk, wanted: Wanted) -> RepositoryPage:
        installations = f"{self._api}/user/installations"
        found: list[Repository] = []
        for number in await walk.installations(f"{installations}?per_page={LARGEST_PAGE}"):
            url = f"{installations}/{number}/repositories?per_page={LARGEST_PAGE}"
            found += await walk.all_repositories(url)
        return self._cut(walk, found, wanted)

    def _cut(self, walk: _Walk, found: list[Repository], wanted: Wanted) -> RepositoryPage:
        chosen = ordered(matching(found, wanted.query), wanted.sort)
        start = (wanted.page - 1) * wanted.per_page
        end = start + wanted.per_page
        return RepositoryPage(
            repositories=chosen[start:end],
            page=wanted.page,
            per_page=wanted.per_page,
            next_page=wanted.page + 1 if end < len(chosen) else None,
            install_url=self.install_url(walk.account, walk.slug),
            sso_url=walk.sso_url,
        )

    def _user_repos(self, **query: object) -> str:
        return f"{self._api}/user/repos?{urlencode({'affiliation': AFFILIATION, **query})}"

    @property
    def _api(self) -> str:
        return self.tokens.client.settings.github_api

"""What can go wrong between this server and a Coolify, told so that there is a way on.

No text here ever holds a token. What Coolify itself said is in `said` where it is of use: cleaned
of control characters, short, and never to be trusted.
"""

from collections.abc import Sequence

from craftastic.errors import Conflict, InvalidInput, NotFound, RateLimited, Unavailable

TICK_IN_THIS_ORDER = (
    "In Coolify, under Keys & Tokens, make a token: tick deploy first, then read and "
    "read:sensitive, since ticking deploy (or root) takes the ticks of the others away."
)
ANOTHER_ONE = (
    "It may have expired or been deleted, or its team is gone. Make a new one in Coolify under "
    "Keys & Tokens, and give all of it: the number, the bar and what follows it."
)


class CoolifyUnavailable(Unavailable):
    """Coolify did not answer, or not with anything that could be read."""

    code = "COOLIFY_UNAVAILABLE"


class CoolifyBusy(RateLimited):
    """Coolify wants to be asked later; nothing is wrong with the request.

    Args:
        retry_after_s: Seconds until it is worth another try, within an hour.
        queue_full: Whether it is the queue of deployments that is full.
    """

    code = "COOLIFY_BUSY"

    def __init__(self, *, retry_after_s: float, queue_full: bool) -> None:
        self.queue_full = queue_full
        super().__init__(
            "Coolify's queue of deployments is full."
            if queue_full
            else "Coolify asks for fewer requests.",
            retry_after_s=retry_after_s,
            details=f"It takes more in about {retry_after_s:.0f} seconds.",
        )


class CoolifyTokenRejected(InvalidInput):
    """Coolify does not know the token any more, or never did."""

    code = "COOLIFY_TOKEN_REJECTED"

    def __init__(self) -> None:
        super().__init__("Coolify does not take this token.", details=ANOTHER_ONE)


class CoolifyApiOff(Conflict):
    """The API of this Coolify is turned off."""

    code = "COOLIFY_API_DISABLED"

    def __init__(self) -> None:
        super().__init__(
            "The API of this Coolify is turned off.",
            details="Its administrator turns it on under Settings, Configuration, Advanced.",
        )


class CoolifyAddressRefused(Conflict):
    """The address of this server is not among those that may use Coolify's API."""

    code = "COOLIFY_ADDRESS_REFUSED"

    def __init__(self) -> None:
        super().__init__(
            "Coolify does not let this server's address use its API.",
            details="Its administrator adds the address under Settings, Configuration, Advanced, "
            "at the IPs that may use the API.",
        )


class CoolifyAbilityMissing(Conflict):
    """The token may not do this.

    Args:
        abilities: What it lacks; empty where it is the role of the token's user that lacks it.
    """

    code = "COOLIFY_ABILITY_MISSING"

    def __init__(self, abilities: Sequence[str] = ()) -> None:
        self.abilities = tuple(abilities)
        if self.abilities:
            super().__init__(
                f"The token for Coolify may not do this: it lacks {' and '.join(self.abilities)}.",
                details=TICK_IN_THIS_ORDER,
            )
        else:
            super().__init__(
                "Coolify does not allow this to the user whose token it is.",
                details="A plain member of a team may only read: use the token of an admin or an "
                f"owner. {TICK_IN_THIS_ORDER}",
            )


class CoolifyNotFound(NotFound):
    """Coolify has no such thing, or not for the token's team.

    Args:
        said: Coolify's own words.
    """

    code = "COOLIFY_NOT_FOUND"

    def __init__(self, said: str = "") -> None:
        self.said = said
        super().__init__(
            "Coolify has no such application or deployment for the token's team.",
            details=f"Coolify said: {said}" if said else None,
        )


class CoolifyRefused(Conflict):
    """Coolify refused for a reason of its own.

    Args:
        said: Its own words.
        status: The HTTP status of its answer.
    """

    code = "COOLIFY_REFUSED"

    def __init__(self, said: str, *, status: int, details: str | None = None) -> None:
        self.said = said
        self.status = status
        super().__init__(
            f"Coolify refused: {said or f'it answered {status}'}", details=details, status=status
        )


class BadApplicationId(InvalidInput):
    """The text can be no id of an application or a deployment at Coolify."""

    code = "BAD_APPLICATION_ID"


class BadCommit(InvalidInput):
    """The text is no commit's hash."""

    code = "BAD_COMMIT"


class BadCoolifyUrl(InvalidInput):
    """The address is none at which a Coolify may be asked."""

    code = "COOLIFY_URL_INVALID"

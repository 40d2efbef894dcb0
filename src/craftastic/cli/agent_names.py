"""The agents of whoever is signed in, and which of them a text means."""

from typing import Any

PATH = "/api/agents"


async def own_agents(remote: Any) -> list[dict[str, Any]]:
    """Return the agents of whoever is signed in, as the API lists them."""
    from craftastic.cli.remote import segment

    me = (await remote.get("/api/auth/me"))["data"]["user"]
    return (await remote.get(f"{PATH}/user/{segment(me['id'])}"))["agents"]


def meant_agent(known: list[dict[str, Any]], text: str) -> dict[str, Any]:
    """Return the agent that a text means.

    Raises:
        NotFound: There is none.
        InvalidInput: Several fit.
    """
    from craftastic.cli.names import meant

    absent = f"There is no agent {text}; `craftastic agent ls` lists them."
    return meant(known, text, lambda one: one["name"] == text, absent)

"""HTTP face of repairs of environments: /api/environments/{id}/repair."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from craftastic.accounts.current_user import CurrentUser
from craftastic.environments.repairs import RepairService
from craftastic.http.wire import Wire

router = APIRouter()


async def repair_service(request: Request) -> RepairService:
    return RepairService(request.state.environments)


class RepairAnswer(Wire):
    """What a repair did; nothing where nothing was wrong.

    `kept` are folders inside of the sandbox: damaged repositories that were set aside. With
    `pending` it goes on, and the same request waits for it.
    """

    done: Sequence[str]
    kept: Sequence[str]
    pending: bool


@router.post("/{environment_id}/repair")
async def repair_environment(
    environment_id: UUID,
    caller: CurrentUser,
    repairs: Annotated[RepairService, Depends(repair_service)],
) -> RepairAnswer:
    """Look the repository through; a damaged one is cloned anew, and kept beside it."""
    repair = await repairs.repair(caller.user_id, environment_id)
    return RepairAnswer(
        done=repair.repaired.done, kept=repair.repaired.kept, pending=repair.pending
    )

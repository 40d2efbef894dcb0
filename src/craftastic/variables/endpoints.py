"""HTTP face of variables: /api/variables and /api/environments/:environmentId/variables."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import Field, PlainSerializer, SecretStr

from craftastic.accounts.current_user import CurrentUser
from craftastic.http.wire import Wire, timestamp
from craftastic.variables.service import Variable, VariableService

router = APIRouter(prefix="/api", tags=["variables"])

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
Absent = Field(None, exclude_if=lambda value: value is None)
"""For fields that are left out where there is nothing."""


async def variable_service(request: Request) -> VariableService:
    service: VariableService = request.state.variables
    return service


Variables = Annotated[VariableService, Depends(variable_service)]


class VariableChange(Wire):
    """What a variable is to be; without a value it keeps the one it has."""

    value: SecretStr | None = None
    is_secret: bool = True

    @property
    def text(self) -> str | None:
        return None if self.value is None else self.value.get_secret_value()


class VariableView(Wire):
    """A variable; a secret's value is never in an answer."""

    name: str
    is_secret: bool
    value: str | None = Absent
    created_at: Timestamp
    updated_at: Timestamp


class InheritedView(Wire):
    """A variable of all environments; `overridden` where this one has its own of that name."""

    name: str
    is_secret: bool
    overridden: bool


class VariableList(Wire):
    variables: Sequence[VariableView]


class EnvironmentVariableList(VariableList):
    inherited: Sequence[InheritedView]


class DeletedAnswer(Wire):
    success: Literal[True] = True


def _view(variable: Variable) -> VariableView:
    return VariableView.model_validate(variable)


@router.get("/variables")
async def list_variables(caller: CurrentUser, variables: Variables) -> VariableList:
    """List the variables of all of the caller's environments."""
    found = await variables.list(caller.user_id)
    return VariableList(variables=[_view(one) for one in found])


@router.put("/variables/{name}")
async def set_variable(
    name: str, body: VariableChange, caller: CurrentUser, variables: Variables
) -> VariableView:
    """Set a variable of all of the caller's environments, for shells started afterwards."""
    return _view(await variables.put(caller.user_id, name, body.text, is_secret=body.is_secret))


@router.delete("/variables/{name}")
async def delete_variable(name: str, caller: CurrentUser, variables: Variables) -> DeletedAnswer:
    """Delete a variable of all of the caller's environments."""
    await variables.delete(caller.user_id, name)
    return DeletedAnswer()


@router.get("/environments/{environment_id}/variables")
async def list_environment_variables(
    environment_id: UUID, caller: CurrentUser, variables: Variables
) -> EnvironmentVariableList:
    """List an environment's own variables, and the names that it inherits."""
    found = await variables.list(caller.user_id, environment_id)
    inherited = await variables.inherited(caller.user_id, environment_id)
    return EnvironmentVariableList(
        variables=[_view(one) for one in found],
        inherited=[InheritedView.model_validate(one) for one in inherited],
    )


@router.put("/environments/{environment_id}/variables/{name}")
async def set_environment_variable(
    environment_id: UUID,
    name: str,
    body: VariableChange,
    caller: CurrentUser,
    variables: Variables,
) -> VariableView:
    """Set a variable of one environment, for shells started afterwards."""
    changed = await variables.put(
        caller.user_id,
        name,
        body.text,
        is_secret=body.is_secret,
        environment_id=environment_id,
    )
    return _view(changed)


@router.delete("/environments/{environment_id}/variables/{name}")
async def delete_environment_variable(
    environment_id: UUID, name: str, caller: CurrentUser, variables: Variables
) -> DeletedAnswer:
    """Delete a variable of one environment; one of all environments then shows again."""
    await variables.delete(caller.user_id, name, environment_id=environment_id)
    return DeletedAnswer()

"""Imports every repository so `Base.metadata` is complete; the migrations read it from here."""

from craftastic.access_tokens import _repository as access_tokens
from craftastic.accounts import _repository as accounts
from craftastic.agent_runs import _repository as agent_runs
from craftastic.agents import _repository as agents
from craftastic.audit import _repository as audit
from craftastic.coolify import _repository as coolify
from craftastic.credentials import _repository as credentials
from craftastic.database import Base
from craftastic.deployments import _repository as deployments
from craftastic.disk import _repository as disk
from craftastic.environments import _repository as environments
from craftastic.events import _repository as events
from craftastic.githosts import _repository as githosts
from craftastic.github import _repository as github
from craftastic.idempotency import _repository as idempotency
from craftastic.pushes import _repository as pushes
from craftastic.sessions import _repository as sessions
from craftastic.terminals import _repository as terminals
from craftastic.variables import _repository as variables

TABLES = (
    accounts,
    access_tokens,
    events,
    audit,
    credentials,
    agents,
    github,
    githosts,
    coolify,
    environments,
    variables,
    agents,
    sessions,
    agent_runs,
    pushes,
    deployments,
    disk,
    terminals,
    idempotency,
)
METADATA = Base.metadata

"""Imports every repository so `Base.metadata` is complete; the migrations read it from here."""

from craftastic.accounts import _repository as accounts
from craftastic.database import Base
from craftastic.environments import _repository as environments
from craftastic.sessions import _repository as sessions
from craftastic.terminals import _repository as terminals

TABLES = (accounts, environments, sessions, terminals)
METADATA = Base.metadata

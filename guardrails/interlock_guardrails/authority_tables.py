"""The tables of the authority path: what people said at a console beside their votes."""

import logging
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import Column, Float, Index, String, Table, Text

from interlock_guardrails.metadata import metadata

M = TypeVar("M", bound=BaseModel)
log = logging.getLogger(__name__)

# What a row grants is believed only where its document carries the note of a voting console; the
# other columns find it.
delegations = Table(
    "delegations",
    metadata,
    Column("delegation_id", String(40), primary_key=True),
    Column("delegate", String(200), nullable=False),
    Column("role", String(80), nullable=False),
    Column("expires_unix_s", Float, nullable=False),
    Column("document", Text, nullable=False),
    Index("delegations_by_delegate", "delegate", "role"),
)

reviews = Table(
    "break_glass_reviews",
    metadata,
    Column("change_id", String(40), primary_key=True),
    Column("due_unix_s", Float, nullable=False),
    Column("document", Text, nullable=False),
)

autonomy_grants = Table(
    "autonomy_grants",
    metadata,
    Column("grant_id", String(40), primary_key=True),
    Column("scope", String(80), nullable=False),
    Column("site", String(200), nullable=False),
    Column("expires_unix_s", Float, nullable=False),
    Column("document", Text, nullable=False),
    Index("autonomy_grants_by_scope", "scope", "site"),
)

# `listed` is the list itself, believed only where its digest is the one that the document says.
federation_approvals = Table(
    "federation_approvals",
    metadata,
    Column("approval_id", String(40), primary_key=True),
    Column("server", String(40), nullable=False),
    Column("site", String(200), nullable=False),
    Column("document", Text, nullable=False),
    Column("listed", Text, nullable=False),
    Index("federation_approvals_by_server", "server", "site"),
)


def readable(model: type[M], documents: Iterable[str]) -> list[M]:
    """What these documents hold; one that cannot be read grants nothing and hides no other."""
    found: list[M] = []
    for document in documents:
        try:
            found.append(model.model_validate_json(document))
        except ValidationError:
            log.error("a row of the authority path cannot be read", extra={"model": model.__name__})
    return found

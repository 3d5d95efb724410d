"""Delegations: a person lends a role to another until a moment; the two are one pair of eyes."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, select

from interlock_guardrails import statements
from interlock_guardrails.authority_tables import delegations, readable
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import VerifyKey
from interlock_guardrails.people import check_person, check_words
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_tools.change import CLOCK_STEP
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal

STATEMENT = "delegation"
NEVER_DELEGATED = frozenset({"break_glass"})  # whoever holds it acts alone, in person
OVERSEER = "site_lead"
ID_MAX_CHARS = 200


class Delegation(BaseModel):
    """A role of one person, used by another until it expires or is revoked.

    `signature` is the note of the console at which it was given, over all but its revocation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    delegation_id: str
    delegator: str
    delegate: str
    role: str
    why: str
    begins_at: datetime
    expires_at: datetime
    channel: str
    signature: str = ""
    revoked_by: str | None = None
    revoked_at: datetime | None = None

    def stands_at(self, now: datetime) -> bool:
        """Whether it can be used; not before it was given either, whatever the clock does."""
        return self.revoked_at is None and self.begins_at - CLOCK_STEP <= now < self.expires_at

    def said(self) -> dict[str, Any]:
        """What its signature says."""
        return {
            **self.model_dump(
                mode="json",
                exclude={"signature", "revoked_by", "revoked_at", "begins_at", "expires_at"},
            ),
            "begins_at": statements.moment(self.begins_at),
            "expires_at": statements.moment(self.expires_at),
        }


class Delegations:
    """Where people lend a role and take it back."""

    def __init__(
        self, store: Store, ledger: Ledger, clock: Clock, signer: Signer, rules: SiteRules
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._signer = signer
        self._rules = rules

    async def delegate(
        self, delegator: Principal, to: str, role: str, *, valid_s: float, why: str
    ) -> Delegation:
        """Let the person `to` act in a role of the delegator for `valid_s` seconds from now.

        Raises:
            InvalidRequestError: it is not the delegator's own role, cannot be delegated, goes to
                themselves, has no reason, or is for no time or too long.
        """
        check_person(delegator, "delegate")
        check_words("why", why)
        if role in NEVER_DELEGATED:
            raise InvalidRequestError(f"the role {role!r} is not delegated; it is used in person")
        if role not in delegator.roles:  # roles come from settings: a lent one is never among them
            raise InvalidRequestError(f"{delegator.id} has no role {role!r} of their own to lend")
        if not to.strip() or len(to) > ID_MAX_CHARS or to == delegator.id:
            raise InvalidRequestError("to: name another person, such as person:operator-2")
        if not 0 < valid_s <= self._rules.delegation_max_s:
            longest = self._rules.delegation_max_s
            raise InvalidRequestError(f"valid_s: up to {longest:g} s, never without an end")
        now = self._clock.now()
        unsigned = Delegation(
            delegation_id=f"dlg-{uuid.uuid4().hex[:12]}",
            delegator=delegator.id,
            delegate=to,
            role=role,
            why=why,
            begins_at=now,
            expires_at=now + timedelta(seconds=valid_s),
            channel=delegator.authenticated_by,
        )
        signature = statements.sign(self._signer, STATEMENT, unsigned.said())
        delegation = unsigned.model_copy(update={"signature": signature})

        def write(connection: Connection) -> Delegation:
            connection.execute(
                delegations.insert().values(
                    delegation_id=delegation.delegation_id,
                    delegate=to,
                    role=role,
                    expires_unix_s=delegation.expires_at.timestamp(),
                    document=delegation.model_dump_json(),
                )
            )
            body = {"what": "delegation", "by": delegator.id, **delegation.model_dump(mode="json")}
            self._ledger.append(connection, RecordKind.CONFIG_CHANGED, body)
            return delegation

        return await self._store.write(write)

    async def revoke(self, by: Principal, delegation_id: str, *, why: str) -> Delegation:
        """End a delegation now. Votes that were cast under it stand; the change can be withdrawn.

        Raises:
            InvalidRequestError: only its two people and a site lead can.
            ConflictError: it was revoked before.
            NotFoundError: there is no such delegation.
        """
        check_person(by, "revoke")
        check_words("why", why)
        now = self._clock.now()

        def write(connection: Connection) -> Delegation:
            found = _get(connection, delegation_id)
            if by.id not in {found.delegator, found.delegate} and OVERSEER not in by.roles:
                raise InvalidRequestError(f"only its two people or a {OVERSEER} can revoke it")
            if found.revoked_at is not None:
                raise ConflictError(f"{delegation_id} was revoked by {found.revoked_by}")
            revoked = found.model_copy(update={"revoked_by": by.id, "revoked_at": now})
            connection.execute(
                delegations.update()
                .where(delegations.c.delegation_id == delegation_id)
                .values(document=revoked.model_dump_json())
            )
            body = {"what": "delegation_revoked", "by": by.id, "why": why}
            body |= {"delegation_id": delegation_id}
            self._ledger.append(connection, RecordKind.CONFIG_CHANGED, body)
            return revoked

        return await self._store.write(write)

    async def standing(self) -> list[Delegation]:
        """Every delegation that can be used now, the one that ends first in front."""
        now = self._clock.now()

        def look(connection: Connection) -> list[Delegation]:
            query = (
                select(delegations.c.document)
                .where(delegations.c.expires_unix_s > now.timestamp())
                .order_by(delegations.c.expires_unix_s)
            )
            found = readable(Delegation, connection.scalars(query))
            return [delegation for delegation in found if delegation.stands_at(now)]

        return await self._store.read(look)


def lent_to(
    connection: Connection, delegate: str, role: str, now: datetime, keys: Sequence[VerifyKey]
) -> list[Delegation]:
    """The delegations under which this person has the role now; a forged row is none."""
    query = (
        select(delegations.c.document)
        .where(delegations.c.delegate == delegate, delegations.c.role == role)
        .order_by(delegations.c.expires_unix_s)
    )
    return [
        delegation
        for delegation in readable(Delegation, connection.scalars(query))
        if (delegation.delegate, delegation.role) == (delegate, role)
        and delegation.stands_at(now)
        and statements.says(delegation.signature, keys, STATEMENT, delegation.said())
    ]


def _get(connection: Connection, delegation_id: str) -> Delegation:
    query = select(delegations.c.document).where(delegations.c.delegation_id == delegation_id)
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise NotFoundError(f"no delegation {delegation_id!r}")
    return Delegation.model_validate_json(row.document)

"""Autonomy: what agents may do without a vote, as data that expires and that failure takes away.

A site lead grants it for one operation, or for one effect, from changes that succeeded. The policy
still decides which of those changes are small enough; a grant opens nothing by itself.
"""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, bindparam, or_, select

from interlock_guardrails import changes, statements
from interlock_guardrails.authority_tables import autonomy_grants, readable
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import VerifyKey, parse_key
from interlock_guardrails.people import check_person, check_words
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_tools.change import CLOCK_STEP, Change, ChangeState
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal
from interlock_tools.operation import Effect

ROLE = "site_lead"
STATEMENT = "autonomy"
GRANTABLE = frozenset({Effect.REVERSIBLE, Effect.DISRUPTIVE})
WENT_WRONG = frozenset({ChangeState.FAILED, ChangeState.STUCK})
# The states in which a change that went wrong can be: one that failed may be brought back since.
AFTER_TROUBLE = (*WENT_WRONG, ChangeState.COMPENSATING, ChangeState.COMPENSATED)
EVIDENCE_LISTED = 1000
KNOWN_GRANTS = 256

_GRANTS_OF = select(autonomy_grants.c.document).where(
    or_(
        autonomy_grants.c.scope == bindparam("of_operation"),
        autonomy_grants.c.scope == bindparam("of_effect"),
    ),
    autonomy_grants.c.site == bindparam("at_site"),
)

_TROUBLE = select(changes.changes.c.change_id, changes.changes.c.document).where(
    changes.changes.c.state.in_([state.value for state in AFTER_TROUBLE])
)
_TROUBLE_OF = _TROUBLE.where(changes.changes.c.operation == bindparam("of_operation"))


class AutonomyGrant(BaseModel):
    """Agents may act unattended in this scope, at this site, until it expires.

    `scope` is the name of an operation, or an effect; `evidence` the ids of the changes that it
    rests on, the first of them proposed at `since`: a change of the scope that goes wrong after
    that moment ends it. `signature` is the note of the console, over all but the revocation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    grant_id: str
    scope: str
    site: str
    granted_by: str
    why: str
    evidence: tuple[str, ...]
    since: datetime
    granted_at: datetime
    expires_at: datetime
    channel: str
    signature: str = ""
    revoked_by: str | None = None
    revoked_at: datetime | None = None

    def stands_at(self, now: datetime) -> bool:
        """Whether it is in force; not before it was given either, whatever the clock does."""
        return self.revoked_at is None and self.granted_at - CLOCK_STEP <= now < self.expires_at

    def said(self) -> dict[str, Any]:
        """What its signature says."""
        moments = {"since", "granted_at", "expires_at"}
        left_out = {"signature", "revoked_by", "revoked_at"} | moments
        return {
            **self.model_dump(mode="json", exclude=left_out),
            **{name: statements.moment(getattr(self, name)) for name in moments},
        }


class Autonomy:
    """Where a site lead lets agents act unattended, and takes that back."""

    def __init__(
        self, store: Store, ledger: Ledger, clock: Clock, signer: Signer, rules: SiteRules
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._signer = signer
        self._rules = rules

    async def grant(
        self, by: Principal, scope: str, *, evidence: Iterable[str], valid_s: float, why: str
    ) -> AutonomyGrant:
        """Let agents act unattended in `scope` at this site for `valid_s` seconds from now.

        Raises:
            InvalidRequestError: not a site lead at a console, no such scope, too little or wrong
                evidence, for no time or too long, or without a reason.
            ConflictError: a change of the scope went wrong since the first of the evidence.
            NotFoundError: a change of the evidence does not exist.
        """
        check_person(by, "grant autonomy")
        check_words("why", why)
        if ROLE not in by.roles:
            raise InvalidRequestError(f"{by.id} has not the role {ROLE!r}")
        _check_scope(scope)
        if not 0 < valid_s <= self._rules.autonomy_max_s:
            longest = self._rules.autonomy_max_s
            raise InvalidRequestError(f"valid_s: up to {longest:g} s, never without an end")
        ids = tuple(dict.fromkeys(evidence))
        needed = self._rules.autonomy_evidence_changes
        if len(ids) < needed:
            raise InvalidRequestError(f"evidence: {needed} different changes, not {len(ids)}")
        now = self._clock.now()

        def write(connection: Connection) -> AutonomyGrant:
            since = _checked(connection, scope, ids)
            unsigned = AutonomyGrant(
                grant_id=f"aut-{uuid.uuid4().hex[:12]}",
                scope=scope,
                site=self._rules.site_id,
                granted_by=by.id,
                why=why,
                evidence=ids,
                since=since,
                granted_at=now,
                expires_at=now + timedelta(seconds=valid_s),
                channel=by.authenticated_by,
            )
            signature = statements.sign(self._signer, STATEMENT, unsigned.said())
            granted_now = unsigned.model_copy(update={"signature": signature})
            connection.execute(
                autonomy_grants.insert().values(
                    grant_id=granted_now.grant_id,
                    scope=scope,
                    site=granted_now.site,
                    expires_unix_s=granted_now.expires_at.timestamp(),
                    document=granted_now.model_dump_json(),
                )
            )
            body = {"what": "autonomy", "by": by.id, **granted_now.model_dump(mode="json")}
            self._ledger.append(connection, RecordKind.CONFIG_CHANGED, body)
            return granted_now

        return await self._store.write(write)

    async def revoke(self, by: Principal, grant_id: str, *, why: str) -> AutonomyGrant:
        """End a grant now. Any person at a console may: it makes agents ask people again.

        Raises:
            InvalidRequestError: not a person at a console, or without a reason.
            ConflictError: it was revoked before.
            NotFoundError: there is no such grant.
        """
        check_person(by, "revoke")
        check_words("why", why)
        now = self._clock.now()

        def write(connection: Connection) -> AutonomyGrant:
            found = _get(connection, grant_id)
            if found.revoked_at is not None:
                raise ConflictError(f"{grant_id} was revoked by {found.revoked_by}")
            revoked = found.model_copy(update={"revoked_by": by.id, "revoked_at": now})
            connection.execute(
                autonomy_grants.update()
                .where(autonomy_grants.c.grant_id == grant_id)
                .values(document=revoked.model_dump_json())
            )
            body = {"what": "autonomy_revoked", "by": by.id, "why": why, "grant_id": grant_id}
            self._ledger.append(connection, RecordKind.CONFIG_CHANGED, body)
            return revoked

        return await self._store.write(write)

    async def standing(self) -> list[AutonomyGrant]:
        """The grants that have neither expired nor been revoked, the one that ends first in front.

        One that a failure has ended since is among them; `trouble` names that failure.
        """
        now = self._clock.now()

        def look(connection: Connection) -> list[AutonomyGrant]:
            query = (
                select(autonomy_grants.c.document)
                .where(autonomy_grants.c.expires_unix_s > now.timestamp())
                .order_by(autonomy_grants.c.expires_unix_s)
            )
            found = readable(AutonomyGrant, connection.scalars(query))
            return [each for each in found if each.stands_at(now)]

        return await self._store.read(look)

    async def trouble(self, grant: AutonomyGrant) -> str | None:
        """The id of a change that ended this grant by going wrong; None where there is none."""
        return await self._store.read(
            lambda connection: trouble_since(connection, grant.scope, grant.since)
        )

    async def evidence(self, scope: str) -> list[str]:
        """What a grant could rest on: changes that succeeded since the last trouble, newest first.

        Raises:
            InvalidRequestError: no such scope.
        """
        _check_scope(scope)

        def look(connection: Connection) -> list[str]:
            found: list[str] = []
            states = (ChangeState.SUCCEEDED,)
            for change in changes.latest(connection, limit=EVIDENCE_LISTED, states=states):
                if not _covers(scope, change):
                    continue
                if trouble_since(connection, scope, change.created_at) is not None:
                    break
                found.append(change.change_id)
            return found

        return await self._store.read(look)


def granted(
    connection: Connection,
    operation: str,
    effect: Effect,
    *,
    site: str,
    now: datetime,
    keys: Sequence[VerifyKey],
) -> bool:
    """Whether agents may do this unattended here and now; a forged row grants nothing."""
    asked = {"of_operation": operation, "of_effect": effect.value, "at_site": site}
    vkeys = tuple(key.text for key in keys)
    found = (_genuine(document, vkeys) for document in connection.scalars(_GRANTS_OF, asked))
    return any(
        grant.scope in {operation, effect.value}
        and grant.site == site
        and grant.stands_at(now)
        and trouble_since(connection, grant.scope, grant.since) is None
        for grant in found
        if grant is not None
    )


@lru_cache(KNOWN_GRANTS)
def _genuine(document: str, vkeys: tuple[str, ...]) -> AutonomyGrant | None:
    """The grant in this row, if one of the keys signed it; it is asked for with every change."""
    keys = [parse_key(vkey) for vkey in vkeys]
    for grant in readable(AutonomyGrant, [document]):
        if statements.says(grant.signature, keys, STATEMENT, grant.said()):
            return grant
    return None


def trouble_since(connection: Connection, scope: str, since: datetime) -> str | None:
    """The id of a change of this scope that failed or got stuck at `since` or later."""
    found_by = (_TROUBLE_OF, {"of_operation": scope}) if "." in scope else (_TROUBLE, {})
    for row in connection.execute(*found_by):
        found = readable(Change, [row.document])
        if not found:  # nobody knows what went wrong there, and when: that is no good record
            return str(row.change_id)
        (change,) = found
        if _covers(scope, change) and _went_wrong_at(change) >= since:
            return change.change_id
    return None


def _went_wrong_at(change: Change) -> datetime:
    """When it last failed or got stuck; just now, where its history does not say."""
    moments = [step.at for step in change.history if step.state in WENT_WRONG]
    return max(moments, default=datetime.max.replace(tzinfo=UTC))


def _covers(scope: str, change: Change) -> bool:
    return scope in {change.operation, change.effect.value}


def _check_scope(scope: str) -> None:
    if "." in scope:
        return
    if scope not in {effect.value for effect in GRANTABLE}:
        raise InvalidRequestError(
            f"scope: an operation such as maxlps.set_caps, or one of "
            f"{', '.join(sorted(effect.value for effect in GRANTABLE))}; not {scope!r}"
        )


def _checked(connection: Connection, scope: str, ids: Sequence[str]) -> datetime:
    """When the first of this evidence was proposed, once all of it has been looked at."""
    found = [changes.get(connection, change_id) for change_id in ids]
    for change in found:
        if not _covers(scope, change):
            raise InvalidRequestError(f"evidence: {change.change_id} is no change of {scope}")
        if change.effect not in GRANTABLE:
            raise InvalidRequestError(
                f"evidence: {change.operation} is {change.effect}: never alone"
            )
        if change.state is not ChangeState.SUCCEEDED:
            raise InvalidRequestError(f"evidence: {change.change_id} is {change.state}")
    since = min(change.created_at for change in found)
    trouble = trouble_since(connection, scope, since)
    if trouble is not None:
        raise ConflictError(
            f"{trouble} went wrong since then; only what succeeded after it is evidence"
        )
    return since


def _get(connection: Connection, grant_id: str) -> AutonomyGrant:
    query = select(autonomy_grants.c.document).where(autonomy_grants.c.grant_id == grant_id)
    document = connection.scalars(query.with_for_update()).one_or_none()
    if document is None:
        raise NotFoundError(f"no grant {grant_id!r}")
    return AutonomyGrant.model_validate_json(document)

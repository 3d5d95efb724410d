"""Federation: which tool list of another MCP server a site lead has approved.

The approval names the digest of the whole list, so one changed word in it is another list. What is
in a list, and how it is read, is not known here.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, select

from interlock_guardrails import statements
from interlock_guardrails.authority_tables import federation_approvals as rows
from interlock_guardrails.authority_tables import readable
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import VerifyKey, parse_key
from interlock_guardrails.people import check_person, check_words
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_tools.canonical import canonical, digest
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal

ROLE = "site_lead"
STATEMENT = "tool_list"


class ListApproval(BaseModel):
    """A person has read this tool list of this server, and it may be offered here.

    `number` counts the approvals of a server: of several the last one holds, whatever the clock
    did in between. `signature` is the note of the console, over all but the revocation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    approval_id: str
    number: int
    server: str
    site: str
    digest: str
    approved_by: str
    why: str
    approved_at: datetime
    channel: str
    signature: str = ""
    revoked_by: str | None = None
    revoked_at: datetime | None = None

    def said(self) -> dict[str, Any]:
        """What its signature says."""
        left_out = {"signature", "revoked_by", "revoked_at", "approved_at"}
        return {
            **self.model_dump(mode="json", exclude=left_out),
            "approved_at": statements.moment(self.approved_at),
        }


class ListApprovals:
    """Where a site lead approves the tool list of another server, and takes that back."""

    def __init__(
        self, store: Store, ledger: Ledger, clock: Clock, signer: Signer, rules: SiteRules
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._signer = signer
        self._rules = rules
        self._keys = (parse_key(signer.vkey),)

    async def approve(
        self, by: Principal, server: str, listed: Mapping[str, Any], *, why: str
    ) -> ListApproval:
        """Let exactly this list of `server` be offered here; what was approved before ends.

        Raises:
            InvalidRequestError: not a site lead at a console, without a reason, or the list cannot
                be written as canonical JSON.
        """
        check_person(by, "approve a tool list")
        check_words("why", why)
        if ROLE not in by.roles:
            raise InvalidRequestError(f"{by.id} has not the role {ROLE!r}")
        text = canonical(listed).decode()
        now, list_digest = self._clock.now(), digest(listed)

        def write(connection: Connection) -> ListApproval:
            site = self._rules.site_id
            before = _genuine(connection, server, site=site, keys=self._keys)
            unsigned = ListApproval(
                approval_id=f"fed-{uuid.uuid4().hex[:12]}",
                number=1 + max((one.number for one in before), default=0),
                server=server,
                site=site,
                digest=list_digest,
                approved_by=by.id,
                why=why,
                approved_at=now,
                channel=by.authenticated_by,
            )
            signature = statements.sign(self._signer, STATEMENT, unsigned.said())
            approval = unsigned.model_copy(update={"signature": signature})
            connection.execute(
                rows.insert().values(
                    approval_id=approval.approval_id,
                    server=server,
                    site=approval.site,
                    document=approval.model_dump_json(),
                    listed=text,
                )
            )
            body = {
                "what": "tool_list_approved",
                "by": by.id,
                **approval.model_dump(mode="json"),
            }
            self._ledger.append(connection, RecordKind.CONFIG_CHANGED, body)
            return approval

        return await self._store.write(write)

    async def revoke(self, by: Principal, server: str, *, why: str) -> ListApproval:
        """Offer nothing of this server any more. Any person at a console may.

        What was approved before does not come back with it.

        Raises:
            InvalidRequestError: not a person at a console, or without a reason.
            NotFoundError: no list of this server is approved.
        """
        check_person(by, "revoke")
        check_words("why", why)
        now = self._clock.now()

        def write(connection: Connection) -> ListApproval:
            found = approved(connection, server, site=self._rules.site_id, keys=self._keys)
            if found is None:
                raise NotFoundError(f"no tool list of {server!r} is approved")
            revoked = found.model_copy(update={"revoked_by": by.id, "revoked_at": now})
            connection.execute(
                rows.update()
                .where(rows.c.approval_id == found.approval_id)
                .values(document=revoked.model_dump_json())
            )
            body = {
                "what": "tool_list_revoked",
                "by": by.id,
                "why": why,
                "server": server,
                "approval_id": found.approval_id,
                "digest": found.digest,
            }
            self._ledger.append(connection, RecordKind.CONFIG_CHANGED, body)
            return revoked

        return await self._store.write(write)

    async def standing(self, server: str) -> ListApproval | None:
        """The approval that is in force."""
        return await self._store.read(
            lambda connection: approved(
                connection, server, site=self._rules.site_id, keys=self._keys
            )
        )

    async def listed(self, approval: ListApproval) -> dict[str, Any] | None:
        """The list that was approved; None where the row holds another."""
        return await self._store.read(lambda connection: listed_in(connection, approval))


def approved(
    connection: Connection, server: str, *, site: str, keys: Sequence[VerifyKey]
) -> ListApproval | None:
    """The latest approval of this server at this site, unless it was revoked; forged rows are none.

    An earlier one never comes back when a later one is revoked.
    """
    signed = _genuine(connection, server, site=site, keys=keys)
    latest = max(signed, key=lambda found: found.number, default=None)
    return None if latest is None or latest.revoked_at is not None else latest


def listed_in(connection: Connection, approval: ListApproval) -> dict[str, Any] | None:
    """The list that was approved, if the row still holds exactly that one."""
    query = select(rows.c.listed).where(rows.c.approval_id == approval.approval_id)
    try:
        listed = json.loads(connection.scalars(query).one_or_none() or "")
        known = isinstance(listed, dict) and digest(listed) == approval.digest
    except (ValueError, InvalidRequestError):
        return None
    return listed if known else None


def _genuine(
    connection: Connection, server: str, *, site: str, keys: Sequence[VerifyKey]
) -> list[ListApproval]:
    """The approvals of this server at this site that a console signed, revoked ones too."""
    query = select(rows.c.document).where(rows.c.server == server, rows.c.site == site)
    return [
        found
        for found in readable(ListApproval, connection.scalars(query))
        if (found.server, found.site) == (server, site)
        and statements.says(found.signature, keys, STATEMENT, found.said())
    ]

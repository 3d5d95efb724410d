"""Break-glass: one person authorises a waiting change at once, loudly; two others review it after.

It stands in for the votes that a rule asks for and for nothing else: what a rule forbids is refused
when the change begins, and the stop holds it like any other.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, select

from interlock_guardrails import changes, statements
from interlock_guardrails.authority_tables import readable, reviews
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import VerifyKey
from interlock_guardrails.paging import Pager
from interlock_guardrails.people import behind, check_person, check_words
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_tools.change import Change, ChangeState, GlassBroken
from interlock_tools.clock import Clock
from interlock_tools.decision import Answer
from interlock_tools.errors import ConflictError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal

ROLE = "break_glass"
OVERSEER = "site_lead"
REVIEWERS = 2
STATEMENT, OPINION = "break_glass", "break_glass_review"

log = logging.getLogger(__name__)


class Opinion(BaseModel):
    """What one person found; `signature` is the note of the console where they said it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reviewer: str
    justified: bool
    why: str
    at: datetime
    channel: str
    signature: str


class Review(BaseModel):
    """The question that broken glass leaves: was it right?

    `excluded` are whoever broke it, asked for the change or answers for it; `roles` are those of
    which a reviewer has at least one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    change_id: str
    what: str
    broken_by: str
    reason: str
    broken_at: datetime
    due_at: datetime
    excluded: frozenset[str]
    roles: frozenset[str]
    opinions: tuple[Opinion, ...] = ()

    @property
    def justified(self) -> bool | None:
        """The verdict: yes only if everybody found so; None while somebody has yet to look."""
        if len(self.opinions) < REVIEWERS:
            return None
        return all(opinion.justified for opinion in self.opinions)

    def overdue_at(self, now: datetime) -> bool:
        """Whether it should have been reviewed by now and was not."""
        return self.justified is None and now >= self.due_at


class BreakGlass:
    """Where glass is broken, and where others say whether that was right.

    `pager` is told in one sentence; if it breaks, that is logged and keeps nothing from happening.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        clock: Clock,
        signer: Signer,
        rules: SiteRules,
        pager: Pager | None = None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._signer = signer
        self._rules = rules
        self._pager = pager

    async def authorise(
        self,
        person: Principal,
        change_id: str,
        *,
        reason: str,
        shown_digest: str,
        typed_target: str | None,
    ) -> Change:
        """Authorise a change that waits for votes, alone and at once.

        `shown_digest` is the binding digest that the person was shown, `typed_target` what they
        typed. A review by two others is due from now on.

        Raises:
            InvalidRequestError: not a person of the role break_glass at a console, no reason, or
                another target was typed.
            ConflictError: no votes are asked for, it does not wait, or it is not what was shown.
            NotFoundError: there is no such change.
        """
        check_person(person, "break glass")
        check_words("reason", reason)
        if ROLE not in person.roles:
            raise InvalidRequestError(f"{person.id} has not the role {ROLE!r}")
        now = self._clock.now()

        def smash(connection: Connection) -> tuple[Change, Review]:
            change = changes.get(connection, change_id)
            _check_waits(change, shown_digest, now)
            if typed_target != change.target.id:
                raise InvalidRequestError(f"type the target's name, {change.target.id!r}")
            broken = self._signed(change, person, reason, now)
            review = self._review_of(change, broken)
            moved = changes.move(
                connection,
                change_id,
                ChangeState.AUTHORISED,
                at=now,
                why=f"{person.id} broke the glass: {reason}",
                came_from=ChangeState.AWAITING_APPROVAL,
                glass_broken=broken,
            )
            connection.execute(
                reviews.insert().values(
                    change_id=change_id,
                    due_unix_s=review.due_at.timestamp(),
                    document=review.model_dump_json(),
                )
            )
            body = {"change_id": change_id, **broken.model_dump(mode="json")}
            body |= {"operation": change.operation, "target": str(change.target)}
            body |= {"review_due_at": statements.moment(review.due_at)}
            self._ledger.append(connection, RecordKind.BREAK_GLASS, body)
            return moved, review

        change, review = await self._store.write(smash)
        self._store.announce(change)
        said = f"{person.id} broke the glass for {review.what} ({change_id}): {reason}"
        log.critical("glass was broken", extra={"change_id": change_id, "by": person.id})
        due = review.due_at
        self._page(change, f"{said}. Two others review it until {due:%Y-%m-%d %H:%M} UTC.")
        return change

    async def review(
        self, reviewer: Principal, change_id: str, *, justified: bool, why: str
    ) -> Review:
        """Say whether breaking the glass was right; the second opinion makes the verdict.

        After the deadline too: late is better than never, and the record shows both moments.

        Raises:
            InvalidRequestError: not a person of the roles at a console, one who broke the glass or
                is behind the change, or without a reason.
            ConflictError: they have said so already, or the verdict is there.
            NotFoundError: no glass was broken for this change.
        """
        check_person(reviewer, "review")
        check_words("why", why)
        now = self._clock.now()

        def give(connection: Connection) -> Review:
            review = _get(connection, change_id)
            _check_reviewer(review, reviewer)
            opinion = Opinion(
                reviewer=reviewer.id,
                justified=justified,
                why=why,
                at=now,
                channel=reviewer.authenticated_by,
                signature="",
            )
            said = {**opinion.model_dump(mode="json", exclude={"signature", "at"})}
            said |= {"change_id": change_id, "at": statements.moment(now)}
            signature = statements.sign(self._signer, OPINION, said)
            signed = opinion.model_copy(update={"signature": signature})
            given = review.model_copy(update={"opinions": (*review.opinions, signed)})
            connection.execute(
                reviews.update()
                .where(reviews.c.change_id == change_id)
                .values(document=given.model_dump_json())
            )
            body = {"change_id": change_id, "by": reviewer.id, **signed.model_dump(mode="json")}
            body |= {"verdict": _verdict(given), "late": review.overdue_at(now)}
            self._ledger.append(connection, RecordKind.BREAK_GLASS_REVIEW, body)
            return given

        given = await self._store.write(give)
        if given.justified is False:
            log.critical("broken glass was not justified", extra={"change_id": change_id})
            change = await self._store.read(lambda connection: changes.get(connection, change_id))
            self._page(change, f"{given.broken_by} broke the glass, and that was not justified.")
        return given

    async def reviews(self, *, limit: int = 100) -> list[Review]:
        """The latest reviews, open and done, the one that is due last in front."""

        def look(connection: Connection) -> list[Review]:
            query = select(reviews.c.document).order_by(reviews.c.due_unix_s.desc()).limit(limit)
            return readable(Review, connection.scalars(query))

        return await self._store.read(look)

    async def overdue(self) -> list[Review]:
        """Every review that should have been given by now, the oldest first."""
        now = self._clock.now()

        def look(connection: Connection) -> list[Review]:
            query = (
                select(reviews.c.document)
                .where(reviews.c.due_unix_s <= now.timestamp())
                .order_by(reviews.c.due_unix_s)
            )
            found = readable(Review, connection.scalars(query))
            return [review for review in found if review.overdue_at(now)]

        return await self._store.read(look)

    def _signed(self, change: Change, person: Principal, reason: str, now: datetime) -> GlassBroken:
        broken = GlassBroken(
            by=person.id,
            role=ROLE,
            reason=reason,
            binding_digest=change.binding_digest or "",
            at=now,
            channel=person.authenticated_by,
            signature="",
        )
        signature = statements.sign(self._signer, STATEMENT, _said(change, broken))
        return broken.model_copy(update={"signature": signature})

    def _review_of(self, change: Change, broken: GlassBroken) -> Review:
        quorum = None if change.decision is None else change.decision.quorum
        return Review(
            change_id=change.change_id,
            what=f"{change.operation} on {change.target}",
            broken_by=broken.by,
            reason=broken.reason,
            broken_at=broken.at,
            due_at=broken.at + timedelta(seconds=self._rules.break_glass_review_s),
            excluded=behind(change) | {broken.by},
            roles=frozenset({OVERSEER} if quorum is None else {OVERSEER, quorum.role}),
        )

    def _page(self, change: Change, sentence: str) -> None:
        if self._pager is None:
            return
        try:
            self._pager.page(change, sentence)
        except Exception:  # the change is authorised by now; a pager must not hide that
            log.exception("the pager was not reached")


def authorises(change: Change, keys: Sequence[VerifyKey]) -> bool:
    """Whether somebody broke the glass for exactly this change, by a note of one of these keys."""
    broken = change.glass_broken
    return (
        broken is not None
        and broken.binding_digest == change.binding_digest
        and change.open_at(broken.at)
        and statements.says(broken.signature, keys, STATEMENT, _said(change, broken))
    )


def _check_waits(change: Change, shown_digest: str, now: datetime) -> None:
    decision = change.decision
    if change.state is not ChangeState.AWAITING_APPROVAL:
        raise ConflictError(f"change {change.change_id} is {change.state}: no vote is open")
    if decision is None or decision.answer is not Answer.REQUIRE_APPROVAL:
        raise ConflictError("no votes are asked for here, and nothing else can be broken open")
    if not change.open_at(now):
        raise ConflictError(f"change {change.change_id} expired at {change.expires_at}")
    if not change.binding_digest or shown_digest != change.binding_digest:
        raise ConflictError("what you were shown is not what would be done; open it again")


def _check_reviewer(review: Review, reviewer: Principal) -> None:
    if reviewer.id in review.excluded:
        raise InvalidRequestError("who broke the glass, asked for it or answers for it is judged")
    if not review.roles & reviewer.roles:
        raise InvalidRequestError(f"people of {' or '.join(sorted(review.roles))} review this")
    if review.justified is not None:
        raise ConflictError(f"the verdict on {review.change_id} is there: {_verdict(review)}")
    if any(opinion.reviewer == reviewer.id for opinion in review.opinions):
        raise ConflictError(f"{reviewer.id} has said so already; another person is needed")


def _verdict(review: Review) -> str:
    words = {None: "open", True: "justified", False: "not justified"}
    return words[review.justified]


def _said(change: Change, broken: GlassBroken) -> dict[str, Any]:
    """What the note of broken glass says."""
    return {
        **broken.model_dump(mode="json", exclude={"signature", "at"}),
        "at": statements.moment(broken.at),
        "change_id": change.change_id,
        "expires_at": statements.moment(change.expires_at),
    }


def _get(connection: Connection, change_id: str) -> Review:
    query = select(reviews.c.document).where(reviews.c.change_id == change_id)
    document = connection.scalars(query.with_for_update()).one_or_none()
    if document is None:
        raise NotFoundError(f"no glass was broken for {change_id!r}")
    return Review.model_validate_json(document)

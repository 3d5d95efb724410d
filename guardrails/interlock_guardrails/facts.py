"""Where facts come from: each component answers for what it can see; the guard asks them all."""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import anyio

from interlock_tools.clock import Clock
from interlock_tools.errors import FactoryError, InvalidRequestError
from interlock_tools.fact import Claim, Fact, FactNeed, FactSet, Unknown

FETCH_TIMEOUT_S = 5.0
SHOWN_CHARS = 80  # of another value than the claimed one

log = logging.getLogger(__name__)


class FactSource(Protocol):
    """What one component can tell, by kind of fact."""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of fact that it answers."""
        ...

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The fact as the component last saw it, with its age; `Unknown` says why there is none."""
        ...


class Unconfirmed(NamedTuple):
    """A claim that no source of ours confirms, and what is known instead."""

    claim: Claim
    why: str

    def sentence(self) -> str:
        """What is not confirmed, and why."""
        return f"not confirmed: {self.claim.sentence()}; {self.why}"


class Gathered(NamedTuple):
    """The answers to a list of needs: what is known, and what is not and why.

    A confirmed claim's fact is among the known; what is not confirmed is never unknown.
    """

    facts: FactSet
    unknown: tuple[Unknown, ...]
    unconfirmed: tuple[Unconfirmed, ...] = ()


class FactRegistry:
    """All sources of a site, found by kind. One kind has one source."""

    def __init__(self, sources: Iterable[FactSource] = ()) -> None:
        self._by_kind: dict[str, FactSource] = {}
        for source in sources:
            self.add(source)

    def add(self, source: FactSource) -> None:
        """Register a source.

        Raises:
            ValueError: another source already answers one of its kinds.
        """
        for kind in source.kinds:
            if kind in self._by_kind:
                raise ValueError(f"two sources answer for {kind!r}; a fact has one origin")
            self._by_kind[kind] = source

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """One fact; a source that fails or hangs gives `Unknown`, never an exception."""
        source = self._by_kind.get(need.kind)
        if source is None:
            return Unknown(kind=need.kind, subject=need.subject, why="no source answers this kind")
        try:
            with anyio.fail_after(FETCH_TIMEOUT_S):
                answer = await source.fact(need)
            if (answer.kind, answer.subject) == (need.kind, need.subject):
                return answer
            why = f"its source answered for {answer.kind} of {answer.subject}"
        except TimeoutError:
            why = f"its source gave no answer in {FETCH_TIMEOUT_S:g} s"
        except FactoryError as error:
            why = str(error)
        except Exception:
            log.exception("a source of facts broke", extra={"kind": need.kind})
            why = "its source broke"
        return Unknown(kind=need.kind, subject=need.subject, why=why)

    async def gather(
        self, needs: Sequence[FactNeed], clock: Clock, claims: Sequence[Claim] = ()
    ) -> Gathered:
        """Every need answered, and every claim compared with what its source says.

        Each source is asked at the same time, for needs and claims alike.
        """
        answers = await self._answers([*needs, *(claim.need for claim in claims)], clock)
        needed = answers[: len(needs)]
        known = [answer for answer in needed if isinstance(answer, Fact)]
        unconfirmed: list[Unconfirmed] = []
        for claim, answer in zip(claims, answers[len(needs) :], strict=True):
            if (why := _why_not(claim, answer)) is not None:
                unconfirmed.append(Unconfirmed(claim, why))
            elif isinstance(answer, Fact):
                known.append(answer)
        unknown = [answer for answer in needed if isinstance(answer, Unknown)]
        return Gathered(FactSet(known), tuple(unknown), tuple(unconfirmed))

    async def _answers(self, needs: Sequence[FactNeed], clock: Clock) -> list[Fact | Unknown]:
        """Each need's answer; a fact older than its need allows, or of the future, is unknown.

        Ages are taken when the last answer is there: a slow source makes the others' facts old.
        """
        found: list[Fact | Unknown] = []
        answers: list[Fact | Unknown | None] = [None] * len(needs)

        async def ask(place: int, need: FactNeed) -> None:
            answers[place] = await self.fact(need)

        async with anyio.create_task_group() as tasks:
            for place, need in enumerate(needs):
                tasks.start_soon(ask, place, need)
        now = clock.now()
        for need, answer in zip(needs, answers, strict=True):
            if answer is None:
                raise AssertionError("every question has an answer once the group has ended")
            if isinstance(answer, Unknown):
                found.append(answer)
                continue
            age_s = (now - answer.observed_at).total_seconds()
            if -FUTURE_TOLERANCE_S <= age_s <= need.max_age_s:
                found.append(answer)
                continue
            why = (
                f"it is {age_s:.1f} s old and may be {need.max_age_s:g} s"
                if age_s > 0
                else f"its moment lies {-age_s:.1f} s in the future"
            )
            found.append(Unknown(kind=need.kind, subject=need.subject, why=why))
        return found


def _why_not(claim: Claim, answer: Fact | Unknown) -> str | None:
    """Why an answer does not confirm a claim; None where it does."""
    if isinstance(answer, Unknown):
        return f"that is unknown: {answer.why}"
    try:
        if claim.confirmed_by(answer):
            return None
    except InvalidRequestError as error:
        return f"that cannot be compared: {error}"
    return f"{answer.origin} says {str(answer.value)[:SHOWN_CHARS]!r}"


FUTURE_TOLERANCE_S = 5.0  # clocks of meters and of ours may differ by this much

"""The worker: carries authorised changes out, one transition at a time, and never acts twice.

Everything it needs stands in the change row, so a worker that starts finds what another left: an
act without an outcome is unknown and is read back from the plant, never sent again. What breaks
while one change is carried out is that change's trouble; the others go on.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import anyio
from sqlalchemy import Connection

from interlock_guardrails import changes, reservations
from interlock_guardrails.action import parse
from interlock_guardrails.asking import NO_ANSWER, OUR_MISTAKE, read_back, verdict_of
from interlock_guardrails.beginning import begin, look_again
from interlock_guardrails.guard import Guard
from interlock_guardrails.outcomes import GIVEN_UP, RECORD_OF, SHOWN_CHARS, writable
from interlock_guardrails.sole_worker import Holds, LockLostError, never, sole_worker
from interlock_guardrails.standing import expiry_of, is_expiry
from interlock_guardrails.telling import acting, carrying_out, stepping
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ConflictError, FactoryError
from interlock_tools.fact import FactSet
from interlock_tools.measures import STATE
from interlock_tools.operation import Arguments, Happened, Held, Operation

LOOK_EVERY_S = 1.0
VERIFY_EVERY_S = 2.0
READ_BACK_TRIES = 5

S = ChangeState
StepTable = dict[ChangeState, Callable[[Change], Awaitable[Change]]]
log = logging.getLogger(__name__)


class Worker:
    """Moves changes from authorised to their verified end. One runs per process.

    What runs `alongside` runs while this process is the one that works on the store, and never in
    two processes at once.
    """

    def __init__(
        self,
        guard: Guard,
        holds: Holds = never,
        alongside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        self._guard = guard
        self._alongside = alongside
        self._clock = guard.clock
        self._busy: set[str] = set()
        self._holds = holds  # the lock; `run` takes it

    async def run(self) -> None:
        """Work until cancelled; while another process works on this store, stand by."""
        while True:
            try:
                async with sole_worker(self._guard.store.engine, self._clock) as self._holds:
                    await self._work()
            except LockLostError:
                log.warning("standing by: another replica may be working")

    async def _work(self) -> None:
        await self._make_safe_what_is_overdue()
        self._guard.wake_worker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._wake_regularly)
            for run in self._alongside:
                tasks.start_soon(run)
            while True:
                ready = self._guard.authorised
                handed = self._guard.take_handed()
                for change in await self._look_for_work() if handed is None else handed:
                    if change.change_id not in self._busy:
                        self._busy.add(change.change_id)
                        tasks.start_soon(self._advance, change)
                await ready.wait()
                self._guard.authorised = anyio.Event()

    async def _make_safe_what_is_overdue(self) -> None:
        """Before anything else: what should have come to its safe value while nobody worked."""
        now = self._clock.now()
        for change in await self._look_for_work():
            if change.not_before is not None and change.not_before <= now:
                await self._advance(change)

    async def _wake_regularly(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            self._guard.wake_worker()

    async def _look_for_work(self) -> list[Change]:
        try:
            found = await self._guard.store.read(changes.unfinished)
        except Exception:  # the store is out of reach: nothing new begins, the next look is soon
            log.exception("the changes could not be read")
            return []
        now = self._clock.now()
        return [c for c in found if c.state is not S.AWAITING_APPROVAL or not c.open_at(now)]

    async def _advance(self, change: Change) -> None:
        """Take one change as far as it goes now."""
        change_id = change.change_id
        steps: StepTable = {
            S.AWAITING_APPROVAL: self._expire_if_due,
            S.AUTHORISED: self._begin_and_act,
            S.EXECUTING: self._adopt,
            S.UNKNOWN: self._find_out,
            S.VERIFYING: self._verify,
            S.COMPENSATING: self._adopt_compensation,
        }
        try:
            if change.state is not S.AUTHORISED:  # from there nothing is done but in its state
                change = await self._guard.get(change_id)  # the look may be old by now
            with carrying_out(change, self._clock.now()) as trace:
                while change.state in steps:
                    step = self._give_up if self._is_orphan(change) else steps[change.state]
                    with stepping(change, trace):
                        moved = await step(change)
                    if moved.state is change.state:
                        break
                    change = moved
                trace.set_attribute(STATE, change.state.value)
        except ConflictError as error:
            log.info("a person moved a change: %s", error)
        except Exception:  # it stays where it is; what may not be sent twice is not (see _adopt)
            log.exception("a change is looked at again", extra={"change_id": change_id})
        finally:
            self._busy.discard(change_id)

    async def _adopt(self, change: Change) -> Change:
        """Found under way, and not by us: its process, or its record of the outcome, was lost."""
        operation = self._guard.operations.get(change.operation)
        if operation is not None and operation.resumes:
            return await self._execute(change)
        return await self._move(change, S.UNKNOWN, "whoever acted ended before it was known how")

    def _is_orphan(self, change: Change) -> bool:
        """Whether it has acted and its operation, or its arguments, are not known here any more."""
        if change.state not in GIVEN_UP:
            return False
        try:
            self._parsed(change)
        except FactoryError:
            return True
        return False

    async def _give_up(self, change: Change) -> Change:
        """Leave it to a person, through the states that lead there."""
        why = f"{change.operation} is not known here any more; a person must look"

        def transact(connection: Connection) -> Change:
            moved = change
            for to in GIVEN_UP[change.state]:
                moved = self._step(connection, moved, to, why, goes_on=to is not S.STUCK)
            return moved

        stuck = await self._guard.store.write(transact)
        self._guard.pager.page(stuck, why)
        return stuck

    # ── before the act ────────────────────────────────────────────────────────────────────────

    async def _expire_if_due(self, change: Change) -> Change:
        if change.open_at(self._clock.now()):
            return change
        return await self._move(change, S.EXPIRED, "nobody decided in time; silence is a no")

    async def _begin_and_act(self, change: Change) -> Change:
        """The only way to an act: by whoever has just written its intent, and once."""
        begun = await self._begin(change)
        return await self._execute(begun) if begun.state is S.EXECUTING else begun

    async def _begin(self, change: Change) -> Change:
        """Look at the plant again, then decide and begin in one transaction (see beginning.py)."""
        now = self._clock.now()
        if change.not_before is not None and now < change.not_before:
            return change
        if not change.open_at(now):
            return await self._too_late(change)
        try:
            seen = await look_again(self._guard, change)
        except FactoryError as error:
            if is_expiry(change):
                return change  # what is safe is tried again until its time is over
            return await self._move(change, S.REFUSED, f"looked at again: {error}")

        def commit(connection: Connection) -> Change:
            begun = begin(connection, self._guard, change, seen, self._holds)
            if begun.end is None or is_expiry(change):
                return begun.change
            return self._step(connection, change, *begun.end)

        return await self._guard.store.write(commit)

    async def _too_late(self, change: Change) -> Change:
        """What was to be made safe and could not be is a person's; anything else just expires."""
        if is_expiry(change):
            why = "its safe value could not be brought back in time; a person must look"
            return await self._move(change, S.STUCK, why)
        return await self._move(change, S.EXPIRED, "it was approved but not begun in time")

    # ── the act ───────────────────────────────────────────────────────────────────────────────

    async def _execute(self, change: Change) -> Change:
        """Act once. Whatever is not a plain success may have half happened, and is read back."""
        operation, arguments = self._parsed(change)
        try:
            with acting(change), anyio.fail_after(operation.act_timeout_s):
                answer = await operation.execute(arguments, change.change_id)
        except (FactoryError, TimeoutError) as error:
            why = f"the act did not end well: {str(error) or NO_ANSWER}"
            return await self._move(change, S.UNKNOWN, why)
        except Exception:
            log.exception("an operation broke while it acted")
            return await self._move(change, S.UNKNOWN, f"{OUR_MISTAKE} while it acted")
        return await self._move(
            change,
            S.VERIFYING,
            "the component took it",
            evidence={**change.evidence, "answer": answer},
        )

    async def _find_out(self, change: Change) -> Change:
        """Ask the component what happened; never act again on a guess.

        Only a yes is believed at once: what was sent may still be on its way.
        """
        operation, arguments = self._parsed(change)
        seen = await read_back(operation, arguments)
        for tried in range(1, READ_BACK_TRIES):
            if seen.happened is Happened.YES:
                break
            await self._clock.sleep(VERIFY_EVERY_S * tried)
            seen = await read_back(operation, arguments)
        evidence = {**change.evidence, "read_back": seen.model_dump(mode="json")}
        if seen.happened is Happened.YES:
            return await self._move(change, S.VERIFYING, "read back: it stands", evidence=evidence)
        if seen.happened is Happened.UNKNOWN:
            why = "the plant does not say what happened; a person must look"
            return await self._move(change, S.STUCK, why, evidence=evidence)
        if seen.happened is Happened.NO:
            why = "read back: it did not happen"
            return await self._fail(change, why, undo=False, evidence=evidence)
        return await self._fail(change, "read back: it happened in part", evidence=evidence)

    async def _verify(self, change: Change) -> Change:
        """Wait until an independent source shows the effect, inside the operation's deadline.

        Looks are counted too: a clock that went back must not lengthen it.
        """
        operation, arguments = self._parsed(change)
        begun = change.history[-1].at
        looks = 0
        while True:
            looks += 1
            verdict = await verdict_of(operation, arguments, FactSet(change.facts), begun)
            evidence = {**change.evidence, "verified": verdict.model_dump(mode="json")}
            if verdict.held is Held.YES:
                why = f"shown by {verdict.source}"
                return await self._move(change, S.SUCCEEDED, why, evidence=evidence)
            elapsed_s = (self._clock.now() - begun).total_seconds()
            waited_s = max(elapsed_s, (looks - 1) * VERIFY_EVERY_S)
            if verdict.held is Held.NO or waited_s >= operation.deadline_s:
                why = f"{verdict.source} does not show it after {waited_s:.0f} s"
                return await self._fail(change, why, evidence=evidence)
            await self._clock.sleep(VERIFY_EVERY_S)

    # ── after a failure ───────────────────────────────────────────────────────────────────────

    async def _fail(self, change: Change, why: str, *, undo: bool = True, **updates: Any) -> Change:
        """Call it failed; where something was done and can be brought back, begin that at once.

        Both in one transaction: a process that ends in between would leave it undone for ever. Lock
        and reservation stay until it is brought back.
        """
        undo = undo and self._guard.operation(change.operation).compensates

        def transact(connection: Connection) -> Change:
            failed = self._step(connection, change, S.FAILED, why, goes_on=undo, **updates)
            if not undo:
                return failed
            return self._step(connection, failed, S.COMPENSATING, "bringing back what was before")

        failed = await self._guard.store.write(transact)
        return await self._compensate(failed) if undo else failed

    async def _adopt_compensation(self, change: Change) -> Change:
        """Found half way back, and not by us: it may have been brought back already."""
        if self._guard.operation(change.operation).compensation_repeats:
            return await self._compensate(change)
        why = "whoever brought it back ended before it was known how; a person must look"
        return await self._move(change, S.STUCK, why)

    async def _compensate(self, change: Change) -> Change:
        operation, arguments = self._parsed(change)
        try:
            with anyio.fail_after(operation.act_timeout_s):
                answer = await operation.bring_back(
                    arguments, FactSet(change.facts), change.change_id
                )
        except (FactoryError, TimeoutError) as error:
            why = f"it could not be brought back: {str(error) or 'timed out'}; a person must look"
            return await self._move(change, S.STUCK, why)
        except Exception:
            log.exception("an operation broke while it brought back")
            why = f"{OUR_MISTAKE} while it brought back; a person must look"
            return await self._move(change, S.STUCK, why)
        evidence = {**change.evidence, "compensation": answer}
        return await self._move(change, S.COMPENSATED, "brought back", evidence=evidence)

    # ── shared ────────────────────────────────────────────────────────────────────────────────

    def _parsed(self, change: Change) -> tuple[Operation[Any], Arguments]:
        operation = self._guard.operation(change.operation).of(change.change_id)
        return operation, parse(operation, change.arguments)

    async def _move(self, change: Change, to: ChangeState, why: str, **updates: Any) -> Change:
        """One transition in a transaction of its own; whoever must know of it is told after it."""
        moved = await self._guard.store.write(
            lambda connection: self._step(connection, change, to, why, **updates)
        )
        if to is S.STUCK:
            self._guard.pager.page(moved, why)
        return moved

    def _leave_expiry(self, connection: Connection, change: Change) -> None:
        """Where the effect has an end, leave behind what brings it to its safe value then."""
        try:
            operation, arguments = self._parsed(change)
            expiry = operation.expiry(arguments, FactSet(change.facts))
        except Exception:
            log.exception("an expiry could not be worked out", extra={"id": change.change_id})
            expiry = None
        if expiry is not None:
            child = expiry_of(self._guard, change, expiry, self._clock.now())
            changes.insert_once(connection, child)

    def _step(
        self,
        connection: Connection,
        change: Change,
        to: ChangeState,
        why: str,
        *,
        goes_on: bool = False,
        **updates: Any,
    ) -> Change:
        """One transition with its ledger record; an end gives back lock and reservation."""
        why = why[:SHOWN_CHARS].encode(errors="replace").decode()
        if "evidence" in updates:
            updates["evidence"] = writable(updates["evidence"])
        moved = changes.move(
            connection,
            change.change_id,
            to,
            at=self._clock.now(),
            why=why,
            came_from=change.state,
            **updates,
        )
        if to is S.SUCCEEDED:
            self._leave_expiry(connection, moved)
        if moved.ended and to is not S.STUCK and not goes_on:  # stuck: see clearing.py
            reservations.give_back(connection, change.change_id)
        self._guard.ledger.append(
            connection,
            RECORD_OF[to],
            {
                "change_id": change.change_id,
                "state": to.value,
                "why": why,
                "evidence": moved.evidence,
            },
        )
        return moved

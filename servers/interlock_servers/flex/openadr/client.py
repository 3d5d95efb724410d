"""A VEN: it asks a VTN for events again and again, and sends reports when people want one sent.

What it knows is replaced only by what it can read: an event that is missing from a page is asked
for by its id, and only `not found` ends it; an update that makes no sense lifts nothing.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

import anyio.to_thread

from interlock_servers.flex.models import LoadTarget, Reason, RejectedError
from interlock_servers.flex.openadr.callbacks import LEAST_S, Callbacks
from interlock_servers.flex.openadr.events import Asked, asked_by, by_priority
from interlock_servers.flex.openadr.settings import OpenAdrSettings
from interlock_servers.flex.openadr.subscribing import subscribe
from interlock_servers.flex.signals import Health
from interlock_servers.flex.strict_json import JsonObject, parse_object
from interlock_servers.plant_text import plant_text
from interlock_servers.transports.mqtt_token import Token, fetch_token, renew_at_s
from interlock_servers.transports.rest import Answer, RestClient
from interlock_tools.clock import Clock
from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    FactoryError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)

COMPONENT: Final = "openadr"
PAGE: Final = 50  # the most that a VTN gives at once
MAX_PAGES: Final = 40
RENEW_BEFORE_S: Final = 60.0
SUBSCRIBE_EVERY: Final = timedelta(hours=1)  # a VTN that was restarted may have forgotten us

Take = Callable[[Iterable[LoadTarget]], None]
Refuse = Callable[[RejectedError, str, str | None, str | None, datetime], None]
log = logging.getLogger(__name__)


class _Known(NamedTuple):
    """An event as it was last read, and what it asks for; `asked` is of the last sound version."""

    text: str
    program_id: str
    seen_at: datetime
    event: JsonObject
    asked: Asked | None


class OpenAdrClient:
    """The events of some programs of one VTN; reads never wait for it."""

    def __init__(
        self, settings: OpenAdrSettings, clock: Clock, refuse: Refuse, take: Take = lambda new: None
    ) -> None:
        """Describe the VTN.

        Args:
            settings: where it is, and what its words mean.
            clock: of polls and ages.
            refuse: is told of every version of an event that cannot be followed, once.
            take: is given the targets of every other version, once.
        """
        self.settings = settings
        self._clock = clock
        self._refuse = refuse
        self._take = take
        self._rest = RestClient(settings.vtn_url, component=COMPONENT, ca_file=settings.ca_file)
        self._host = urlsplit(settings.vtn_url).hostname or ""
        self._token: Token | None = None
        self._renew_at_s: float | None = None
        self._etags: dict[str, tuple[str, list[JsonObject]]] = {}
        self._known: dict[str, _Known] = {}
        self._programs: dict[str, JsonObject] = {}
        self._lock = threading.Lock()
        self._targets: tuple[LoadTarget, ...] = ()
        self._certain_at: datetime | None = None
        self._failure: str | None = "it was not asked yet"
        self._poller: asyncio.Task[None] | None = None
        self._called = asyncio.Event()
        self.callbacks: Callbacks | None = None
        if settings.callback is not None:
            self.callbacks = Callbacks(settings.callback, self._called.set)
        self.not_subscribed: str | None = "it was not asked yet"
        self._subscribe_at: datetime | None = None
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin to ask.

        Raises:
            InvalidRequestError: the file of authorities cannot be read; the port of the callback is
                taken.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._rest)
            if self.callbacks is not None:
                await stack.enter_async_context(self.callbacks.listening())
            self._opened = stack.pop_all()
        self._poller = asyncio.create_task(self._poll(), name="openadr-poll")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Stop asking; what was learnt can still be read."""
        if self._poller is not None:
            self._poller.cancel()
            with suppress(asyncio.CancelledError):
                await self._poller
        await self._opened.__aexit__(kind, error, tb)

    # --- reads ---

    def targets(self, moment: datetime) -> tuple[LoadTarget, ...]:
        """Every target of the events that holds at `moment` or later."""
        with self._lock:
            return tuple(target for target in self._targets if not target.ended(moment))

    def health(self) -> Health:
        """Whether the events are known, and since when not."""
        with self._lock:
            certain_at, failure = self._certain_at, self._failure
        now = self._clock.now()
        if certain_at is None:
            return Health(False, self._host, None, f"OpenADR: {failure}")
        age_s = (now - certain_at).total_seconds()
        if age_s > self.settings.stale_after_s:
            why = f"OpenADR: {self._host} was last heard {age_s:.0f} s ago"
            return Health(False, self._host, certain_at, f"{why}: {failure}" if failure else why)
        return Health(failure is None, self._host, now, None)

    def event(self, event_id: str) -> JsonObject:
        """An event as the VTN gave it.

        Raises:
            NotFoundError: there is none of this id.
        """
        known = self._known.get(event_id)
        if known is None:
            raise NotFoundError(f"no event {event_id!r} of our programs; there is: {self._names()}")
        return known.event

    def _names(self) -> str:
        return ", ".join(sorted(self._known)) or "none"

    # --- asking ---

    async def _poll(self) -> None:
        while True:
            try:
                await self.look()
            except FactoryError as error:
                log.warning("the VTN could not be asked", extra={"why": str(error)})
            except Exception as error:  # whatever a stranger's server says, we ask again
                log.exception("the VTN could not be understood")
                self._failed(f"its answer could not be understood: {type(error).__name__}")
            await self._until_due()

    async def _until_due(self) -> None:
        """Wait for the next round, or for a call, but not for one that comes on the heels."""
        began = self._clock.now()
        waits = (
            asyncio.ensure_future(self._clock.sleep(self.settings.poll_s)),
            asyncio.ensure_future(self._called.wait()),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._called.is_set():
            await self._clock.sleep(LEAST_S - (self._clock.now() - began).total_seconds())
        self._called.clear()

    async def _subscribe(self, programs: Iterable[str], now: datetime) -> None:
        """Have ourselves called, now and once an hour; where that fails we go on asking."""
        if self.callbacks is None or (self._subscribe_at is not None and now < self._subscribe_at):
            return
        self._subscribe_at = now + SUBSCRIBE_EVERY

        async def send(method: str, path: str, status: int, body: JsonObject | None) -> bytes:
            return _expected(await self._ask(method, path, {}, body), status, path)

        try:
            await subscribe(self.settings, self.callbacks, programs, list_all=self._all, send=send)
        except FactoryError as error:
            self.not_subscribed = str(error)
            log.warning("the VTN will not call", extra={"why": str(error)})
        else:
            self.not_subscribed = None

    async def look(self) -> None:
        """Ask once for programs and events, and take in what changed.

        Raises:
            FactoryError: it could not be asked; what was known stays.
        """
        now = self._clock.now()
        try:
            programs = await self._ours()
            found: dict[str, JsonObject] = {}
            for program_id in programs:
                for event in await self._all(f"/events?programID={program_id}"):
                    if event.get("programID") == program_id:
                        found[str(event["id"])] = event
            for missing in [name for name in self._known if name not in found]:
                if (still := await self._by_id(missing)) is not None:
                    found[missing] = still
        except FactoryError as error:
            self._failed(str(error))
            raise
        self._programs = programs
        known = {name: self._read(name, event, now) for name, event in found.items()}
        asked = [one.asked for one in known.values() if one is not None and one.asked is not None]
        targets = by_priority(asked)
        await self._subscribe(programs, now)
        with self._lock:
            self._known = {name: one for name, one in known.items() if one is not None}
            self._targets, self._certain_at, self._failure = targets, now, None

    async def _ours(self) -> dict[str, JsonObject]:
        wanted = self.settings.programs
        named = {
            str(program.get("programName")): program for program in await self._all("/programs?")
        }
        if lacking := [name for name in wanted if name not in named]:
            raise NotFoundError(f"{self._host} has no program {', '.join(lacking)}")
        return {str(named[name]["id"]): named[name] for name in wanted}

    def _read(self, name: str, event: JsonObject, now: datetime) -> _Known | None:
        """An event taken in; one that did not change and does not repeat is not read again."""
        had = self._known.get(name)
        text = json.dumps(event, sort_keys=True)
        same = had is not None and had.text == text
        if had is not None and same and event.get("duration") is None:
            return had
        program_id = str(event.get("programID"))
        seen_at = had.seen_at if had is not None and same else now
        source = f"//openadr/{self._host}/{program_id}/{name}"
        try:
            asked = asked_by(
                event,
                self._programs.get(program_id, {}),
                self.settings,
                source=source,
                seen_at=seen_at,
                now=now,
            )
        except (RejectedError, ValueError) as error:
            if not same:
                self._refuse(_named(error), "openadr/events", source, name, now)
            asked = had.asked if had is not None else None  # an update that makes no sense
        else:
            if asked is not None and not same:
                self._take(asked.targets)
        return _Known(text, program_id, seen_at, event, asked)

    async def _all(self, path: str) -> list[JsonObject]:
        """All objects at a path, page by page, each once.

        A page that is not full is not the last, a VTN may have a lower bound of its own; one
        that brings nothing new is.
        """
        found: dict[str, JsonObject] = {}
        for _ in range(MAX_PAGES):
            page = await self._page(f"{path}&skip={len(found)}&limit={PAGE}")
            fresh = {
                str(one["id"]): one
                for one in page
                if isinstance(one.get("id"), str) and one["id"] not in found
            }
            if not fresh:
                return list(found.values())
            found |= fresh
        raise ComponentError(COMPONENT, "TOO_MANY", f"{path} has more than {MAX_PAGES} pages")

    async def _page(self, path: str) -> list[JsonObject]:
        held = self._etags.get(path)
        answer = await self._ask("GET", path, {} if held is None else {"If-None-Match": held[0]})
        if answer.status == 304 and held is not None:
            return held[1]
        listed = _objects(_expected(answer, 200, path), path)
        if etag := answer.headers.get("etag"):
            self._etags[path] = (etag, listed)
        else:
            self._etags.pop(path, None)
        return listed

    async def _by_id(self, event_id: str) -> JsonObject | None:
        path = f"/events/{event_id}"
        answer = await self._ask("GET", path, {})
        if answer.status == 404:
            return None
        (event,) = _objects(b"[" + _expected(answer, 200, path) + b"]", path)
        return event

    async def _ask(
        self, method: str, path: str, headers: dict[str, str], body: JsonObject | None = None
    ) -> Answer:
        """One question with our token, and with a fresh one where that is not taken any more."""
        answer = await self._rest.ask(
            method, path, headers=headers | await self._authorization(False), json=body
        )
        if answer.status == 401 and self.settings.login is not None:
            answer = await self._rest.ask(
                method, path, headers=headers | await self._authorization(True), json=body
            )
        return answer

    async def _authorization(self, fresh: bool) -> dict[str, str]:
        login, now = self.settings.login, self._clock.now()
        if login is None:
            return {}
        due = self._renew_at_s is not None and now.timestamp() >= self._renew_at_s
        if self._token is None or fresh or due:
            self._token = await anyio.to_thread.run_sync(fetch_token, login, now)
            self._renew_at_s = renew_at_s(self._token, now, RENEW_BEFORE_S)
        return {"Authorization": f"Bearer {self._token.secret}"}

    def _failed(self, why: str) -> None:
        with self._lock:
            self._failure = why

    # --- reports ---

    async def send_report(self, report: JsonObject) -> str:
        """Send a report that is not there yet, and give its id at the VTN.

        Raises:
            InvalidRequestError: it names no event, or itself not.
            ConflictError: the VTN has a report of this name for this event already.
            UnavailableError: no answer; look at the VTN before it is sent again.
            ComponentError: the VTN refused it.
        """
        event_id, name = report.get("eventID"), report.get("reportName")
        if not event_id or not name:
            raise InvalidRequestError("a report names its event and itself")
        for there in await self._all(f"/reports?eventID={event_id}"):
            if there.get("reportName") == name:
                raise ConflictError(f"{self._host} has report {name!r} already: {there['id']}")
        answer = await self._ask("POST", "/reports", {}, report)
        if answer.status == 409:
            raise ConflictError(f"{self._host} has such a report already")
        (made,) = _objects(b"[" + _expected(answer, 201, "/reports") + b"]", "/reports")
        return str(made.get("id"))


def _named(error: RejectedError | ValueError) -> RejectedError:
    if isinstance(error, RejectedError):
        return error
    return RejectedError(Reason.BAD_PAYLOAD, str(error))


def _expected(answer: Answer, status: int, path: str) -> bytes:
    """The body of an answer of this status.

    Raises:
        UnavailableError: the VTN cannot serve us now.
        ComponentError: it refuses us.
    """
    if answer.status == status:
        return answer.body
    where = path.partition("?")[0]
    if answer.status in {429, 500, 502, 503, 504}:
        raise UnavailableError(f"the VTN answers {where} with {answer.status}")
    raise ComponentError(COMPONENT, str(answer.status), f"{where}: {_problem(answer.body)}")


def _problem(body: bytes) -> str:
    try:
        problem = parse_object(body, what="the problem")
    except RejectedError:
        return "it does not say why"
    said: Iterable[object] = (problem.get("title"), problem.get("detail"))
    return plant_text(": ".join(str(part) for part in said if part) or "it does not say why", 200)


def _objects(body: bytes, path: str) -> list[JsonObject]:
    """The objects in a JSON list; read as strictly as what comes on the bus."""
    try:
        listed = parse_object(b'{"listed":' + body + b"}", what=path)["listed"]
    except RejectedError as error:
        raise ComponentError(COMPONENT, "NOT_JSON", str(error)) from error
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ComponentError(COMPONENT, "NOT_A_LIST", f"{path.partition('?')[0]} gives no list")
    return listed

"""A utility's VTN on a loopback socket, in raw JSON: it keeps events, takes reports, and fails.

It shares nothing with the VEN but the standard; every request and every answer of it is held
against that.
"""

import hashlib
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from interlock_servers.flex.twin_vtn_schema import Json, Version, what_is_wrong
from interlock_servers.transports.embedded import EmbeddedServer
from interlock_tools.clock import Clock

MAX_PAGE: Final = 50
TOKEN_LIVES_S: Final = 3600
START_TIMEOUT_S: Final = 20.0
CLIENT_ID, CLIENT_SECRET = "ven-lab", "a-secret-of-the-lab"


class VtnFault(StrEnum):
    """A way for a VTN to misbehave."""

    DOWN = "down"  # every answer is 503
    SHORT_PAGES = "short_pages"  # it gives fewer than it was asked for, though it has more
    IGNORES_SKIP = "ignores_skip"  # each page is the first
    LOSES_EVENTS = "loses_events"  # lists are empty, though the events are still there
    REDIRECTS = "redirects"
    NOT_JSON = "not_json"
    NO_SUBSCRIPTIONS = "no_subscriptions"
    NO_SUCH_TOKEN = "no_such_token"  # noqa: S105 (the name of a fault)


class VtnTwin:
    """One VTN; whoever plays the utility calls `put_event` and the like."""

    def __init__(self, clock: Clock, version: Version = "3.0") -> None:
        self.url = ""
        self.faults: set[VtnFault] = set()
        self.asked: list[str] = []  # method and path of every request
        self.wrong: list[str] = []  # departures from the standard, on either side
        self.not_modified = 0
        self.version = version
        self._clock = clock
        self._tokens: set[str] = set()
        self._kept: dict[str, dict[str, Json]] = {
            "program": {},
            "event": {},
            "report": {},
            "subscription": {},
        }

    # --- what the utility does ---

    def add_program(self, name: str, **members: Any) -> str:
        """A program, and its id."""
        return self._put("program", {"programName": name, **members})

    def put_event(self, event: Json, event_id: str | None = None) -> str:
        """A new event, or another version of one; gives its id. It may be as wrong as you like."""
        return self._put("event", event, event_id)

    def delete_event(self, event_id: str) -> None:
        """Take an event back."""
        del self._kept["event"][event_id]

    @property
    def subscriptions(self) -> list[Json]:
        """Who is to be called."""
        return list(self._kept["subscription"].values())

    def notification(self, event_id: str, operation: str) -> Json:
        """What is said of an event to whoever subscribed."""
        event = self._kept["event"].get(event_id, {"id": event_id})
        said = {"objectType": "EVENT", "operation": operation, "object": event}
        self._check("notification", said, "a notification")
        return said

    @property
    def reports(self) -> list[Json]:
        """The reports that were sent."""
        return list(self._kept["report"].values())

    def end_tokens(self) -> None:
        """Whatever was given before is refused from now on."""
        self._tokens.clear()

    def _put(self, kind: str, members: Json, name: str | None = None) -> str:
        kept = self._kept[kind]
        name = name or f"{kind}-{len(kept) + 1}"
        now = self._clock.now().astimezone(UTC).isoformat().replace("+00:00", "Z")
        made = kept.get(name, {}).get("createdDateTime", now)
        kept[name] = {
            **members,
            "id": name,
            "createdDateTime": made,
            "modificationDateTime": now,
            "objectType": kind.upper(),
        }
        return name

    # --- what a VEN sees ---

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["VtnTwin"]:
        """Serve it on a free port of this machine."""
        config = uvicorn.Config(
            self._app(), log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
        server = EmbeddedServer(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/openadr3"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                with anyio.fail_after(START_TIMEOUT_S):
                    await server.ready.wait()
                try:
                    yield self
                finally:
                    server.should_exit = True

    def _app(self) -> Starlette:
        def of(act: Callable[[Request], Any], scope: str) -> Callable[[Request], Any]:
            async def guarded(request: Request) -> Response:
                self.asked.append(f"{request.method} {request.url.path.rpartition('/openadr3')[2]}")
                if (refused := self._refusal(request, scope)) is not None:
                    return refused
                answer: Response = await act(request)
                return answer

            return guarded

        base = "/openadr3"
        return Starlette(
            routes=[
                Route(f"{base}/auth/token", self._token, methods=["POST"]),
                Route(f"{base}/programs", of(self._programs, "read_all")),
                Route(f"{base}/events", of(self._events, "read_all")),
                Route(f"{base}/events/{{name}}", of(self._event, "read_all")),
                Route(f"{base}/subscriptions", of(self._listed, "read_all"), methods=["GET"]),
                Route(
                    f"{base}/subscriptions",
                    of(self._subscribe, "write_subscriptions"),
                    methods=["POST"],
                ),
                Route(
                    f"{base}/subscriptions/{{name}}",
                    of(self._unsubscribe, "write_subscriptions"),
                    methods=["DELETE"],
                ),
                Route(f"{base}/reports", of(self._reports, "read_all"), methods=["GET"]),
                Route(f"{base}/reports", of(self._report, "write_reports"), methods=["POST"]),
            ]
        )

    def _refusal(self, request: Request, scope: str) -> Response | None:
        if VtnFault.DOWN in self.faults:
            return self._problem(503, "come back later")
        if VtnFault.REDIRECTS in self.faults:
            return Response(status_code=302, headers={"Location": "http://127.0.0.1:1/elsewhere"})
        if VtnFault.NOT_JSON in self.faults:
            return Response("<html>welcome</html>", media_type="text/html")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self._tokens:
            return self._problem(401, "this token is not known")
        if scope not in token.split("."):
            return self._problem(403, f"the token lacks {scope}")
        return None

    async def _token(self, request: Request) -> Response:
        form = dict(await request.form())
        self._check("token_request", form, "a token request")
        known = (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        if not known or VtnFault.NO_SUCH_TOKEN in self.faults:
            return _json({"error": "invalid_client"}, 401)
        token = ".".join([secrets.token_hex(8), *str(form.get("scope", "")).split()])
        self._tokens.add(token)
        body = {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIVES_S}
        self._check("token", body, "a token")
        return _json(body)

    async def _programs(self, request: Request) -> Response:
        return self._page(request, "program", list(self._kept["program"].values()))

    async def _events(self, request: Request) -> Response:
        wanted = request.query_params.get("programID")
        found = [e for e in self._kept["event"].values() if wanted in (None, e["programID"])]
        if VtnFault.LOSES_EVENTS in self.faults:
            found = []
        return self._page(request, "event", found)

    async def _event(self, request: Request) -> Response:
        event = self._kept["event"].get(request.path_params["name"])
        return self._problem(404, "no such event") if event is None else _json(event)

    async def _listed(self, request: Request) -> Response:
        wanted = request.query_params.get("clientName")
        found = [s for s in self.subscriptions if wanted in (None, s["clientName"])]
        return self._page(request, "subscription", found)

    async def _subscribe(self, request: Request) -> Response:
        if VtnFault.NO_SUBSCRIPTIONS in self.faults:
            return self._problem(404, "no subscriptions here")
        wanted = await request.json()
        if (wrong := what_is_wrong(self.version, "subscription", wanted)) is not None:
            self.wrong.append(f"a subscription: {wrong}")
            return self._problem(400, wrong)
        return _json(self._kept["subscription"][self._put("subscription", wanted)], 201)

    async def _unsubscribe(self, request: Request) -> Response:
        gone = self._kept["subscription"].pop(request.path_params["name"], None)
        return self._problem(404, "no such subscription") if gone is None else _json(gone)

    async def _reports(self, request: Request) -> Response:
        wanted = request.query_params.get("eventID")
        found = [r for r in self.reports if wanted in (None, r["eventID"])]
        return self._page(request, "report", found)

    async def _report(self, request: Request) -> Response:
        report = await request.json()
        if (wrong := what_is_wrong(self.version, "report", report)) is not None:
            self.wrong.append(f"a report: {wrong}")
            return self._problem(400, wrong)
        made = self._kept["report"][self._put("report", report)]
        return _json(made, 201)

    def _page(self, request: Request, kind: str, found: list[Json]) -> Response:
        try:
            skip = int(request.query_params.get("skip", 0))
            limit = int(request.query_params.get("limit", MAX_PAGE))
        except ValueError:
            skip = limit = -1
        if skip < 0 or not 0 <= limit <= MAX_PAGE:
            self.wrong.append(f"a page from {skip} of {limit}")
            return self._problem(400, "limit is at most 50")
        if VtnFault.IGNORES_SKIP in self.faults:
            skip = 0
        if VtnFault.SHORT_PAGES in self.faults:
            limit = min(limit, 2)
        page = found[skip : skip + limit]
        for one in page:
            self._check(kind, one, f"{kind} {one['id']}")
        body = json.dumps(page).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            self.not_modified += 1
            return Response(status_code=304, headers={"ETag": etag})
        return Response(body, media_type="application/json", headers={"ETag": etag})

    def _problem(self, status: int, detail: str) -> Response:
        body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
        self._check("problem", body, "a problem")
        return _json(body, status)

    def _check(self, kind: str, document: Json, what: str) -> None:
        if (wrong := what_is_wrong(self.version, kind, document)) is not None:
            self.wrong.append(f"{what}: {wrong}")


def _json(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")

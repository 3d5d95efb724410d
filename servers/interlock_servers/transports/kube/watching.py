"""List and watch of one kind: what is there, then each change, for as long as it is asked for.

Source: Kubernetes API concepts, "Efficient detection of changes": a watch goes on from a resource
version; one that the server has forgotten (410, as an answer or as an event) means listing anew.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from interlock_servers.transports.kube.breaker import pause
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.failures import ExpiredError
from interlock_servers.transports.kube.kinds import Kind, ServedKind
from interlock_tools.errors import FactoryError, NotFoundError, UnavailableError

log = logging.getLogger(__name__)

WATCH_S: Final = 290  # the server ends a watch after so long, as client-go asks of it
GONE: Final = 410


class Heard(StrEnum):
    """What a step of the loop told."""

    LISTED = "listed"  # `objects` are all there are
    CHANGED = "changed"  # `objects` has one, as it is now
    DELETED = "deleted"  # `objects` has one, as it was
    ALIVE = "alive"  # nothing changed up to now
    LOST = "lost"  # no connection: what is known grows old
    ABSENT = "absent"  # the kind is not served


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was heard.

    Attributes:
        objects: raw, as the server sent them.
        why: of what is lost or absent.
    """

    heard: Heard
    objects: tuple[Json, ...] = ()
    why: str = ""


class Watching:
    """Follows one kind of one cluster."""

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
    ) -> None:
        self._client = client
        self._kind = kind
        self._namespace = namespace
        self._query = {"labelSelector": labels, "fieldSelector": fields}
        self._version: str | None = None
        self._list_at: datetime | None = None
        self._failures = 0

    async def steps(self) -> AsyncGenerator[Step, None]:
        """What is there, and what becomes of it, without end; trouble is told, never raised."""
        while True:
            try:
                async with aclosing(self._round()) as steps:
                    async for step in steps:
                        if step.heard is not Heard.LISTED:
                            self._failures = 0
                        yield step
                continue
            except NotFoundError as error:
                self._version = None
                self._client.discovery.forget()
                yield Step(Heard.ABSENT, why=str(error))
            except ExpiredError:
                log.info("kubernetes watch expired", extra={"kind": self._kind.name})
                self._version = None
                if self._failures == 0:  # the first time at once; then it is a pattern
                    self._failures = 1
                    continue
                yield Step(Heard.LOST, why="the API server forgets faster than we can read")
            except FactoryError as error:
                log.warning("kubernetes watch failed", extra={"kind": self._kind.name})
                yield Step(Heard.LOST, why=str(error))
            await self._client.clock.sleep(pause(self._failures))
            self._failures += 1

    async def _round(self) -> AsyncGenerator[Step, None]:
        """List if we must, then watch until the server ends it."""
        served = await self._client.served(self._kind)
        now = self._client.clock.now()
        if self._version is None or self._list_at is None or now >= self._list_at:
            yield await self._list()
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": WATCH_S,
        }
        async with self._client.connection.stream(served.path(self._namespace), query) as events:
            yield Step(Heard.ALIVE)
            async for event in events:
                yield self._step(event, served)

    async def _list(self) -> Step:
        client = self._client
        objects: list[Json] = []
        version = ""
        pages = client.pages(
            self._kind,
            namespace=self._namespace,
            labels=self._query["labelSelector"],
            fields=self._query["fieldSelector"],
        )
        async for page in pages:
            objects += page.items
            version = page.resource_version
        if not version:
            raise UnavailableError(f"the listing of {self._kind.name} has no resource version")
        self._version = version
        self._list_at = client.clock.now() + timedelta(seconds=client.settings.resync_s)
        return Step(Heard.LISTED, tuple(objects))

    def _step(self, event: Json, served: ServedKind) -> Step:
        """One event, believed only where it can be one of this watch.

        Raises:
            ExpiredError: the server has forgotten where we were.
            UnavailableError: it cannot be so; everything is listed anew.
        """
        kind, found = event.get("type"), event.get("object")
        if not isinstance(found, dict):
            self._version = None
            raise UnavailableError(f"the watch of {self._kind.name} sent an event without object")
        if kind == "ERROR":
            says = str(found.get("message", ""))[:300]
            self._version = None
            if found.get("code") == GONE:
                raise ExpiredError(says)
            raise UnavailableError(f"the watch of {self._kind.name} failed: {says}")
        about = found.get("metadata")
        version = about.get("resourceVersion") if isinstance(about, dict) else None
        is_ours = found.get("kind") == self._kind.kind
        is_whole = kind == "BOOKMARK" or bool(isinstance(about, dict) and about.get("uid"))
        if (
            not version
            or not is_ours
            or not is_whole
            or found.get("apiVersion") != served.api_version
        ):
            self._version = None
            raise UnavailableError(f"the watch of {self._kind.name} sent what cannot be of it")
        self._version = str(version)
        if kind == "BOOKMARK":
            return Step(Heard.ALIVE)
        if kind in ("ADDED", "MODIFIED"):
            return Step(Heard.CHANGED, (found,))
        if kind == "DELETED":
            return Step(Heard.DELETED, (found,))
        self._version = None
        raise UnavailableError(f"the watch of {self._kind.name} sent an event of no known type")

"""Where a site's checkpoints go: a file, a git work tree, a retained topic; and its ledger.

Sinks are called from threads, the bus lives on the event loop: this is where the two meet.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, field_validator
from sqlalchemy import Engine

from interlock_guardrails.ledger.keys import load_keys
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.sinks import FileSink, GitSink, Sink
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings, check_topic
from interlock_tools.clock import Clock
from interlock_tools.errors import FactoryError, InvalidRequestError, UnavailableError

KEY_FILE = "ledger-key.pem"
CONNECT_S = 5.0  # for the broker to be there at the start
RETAINED_S = 2.0  # for the retained checkpoint to come, once the broker took the subscription
DEADLINE_S = 8.0  # for a checkpoint to be taken and to come back


class GitSinkSettings(BaseModel):
    """A work tree that exists, and the configured remote of it to push to, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    path: Path
    remote: str | None = None
    branch: str = "main"

    @field_validator("remote", "branch")
    @classmethod
    def _names_are_plain(cls, name: str | None) -> str | None:
        try:
            GitSink(Path(), name)
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None
        return name


class MqttSinkSettings(BaseModel):
    """A broker that keeps the newest checkpoint as a retained message.

    The broker's ACL should let nobody else publish to the topic. Each process adds its number to
    the client id, so that a command does not push the server off the bus.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mqtt: MqttSettings
    topic: str | None = None

    def topic_of(self, site_id: str) -> str:
        """The topic: the one that was set, or one named after the site.

        Raises:
            InvalidRequestError: a broker would not take the topic.
        """
        topic = self.topic or f"interlock/v1/{site_id}/ledger/checkpoint"
        check_topic(topic)
        return topic


class SinkSettings(BaseModel):
    """The places outside the store; the file is always there, in the data folder by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path = Path("checkpoints.jsonl")
    git: GitSinkSettings | None = None
    mqtt: MqttSinkSettings | None = None


class MqttCheckpointSink:
    """A retained topic; a sink while its context is entered.

    A checkpoint counts as kept once the broker has taken it and has also given it back to us: an
    acknowledgement alone does not prove that an ACL let it through.
    """

    def __init__(
        self,
        settings: MqttSettings,
        topic: str,
        clock: Clock,
        *,
        connect_s: float = CONNECT_S,
        retained_s: float = RETAINED_S,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.name = f"mqtt {topic}"
        self._topic, self._deadline_s = topic, deadline_s
        self._connect_s, self._retained_s = connect_s, retained_s
        own = settings.model_copy(update={"client_id": f"{settings.client_id}-{os.getpid()}"})
        self._bus = MqttBus(own, clock, self._hear, subscriptions=[(topic, 1)])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._retained: str | None = None
        self._unread: str | None = "the bus was never asked"
        self._heard = asyncio.Event()
        self._last: bytes | None = None

    async def __aenter__(self) -> Self:
        """Connect and fetch what is retained; a broker that is not there is no error yet."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        await self._bus.__aenter__()
        try:
            await self._bus.wait_connected(self._connect_s)
            self._unread = None
        except UnavailableError as error:
            self._unread = str(error)
        if self._bus.refused_filters:
            self._unread = "the broker refused the subscription"
        if self._unread is None:
            with anyio.move_on_after(self._retained_s):
                await self._heard.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave the bus; from here on every checkpoint fails."""
        self._loop = None
        await self._bus.__aexit__(kind, error, tb)

    def publish(self, note: str) -> None:
        """Retain the checkpoint; to be called from any thread but the event loop's.

        Raises:
            OSError: it was not taken and given back in time.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            raise OSError("the bus is closed")
        if threading.get_ident() == self._thread:
            raise OSError("called in the thread of the event loop, which it would hold up")
        sending = self._send(note.encode())
        try:
            sent = asyncio.run_coroutine_threadsafe(sending, loop)
        except RuntimeError:
            sending.close()
            raise OSError("the bus is closed") from None
        try:
            sent.result(self._deadline_s + 1.0)  # it ends by itself, unless the loop is stuck
        except FactoryError as error:
            raise OSError(str(error)) from error
        except TimeoutError:
            sent.cancel()
            raise OSError(
                f"the broker did not give the checkpoint back in {self._deadline_s:g} s"
            ) from None
        except asyncio.CancelledError:
            raise OSError("the bus was closed meanwhile") from None

    def kept(self) -> Sequence[str]:
        """What was retained when the context was entered.

        Raises:
            OSError: no broker told us.
        """
        if self._unread is not None:
            raise OSError(self._unread)
        return [] if self._retained is None else [self._retained]

    def _send(self, payload: bytes) -> Coroutine[Any, Any, None]:
        async def send() -> None:
            with anyio.fail_after(self._deadline_s):
                self._last = None
                await self._bus.publish(self._topic, payload, qos=1, retain=True)
                while self._last != payload:
                    self._heard.clear()
                    await self._heard.wait()

        return send()

    def _hear(self, message: Message) -> None:
        """In the connection's thread."""
        if (loop := self._loop) is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._take, message)

    def _take(self, message: Message) -> None:
        if message.retained and self._retained is None:
            self._retained = message.payload.decode(errors="replace")
        self._last = message.payload
        self._heard.set()


@asynccontextmanager
async def checkpoint_sinks(
    settings: SinkSettings, *, site_id: str, data_dir: Path, clock: Clock
) -> AsyncIterator[tuple[Sink, ...]]:
    """The places that the settings name, ready while the context lasts.

    Raises:
        InvalidRequestError: a name, a topic or a secret in the settings is not usable.
    """
    async with AsyncExitStack() as stack:
        sinks: list[Sink] = [FileSink(data_dir / settings.file)]
        if (git := settings.git) is not None:
            sinks.append(GitSink(git.path, git.remote, git.branch))
        if (mqtt := settings.mqtt) is not None:
            sink = MqttCheckpointSink(mqtt.mqtt, mqtt.topic_of(site_id), clock)
            sinks.append(await stack.enter_async_context(sink))
        yield tuple(sinks)


@asynccontextmanager
async def open_ledger(
    engine: Engine,
    settings: SinkSettings,
    *,
    site_id: str,
    data_dir: Path,
    clock: Clock,
    overruled_by: str | None = None,
) -> AsyncIterator[Ledger]:
    """The ledger of a site with its keys and its outside places; opened and closed off the loop.

    Args:
        engine: the store, with its tables.
        settings: the outside places.
        site_id: the site, which gives the log its origin.
        data_dir: the folder of the key.
        clock: gives the moment of each record.
        overruled_by: the person who says that this store is right although an outside checkpoint
            contradicts it, or that a new key takes the place of a lost one.

    Raises:
        ConflictError: the store is not the one that was published, or the log's key is not there.
        InvalidRequestError: a key file or a setting is not usable.
    """
    origin, key_path = f"interlock/{site_id}", data_dir / KEY_FILE

    def begin(sinks: tuple[Sink, ...]) -> Ledger:
        load = partial(load_keys, origin, key_path, engine)
        keys = load(replace_lost=overruled_by is not None)
        return Ledger(
            engine,
            keys.signer,
            origin=origin,
            clock=clock,
            sinks=sinks,
            former_keys=keys.former,
            renew=lambda: load().signer,
            overruled_by=overruled_by,
        )

    places = checkpoint_sinks(settings, site_id=site_id, data_dir=data_dir, clock=clock)
    async with places as sinks:
        ledger = await anyio.to_thread.run_sync(begin, sinks)
        try:
            yield ledger
        finally:
            with anyio.CancelScope(
                shield=True
            ):  # bounded: it writes what waits, and each sink ends
                await anyio.to_thread.run_sync(ledger.close)

"""Many nodes through their agents: read at once, each for itself; a node that lies is named.

A node that does not answer, or says what cannot be, costs the others nothing. Its last believed
reading stays, with its age, until it is too old to be used.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from interlock_servers.devices import COMPONENT, schema
from interlock_servers.devices.belief import (
    STRIKES,
    Seen,
    contradiction,
    contradiction_with_before,
    strikes_against,
)
from interlock_servers.devices.models import LimitOutcome
from interlock_servers.devices.node_models import Cap, HeldCap, NodeAnswer
from interlock_servers.devices.nodes import NodeSettings, NodesSettings
from interlock_servers.devices.schema import message
from interlock_servers.devices.wire import read_held, read_node, read_result, write_cap
from interlock_tools.clock import Clock
from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    FactoryError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)

MOST_ANSWER_BYTES = 1_048_576
EARLIER_S = 60.0  # how far back a reading may be to be compared with
_OPTIONS = (
    ("grpc.max_receive_message_length", MOST_ANSWER_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class NodeState(StrEnum):
    """How far a node may be used."""

    FRESH = "fresh"
    STALE = "stale"  # it was believed, and that is too long ago
    NEVER = "never"  # nothing was ever believed of it


@dataclass(frozen=True, slots=True)
class NodeView:
    """What is known of one node.

    Attributes:
        answer: the last that was believed.
        observed_at: when its devices were read, by our clock.
        why: why the last look gave nothing new; empty where it did.
        is_lying: whether its last answer was there and could not be so.
        earlier: what was believed some time before `answer`, at most about a minute and a look.
    """

    node_id: str
    state: NodeState
    answer: NodeAnswer | None
    observed_at: datetime | None
    why: str
    is_lying: bool
    earlier: NodeAnswer | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether it may be used."""
        return self.state is NodeState.FRESH


class NodeClient:
    """The agents of a site, each on a connection of its own that comes back by itself."""

    def __init__(self, settings: NodesSettings, clock: Clock, *, reads_only: bool = False) -> None:
        """Describe the client.

        Args:
            settings: where the agents are.
            clock: of ages.
            reads_only: refuse everything that changes a limit: another one caps these GPUs.
        """
        self.clock = clock
        self._reads_only = reads_only
        self._settings = settings
        self._nodes = {node.node_id: _Node(node, settings, clock) for node in settings.nodes}

    async def __aenter__(self) -> Self:
        """Open the channels; who is there shows with the first read.

        Raises:
            InvalidRequestError: a certificate or a token cannot be read.
        """
        for node in self._nodes.values():
            node.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    @property
    def controller_id(self) -> str:
        """Who caps through us."""
        return self._settings.controller_id

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Every node that is configured."""
        return tuple(self._nodes)

    # ── reads ─────────────────────────────────────────────────────────────────────────────────

    async def read(self, node_ids: Sequence[str] | None = None) -> dict[str, NodeView]:
        """Read nodes, all at the same time; by default every one.

        It never raises for a node: what is wrong stands in its view.

        Raises:
            NotFoundError: a node that is not configured.
        """
        asked = self.node_ids if node_ids is None else tuple(dict.fromkeys(node_ids))
        nodes = [self._node(node_id) for node_id in asked]
        await asyncio.gather(*(node.look() for node in nodes))
        self._name_twins()
        return {node.node_id: node.view() for node in nodes}

    def views(self) -> dict[str, NodeView]:
        """What is known now, without asking anybody."""
        return {node_id: node.view() for node_id, node in self._nodes.items()}

    # ── writes ────────────────────────────────────────────────────────────────────────────────

    async def set_limits(
        self, caps: Mapping[str, Sequence[Cap]], *, change_id: str
    ) -> dict[str, tuple[LimitOutcome, ...] | FactoryError]:
        """Set limits on nodes at the same time; each is sent once, never again.

        Args:
            caps: by node; see `Cap`: each ends by itself at its safe value.
            change_id: the change of the guard that allows it.

        Returns:
            By node, what became of each limit, or why the node gave no answer: after an
            UnavailableError its state is unknown until it is read again.

        Raises:
            InvalidRequestError: nothing is asked for, or no change is named; nothing was sent.
            NotFoundError: a node that is not configured; nothing was sent.
        """
        if not caps or not all(caps.values()):
            raise InvalidRequestError("no GPU is named; an empty request is never sent")
        if not change_id:
            raise InvalidRequestError("no change is named that allows it; nothing was sent")
        self._check_may_write()
        nodes = [self._node(node_id) for node_id in caps]
        answers = await asyncio.gather(*(n.set_limits(caps[n.node_id], change_id) for n in nodes))
        return {node.node_id: answer for node, answer in zip(nodes, answers, strict=True)}

    async def renew(
        self, keys: Mapping[str, Sequence[str]], *, expires_in_s: float
    ) -> dict[str, tuple[HeldCap, ...] | FactoryError]:
        """Let the caps on these GPUs last longer: our sign of life.

        Returns:
            By node, the caps that were renewed. A GPU that is missing holds none of ours any more:
            its cap is over, or was never set.

        Raises:
            InvalidRequestError: this client only reads.
        """
        self._check_may_write()
        nodes = [self._node(node_id) for node_id in keys]
        answers = await asyncio.gather(*(n.renew(keys[n.node_id], expires_in_s) for n in nodes))
        return {node.node_id: answer for node, answer in zip(nodes, answers, strict=True)}

    async def end(
        self, keys: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[LimitOutcome, ...] | FactoryError]:
        """Bring GPUs to their safe values now.

        Returns:
            By node, what became of each limit, or why the node gave no answer.

        Raises:
            InvalidRequestError: this client only reads.
        """
        self._check_may_write()
        nodes = [self._node(node_id) for node_id in keys]
        answers = await asyncio.gather(*(node.end(keys[node.node_id]) for node in nodes))
        return {node.node_id: answer for node, answer in zip(nodes, answers, strict=True)}

    # ── shared ────────────────────────────────────────────────────────────────────────────────

    def _check_may_write(self) -> None:
        if self._reads_only:
            raise InvalidRequestError(
                "these nodes are only read here, because another one limits their GPUs; "
                "nothing was sent"
            )

    def _node(self, node_id: str) -> "_Node":
        if node_id not in self._nodes:
            raise NotFoundError(f"no agent is configured for node {node_id!r}")
        return self._nodes[node_id]

    def _name_twins(self) -> None:
        """Two nodes that show one GPU: which of them has it cannot be told, so neither is used."""
        owners: dict[str, list[_Node]] = {}
        for node in self._nodes.values():
            for key in node.gpu_keys():
                owners.setdefault(key, []).append(node)
        for key, nodes in owners.items():
            for node in nodes if len(nodes) > 1 else ():
                others = ", ".join(n.node_id for n in nodes if n is not node)
                node.disbelieve(f"GPU {key} is shown by {others} too")


class _Node:
    """One agent: its channel, and what was believed of it."""

    def __init__(self, settings: NodeSettings, shared: NodesSettings, clock: Clock) -> None:
        self.node_id = settings.node_id
        self._settings = settings
        self._shared = shared
        self._clock = clock
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._seen: Seen | None = None
        self._believed: NodeAnswer | None = None
        self._earlier: tuple[NodeAnswer, datetime] | None = None
        self._observed_at: datetime | None = None
        self._why = "it was not read yet"
        self._is_lying = False

    def open(self) -> None:
        """Make the channel; it connects at the first call, and again by itself."""
        credentials = self._settings.credentials()
        self._settings.metadata()  # a token that is not there is told now
        address = self._settings.address
        if credentials is None:
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        else:
            channel = grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
        self._channel = channel
        self._calls = {
            name: channel.unary_unary(
                schema.path_of(name),
                request_serializer=schema.message_class(request).SerializeToString,
                response_deserializer=schema.message_class(response).FromString,
            )
            for name, (request, response) in schema.METHODS.items()
        }

    async def close(self) -> None:
        """Let the channel go."""
        if self._channel is not None:
            await self._channel.close()

    def gpu_keys(self) -> tuple[str, ...]:
        """The GPUs that it shows now; none where it is not fresh."""
        if self._believed is None or self.view().state is not NodeState.FRESH:
            return ()
        return tuple(gpu.identity.key for gpu in self._believed.gpus)

    def view(self) -> NodeView:
        """What is known of it now."""
        state = NodeState.NEVER
        if self._observed_at is not None:
            age_s = (self._clock.now() - self._observed_at).total_seconds()
            state = NodeState.FRESH if age_s <= self._shared.fresh_s else NodeState.STALE
            if self._is_lying:
                state = NodeState.STALE
        return NodeView(
            self.node_id,
            state,
            self._believed,
            self._observed_at,
            self._why,
            self._is_lying,
            None if self._earlier is None else self._earlier[0],
        )

    def disbelieve(self, why: str) -> None:
        """Use it no more, until it says something that can be so."""
        self._why, self._is_lying = why, True

    async def look(self) -> None:
        """Ask it once; what it says replaces what was known, if it can be so."""
        try:
            sent = await self._call("ReadNode", message("ReadNodeRequest"))
        except FactoryError as error:
            self._why, self._is_lying = str(error), False
            return
        try:
            answer = read_node(sent, self._clock.now())
        except (ValueError, OverflowError) as error:
            self.disbelieve(f"it sent what cannot be read: {error}"[:300])
            return
        why = contradiction(answer, self.node_id)
        if why is None and self._seen is not None:
            why = contradiction_with_before(answer, self._seen)
        if why is not None:
            self.disbelieve(why[:300])
            return
        strikes = strikes_against(answer, self._seen)
        self._seen = Seen(answer, strikes)
        worst = max(strikes, key=lambda key: strikes[key], default=None)
        if worst is not None and strikes[worst] >= STRIKES:
            self.disbelieve(f"GPU {worst}: its energy counter contradicts the power that it shows")
            return
        self._keep_earlier(answer)
        self._is_lying, self._why, self._believed = False, answer.failure, answer
        if answer.age_s is not None:
            self._observed_at = self._clock.now() - timedelta(seconds=answer.age_s)

    def _keep_earlier(self, answer: NodeAnswer) -> None:
        """Keep what was believed before, to compare with; what is too long ago gives way."""
        was, at = self._believed, self._observed_at
        if was is None or at is None or was.boot_id != answer.boot_id:
            self._earlier = None
        elif was.sequence != answer.sequence:
            oldest = self._clock.now() - timedelta(seconds=EARLIER_S)
            if self._earlier is None or self._earlier[1] < oldest:
                self._earlier = (was, at)

    async def set_limits(
        self, caps: Sequence[Cap], change_id: str
    ) -> tuple[LimitOutcome, ...] | FactoryError:
        """Send limits once."""
        request = message(
            "SetLimitsRequest",
            controller_id=self._shared.controller_id,
            change_id=change_id,
            caps=[write_cap(cap) for cap in caps],
        )
        return await self._outcomes("SetLimits", request, [cap.key for cap in caps])

    async def end(self, keys: Sequence[str]) -> tuple[LimitOutcome, ...] | FactoryError:
        """Send the end of caps once."""
        request = message(
            "EndCapsRequest", controller_id=self._shared.controller_id, keys=list(keys)
        )
        return await self._outcomes("EndCaps", request, list(keys))

    async def renew(
        self, keys: Sequence[str], expires_in_s: float
    ) -> tuple[HeldCap, ...] | FactoryError:
        """Send our sign of life."""
        request = message(
            "RenewCapsRequest",
            controller_id=self._shared.controller_id,
            keys=list(keys),
            expires_in_s=expires_in_s,
        )
        try:
            answer = await self._call("RenewCaps", request)
            return tuple(read_held(cap) for cap in answer.held)
        except FactoryError as error:
            return error
        except ValueError as error:
            return _unreadable(self.node_id, error)

    async def _outcomes(
        self, name: str, request: Any, asked: list[str]
    ) -> tuple[LimitOutcome, ...] | FactoryError:
        """The results, one for each GPU asked; anything else is a failure that says so."""
        try:
            answer = await self._call(name, request)
            outcomes = tuple(read_result(each) for each in answer.results)
        except FactoryError as error:
            return error
        except ValueError as error:
            return _unreadable(self.node_id, error)
        if [outcome.key for outcome in outcomes] != asked:
            return ComponentError(
                COMPONENT, "WRONG_RESULTS", f"{self.node_id} told of other GPUs: read back"
            )
        return outcomes

    async def _call(self, name: str, request: Any) -> Any:
        """One call, once.

        Raises:
            FactoryError: it failed; after a write an UnavailableError leaves the state unknown.
        """
        call = self._calls.get(name)
        if call is None:
            raise UnavailableError(f"{self.node_id}: the connection is not open")
        writes = name not in schema.READS
        deadline_s = self._settings.deadline_s if writes else self._shared.deadline_s
        try:
            return await call(request, timeout=deadline_s, metadata=self._settings.metadata())
        except grpc.aio.AioRpcError as error:
            raise _failure(self.node_id, error, writes=writes) from None


def _failure(node_id: str, error: grpc.aio.AioRpcError, *, writes: bool) -> FactoryError:
    """A gRPC failure as one of ours."""
    says = " ".join((error.details() or "").split())[:300]
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequestError(f"{node_id}: {says}")
        case grpc.StatusCode.FAILED_PRECONDITION:
            return ConflictError(f"{node_id}: {says}")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return ComponentError(
                COMPONENT, error.code().name, f"{node_id} does not let us: {says}"
            )
        case (
            grpc.StatusCode.UNAVAILABLE
            | grpc.StatusCode.DEADLINE_EXCEEDED
            | grpc.StatusCode.CANCELLED
        ):
            state = "; whether it was done is unknown: read back" if writes else ""
            return UnavailableError(f"{node_id} does not answer ({error.code().name}){state}")
        case code:
            return ComponentError(COMPONENT, code.name, f"{node_id}: {says}")


def _unreadable(node_id: str, error: ValueError) -> ComponentError:
    why = f"{node_id} answered what cannot be read ({error}): read back"
    return ComponentError(COMPONENT, "UNREADABLE", why[:300])

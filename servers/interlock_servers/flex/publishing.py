"""Interlock as a Grid Event Publisher: its key, its envelope, and its one topic on the bus.

The connection that listens cannot publish, and this one does not listen. A message is signed, sent
once and never again; that a broker took it says nothing about who obeys it.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.models import RejectedError
from interlock_servers.flex.settings import PublishSettings
from interlock_servers.flex.signatures import SignatureKey, algorithm_of, check_strength
from interlock_servers.transports.mqtt import MqttBus
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError, UnavailableError
from interlock_tools.telemetry import current_traceparent

QOS: Final = 1
FOR_EVER_S: Final = 3600.0
_PROBE: Final = b'{"probe":"is this key ours"}'


class TargetPublisher:
    """Signs load targets as one ISV and gives them to the bus."""

    def __init__(self, settings: PublishSettings, client: FlexClient, clock: Clock) -> None:
        """Read the signing key; nothing connects before `run`.

        Raises:
            InvalidRequestError: the key, or a secret of the connection, cannot be used.
        """
        settings.mqtt.check_secrets()
        self.settings = settings
        self._client = client
        self._clock = clock
        self._key = signing_key(settings)
        prefix = "" if client.settings.cpc_id is None else f"cpc/{client.settings.cpc_id}/"
        self._topic = f"{prefix}grid/v1/isv/{settings.identifier}/loadtarget/set"
        self._bus = MqttBus(settings.mqtt, clock, lambda _: None, subscriptions=())
        self.sent = 0  # messages that a broker has, or may have

    async def run(self) -> None:
        """Keep the connection until cancelled: where changes are carried out, and nowhere else."""
        async with self._bus:
            while True:
                await self._clock.sleep(FOR_EVER_S)

    def why_not(self) -> str | None:
        """Why a reader of our settings would not believe what we sign; None where it would.

        It asks the published keys themselves: a key that was rotated away, or not published yet,
        and keys that cannot be had, are found before anything is sent.
        """
        try:
            self._client.verified(self._signed(_PROBE), self.settings.source)
        except RejectedError as error:
            return f"{error.reason}: {error.why}"
        return None

    async def send(self, targets: Sequence[Mapping[str, Any]], change_id: str) -> str:
        """Sign these targets and publish them once; gives their correlation id.

        Raises:
            UnavailableError: our signature would not be believed, so nothing was sent; or no broker
                took it, and it may have been sent.
        """
        if (why := self.why_not()) is not None:
            raise UnavailableError(f"nothing was sent, nobody would believe it: {why}")
        correlation_id = correlation_of(self.settings.source, change_id)
        payload = json.dumps({"targets": list(targets)}, separators=(",", ":")).encode()
        event = {
            "specversion": "1.0.2",
            "id": _uuid(self.settings.source, change_id, "event"),
            "source": self.settings.source,
            "type": "grid.loadtarget.set.v1",
            "subject": "loadtarget",
            "time": iso(self._clock.now()),
            "datacontenttype": "application/json",
            "traceparent": current_traceparent() or _new_traceparent(),
            "correlationid": correlation_id,
            "data": self._signed(payload),
        }
        self.sent += 1
        await self._bus.publish(self._topic, json.dumps(event).encode(), qos=QOS, retain=False)
        return correlation_id

    def _signed(self, payload: bytes) -> str:
        algorithm = algorithm_of(self._key)
        header = {"alg": algorithm, "kid": self.settings.kid}
        return jws.serialize_compact(header, payload, self._key, algorithms=[algorithm])


def signing_key(settings: PublishSettings) -> SignatureKey:
    """The private key in the file that the settings name: a JWK, or PEM.

    Raises:
        InvalidRequestError: it cannot be read, is not private, or is not fit to sign with.
    """
    path = settings.key_file
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"the signing key {path} cannot be read: {error}") from error
    key = None
    for kind in (ECKey, RSAKey):
        try:
            key = kind.import_key(json.loads(raw) if raw.lstrip().startswith(b"{") else raw)
            break
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    if key is None or not key.is_private:
        raise InvalidRequestError(f"{path} holds no private key for ES256 or RS256")
    check_strength(key, settings.kid)
    return key


def correlation_of(source: str, change_id: str) -> str:
    """The correlation id of what a change sends: the same in every process, of no other change."""
    return _uuid(source, change_id, "correlation")


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _uuid(source: str, change_id: str, what: str) -> str:
    """A name in the form of a UUIDv4, which the contract asks for."""
    drawn = hashlib.sha256(f"{source}\n{what}\n{change_id}".encode()).digest()
    return str(uuid.UUID(bytes=drawn[:16], version=4))


def _new_traceparent() -> str:
    return f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"

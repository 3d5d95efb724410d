"""Where the bus is, who we are on it, and which topics every broker understands."""

import re
import ssl
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from interlock_servers.transports.mqtt_token import (
    OAuthSettings,
    Token,
    fetch_token,
    is_loopback,
    read_secret,
)
from interlock_tools.errors import InvalidRequestError

MAX_TOPIC_BYTES = 65_535  # the length field of MQTT

# A NATS broker rewrites dots and cuts a client that publishes a space or an empty level.
_UNSAFE = re.compile(r"[\s.\x00-\x1f\x7f]")


class BrokerAddress(NamedTuple):
    """Where a broker listens, and whether the way to it is encrypted."""

    host: str
    port: int
    tls: bool

    @property
    def loopback(self) -> bool:
        """Whether it is this machine, so that nothing is sent over a network."""
        return is_loopback(self.host)


def parse_broker(url: str) -> BrokerAddress:
    """The address in `mqtt://host:port` or `mqtts://host:port`.

    Raises:
        InvalidRequestError: it is no such URL; the text never repeats credentials in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidRequestError(f"the broker URL cannot be read: {error}") from error
    if "@" in parts.netloc:
        raise InvalidRequestError(
            "a broker URL must hold no credentials; name password_env or password_file instead"
        )
    if parts.scheme not in {"mqtt", "mqtts"}:
        raise InvalidRequestError(f"broker {url!r} must begin with mqtt:// or mqtts://")
    if not parts.hostname or not port:
        raise InvalidRequestError(
            f"broker {url!r} must name a host and a port, as in mqtt://h:1883"
        )
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise InvalidRequestError(f"broker {url!r} must end after its port")
    return BrokerAddress(parts.hostname, port, parts.scheme == "mqtts")


def check_topic(topic: str) -> None:
    """Refuse a topic that a NATS broker would rewrite, or cut the client for.

    Raises:
        InvalidRequestError: it says what is wrong with the topic.
    """
    if "+" in topic or "#" in topic:
        raise InvalidRequestError(f"topic {topic!r} holds a wildcard; one publishes to one topic")
    _check_levels(topic)


def check_filter(topic_filter: str) -> None:
    """Refuse a filter that no broker, or not every broker, understands.

    Raises:
        InvalidRequestError: it says what is wrong with the filter.
    """
    *inner, last = topic_filter.split("/")
    if any("#" in level for level in inner) or ("#" in last and last != "#"):
        raise InvalidRequestError(f"filter {topic_filter!r} may hold # only as its last level")
    if any("+" in level and level != "+" for level in (*inner, last)):
        raise InvalidRequestError(f"filter {topic_filter!r} may hold + only as a whole level")
    _check_levels(topic_filter)


def check_qos(qos: int) -> None:
    """Refuse a QoS that MQTT does not have.

    Raises:
        InvalidRequestError: it is not 0, 1 or 2.
    """
    if qos not in {0, 1, 2}:
        raise InvalidRequestError(f"QoS is 0, 1 or 2, not {qos!r}")


def _check_levels(topic: str) -> None:
    if unsafe := _UNSAFE.search(topic):
        raise InvalidRequestError(
            f"topic {topic!r} holds {unsafe.group()!r}; spaces, dots and control characters "
            "do not survive a NATS broker"
        )
    if "" in topic.split("/"):
        raise InvalidRequestError(f"topic {topic!r} holds an empty level")
    try:
        size_bytes = len(topic.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"topic {topic!r} is not valid Unicode") from error
    if size_bytes > MAX_TOPIC_BYTES:
        raise InvalidRequestError(f"a topic may have {MAX_TOPIC_BYTES} bytes, not {size_bytes}")


class _TlsSocket(ssl.SSLSocket):
    """One that closes itself when the handshake fails; paho leaves it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class MqttSettings(BaseModel):
    """Where the bus is and who we are on it. A secret is named, never held.

    `password_env` and `password_file` are read at every connection; `oauth` is an issuer to ask. A
    broker looks at a token only at connect, so one that is a JWT is renewed `renew_before_s` before
    it ends, by connecting again once a fresher one is there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    brokers: tuple[str, ...] = Field(min_length=1)
    client_id: str = Field(min_length=1, max_length=128)
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = Field(default=30, ge=1, le=3600)
    oauth: OAuthSettings | None = None
    renew_before_s: float = Field(default=60.0, gt=0, le=3600)

    @field_validator("brokers")
    @classmethod
    def _brokers_are_urls(cls, brokers: tuple[str, ...]) -> tuple[str, ...]:
        for url in brokers:
            try:
                parse_broker(url)
            except InvalidRequestError as error:
                raise ValueError(str(error)) from None
        return brokers

    @model_validator(mode="after")
    def _secrets_travel_encrypted(self) -> Self:
        if self.password_env and self.password_file:
            raise ValueError("name password_env or password_file, not both")
        if self.oauth and (self.password_env or self.password_file):
            raise ValueError("the token comes from oauth or from password_env/_file, not both")
        if self.has_password and self.username is None:
            raise ValueError("MQTT 3.1.1 has no password without a username (DSX: oauthtoken)")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file")
        for url, address in zip(self.brokers, self.addresses, strict=True):
            if self.has_password and not address.tls and not address.loopback:
                raise ValueError(
                    f"a password or token is never sent in the clear: {url} must be mqtts://"
                )
            if self.cert_file and not address.tls:
                raise ValueError(f"a client certificate needs TLS: {url} must be mqtts://")
        return self

    @property
    def addresses(self) -> tuple[BrokerAddress, ...]:
        """The brokers in their order of preference."""
        return tuple(parse_broker(url) for url in self.brokers)

    @property
    def has_password(self) -> bool:
        """Whether a password or token belongs to the connection."""
        return bool(self.password_env or self.password_file or self.oauth)

    def read_password(self) -> str | None:
        """The secret of this moment; None where none is named, or where an issuer gives it.

        Raises:
            InvalidRequestError: the variable or the file is not there, or is empty.
        """
        return read_secret(self.password_env, self.password_file)

    def read_token(self, now: datetime) -> Token | None:
        """The secret of this moment with its end, from the issuer where there is one; it may block.

        Raises:
            InvalidRequestError: the variable or the file is not there, or is empty.
            UnavailableError: the issuer gives none.
        """
        if self.oauth is not None:
            return fetch_token(self.oauth, now)
        secret = self.read_password()
        return None if secret is None else Token.of(secret)

    def check_secrets(self) -> None:
        """Look for every secret that is named; none is sent anywhere.

        Raises:
            InvalidRequestError: one is not there.
        """
        self.read_password()
        if self.oauth is not None:
            self.oauth.read_secret()

    def seconds_between_looks(self, asking_s: float) -> float:
        """How long to wait between two looks for a fresher token: an issuer is not pestered."""
        return asking_s if self.oauth is not None else 0.0

    def tls_context(self) -> ssl.SSLContext:
        """The trust and the identity for TLS, read from the files now.

        Raises:
            InvalidRequestError: a file is not there or holds something else.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.sslsocket_class = _TlsSocket
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            raise InvalidRequestError(f"ca_file, cert_file or key_file: {error}") from error
        return context

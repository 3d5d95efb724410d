"""MQTT 3.1.1 as bytes, sent without an interpreter in the way."""

import json
import socket

from interlock_servers.transports.mqtt_settings import parse_broker

PATIENCE_S = 60.0
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05flood"
_CONNACK = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"


class Sender:
    """A connection that only sends; it is closed politely on leaving."""

    def __init__(self, url: str) -> None:
        address = parse_broker(url)
        self._wire = socket.create_connection((address.host, address.port), timeout=PATIENCE_S)

    def __enter__(self) -> "Sender":
        """Connect.

        Raises:
            RuntimeError: the broker does not want us.
        """
        self._wire.sendall(_CONNECT)
        if self._wire.recv(4) != _CONNACK:
            raise RuntimeError("the broker did not accept the sender")
        return self

    def __exit__(self, *_: object) -> None:
        """Take leave."""
        with self._wire:
            self._wire.sendall(_DISCONNECT)

    def send(self, packets: bytes) -> None:
        """Send them; returns once the broker took them off us."""
        self._wire.sendall(packets)


def send(url: str, packets: bytes) -> None:
    """Send packets over a connection of their own."""
    with Sender(url) as sender:
        sender.send(packets)


def packet(topic: str, document: dict[str, object], *, retained: bool = False) -> bytes:
    """One PUBLISH at QoS 0."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + json.dumps(document).encode()
    length, left = b"", len(body)
    while True:
        left, low = divmod(left, 128)
        length += bytes([low | 0x80 if left else low])
        if not left:
            return (b"\x31" if retained else b"\x30") + length + body

"""A broker that answers as a script says, for answers that a real one cannot be made to give."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class ScriptedBroker:
    """What it says, and what it was sent. It speaks just enough MQTT 3.1.1 for one client."""

    connack: int | None = 0
    suback: Sequence[int] = (0,)
    puback: bool = True
    pong: bool = True
    on_subscribe: bytes = b""
    tls: ssl.SSLContext | None = None
    url: str = ""
    connects: list[bytes] = field(default_factory=list)
    subscribes: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it leaves."""
        self.writers.append(writer)
        try:
            while True:
                first, body = await _packet(reader)
                answer = self._answer(first, body)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def _answer(self, first: int, body: bytes) -> bytes | None:
        match first >> 4:
            case 1:
                self.connects.append(body)
                return b"" if self.connack is None else bytes((0x20, 2, 0, self.connack))
            case 3 if first & 0x06 and self.puback:
                at = 2 + int.from_bytes(body[:2])
                return b"\x40\x02" + body[at : at + 2]
            case 8:
                self.subscribes.append(body)
                codes = bytes(self.suback)
                return bytes((0x90, 2 + len(codes))) + body[:2] + codes + self.on_subscribe
            case 12 if self.pong:
                return b"\xd0\x00"
            case 14:
                return None
            case _:
                return b""


@asynccontextmanager
async def scripted(broker: ScriptedBroker) -> AsyncIterator[ScriptedBroker]:
    """Let it listen on a free loopback port while the context lasts."""
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0, ssl=broker.tls)
    scheme = "mqtts" if broker.tls else "mqtt"
    broker.url = f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield broker
    finally:
        server.close()
        for writer in broker.writers:
            writer.close()
        await server.wait_closed()


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return first, await reader.readexactly(length)

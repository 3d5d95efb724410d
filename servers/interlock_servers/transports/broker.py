"""A broker of our own on a free loopback port, for the demo, the evals and the tests."""

import argparse
import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, get_args

import anyio
from anyio.abc import Process

from interlock_tools.errors import InvalidRequestError, UnavailableError

Kind = Literal["mosquitto", "nats", "amqtt"]

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 3.0
ATTEMPTS = 3  # a port that was free can be taken before the broker binds it

_CONNECT = b"\x10\x15\x00\x04MQTT\x04\x02\x00\x0a\x00\x09readiness"
_CONNACK = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"


def find_server(name: str) -> str | None:
    """The path of an installed server; Debian keeps them in /usr/sbin, outside a user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin")


def installed_kinds() -> tuple[Kind, ...]:
    """The brokers that can be started here, in order of preference; amqtt always can."""
    kinds: list[Kind] = []
    if find_server("mosquitto"):
        kinds.append("mosquitto")
    if find_server("nats-server"):
        kinds.append("nats")
    return (*kinds, "amqtt")


@asynccontextmanager
async def local_broker(
    prefer: Kind | None = None, *, port: int | None = None
) -> AsyncIterator[str]:
    """Run a broker and give its `mqtt://127.0.0.1:port`; it ends with the context.

    Args:
        prefer: the broker to run; by default the first that is installed.
        port: the port to listen on; by default a free one.

    Raises:
        InvalidRequestError: the broker asked for does not exist or is not installed.
        UnavailableError: it did not accept an MQTT connection in time; it was ended.
    """
    if prefer is not None and prefer not in get_args(Kind):
        raise InvalidRequestError(f"broker {prefer!r} is none of {', '.join(get_args(Kind))}")
    if prefer is not None and prefer not in installed_kinds():
        raise InvalidRequestError(f"broker {prefer!r} is not installed")
    kind = prefer or installed_kinds()[0]
    with tempfile.TemporaryDirectory(
        prefix="interlock-broker-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        process, bound = await _start(kind, folder, port)
        try:
            yield f"mqtt://127.0.0.1:{bound}"
        finally:
            await _stop(process)


async def _start(kind: Kind, folder: Path, port: int | None) -> tuple[Process, int]:
    attempts = 1 if port else ATTEMPTS
    for attempt in range(1, attempts + 1):
        chosen = port or _free_port()
        log_path = folder / f"{attempt}.log"
        with log_path.open("wb") as log_file:
            process = await anyio.open_process(
                _COMMANDS[kind](folder, chosen),
                stdin=subprocess.PIPE,
                stdout=log_file,
                stderr=log_file,
            )
        try:
            await _wait_until_accepting(process, chosen)
        except UnavailableError as error:
            await _stop(process)
            if attempt == attempts:
                tail = log_path.read_text(errors="replace")[-500:].strip()
                raise UnavailableError(f"{kind} on port {chosen}: {error}; {tail}") from error
        except BaseException:
            await _stop(process)
            raise
        else:
            return process, chosen
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _stop(process: Process) -> None:
    """End what we started, by asking first."""
    with anyio.CancelScope(shield=True):
        with suppress(ProcessLookupError):
            process.terminate()
        with anyio.move_on_after(STOP_TIMEOUT_S):
            await process.wait()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await process.aclose()


async def _wait_until_accepting(process: Process, port: int) -> None:
    try:
        with anyio.fail_after(START_TIMEOUT_S):
            while not await _accepts(port):
                if process.returncode is not None:
                    raise UnavailableError(f"it ended with {process.returncode}")
                await anyio.sleep(0.05)
    except TimeoutError:
        raise UnavailableError(f"no MQTT connection in {START_TIMEOUT_S:g} s") from None
    if process.returncode is not None:  # then another server answered on its port
        raise UnavailableError(f"it ended with {process.returncode}")


async def _accepts(port: int) -> bool:
    """Whether a server there completes an MQTT connection, which a bound port does not show."""
    try:
        stream = await anyio.connect_tcp("127.0.0.1", port)
    except OSError:
        return False
    async with stream:
        try:
            with anyio.fail_after(2.0):
                await stream.send(_CONNECT)
                answer = await stream.receive(4)
                await stream.send(_DISCONNECT)
        except (TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream):
            return False
    return answer == _CONNACK


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _mosquitto(folder: Path, port: int) -> list[str]:
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        "max_queued_messages 100000\nlog_dest stderr\nlog_type error\nlog_type warning\n"
    )
    return [find_server("mosquitto") or "mosquitto", "-c", str(config)]


def _nats(folder: Path, port: int) -> list[str]:
    config = folder / "nats.conf"
    store = json.dumps(str(folder / f"jetstream-{port}"))
    # MQTT needs a server name and JetStream; the NATS listener itself takes any free port.
    config.write_text(
        f'server_name: interlock_local\nlisten: "127.0.0.1:-1"\n'
        f'jetstream {{ store_dir: {store} }}\nmqtt {{ listen: "127.0.0.1:{port}" }}\n'
    )
    return [find_server("nats-server") or "nats-server", "-c", str(config)]


def _amqtt(_: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "interlock_servers.transports.broker", "--amqtt", str(port)]


_COMMANDS: dict[Kind, Callable[[Path, int], list[str]]] = {
    "mosquitto": _mosquitto,
    "nats": _nats,
    "amqtt": _amqtt,
}


async def _serve_amqtt(port: int) -> None:
    """Serve until standard input ends, so that the broker never outlives who started it."""
    # Slow to import, and only this child needs it; it ships no types.
    from amqtt.broker import Broker  # type: ignore[import-untyped]

    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )
    await broker.start()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()
    await broker.shutdown()


def main() -> None:
    """Run the embedded broker as a process of its own."""
    parser = argparse.ArgumentParser(description="The embedded MQTT broker, on loopback only.")
    parser.add_argument("--amqtt", type=int, required=True, metavar="PORT")
    asyncio.run(_serve_amqtt(parser.parse_args().amqtt))


if __name__ == "__main__":
    main()

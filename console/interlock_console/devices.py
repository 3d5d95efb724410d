"""GPUs without DPS: the agent of a node, what this machine has, and recording what it answers."""

import signal
import tomllib
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from pydantic import ValidationError
from rich.console import Console

from interlock_console.entry import console, fail, run
from interlock_tools.clock import Clock, SystemClock
from interlock_tools.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:  # loaded where a command needs them: a server over stdio must start at once
    from interlock_servers.devices.settings import AgentSettings

record = typer.Typer(help="Write what a machine answers as test data.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Give the command line these verbs."""
    app.command()(node)
    app.add_typer(record, name="record")


def node(
    config: Annotated[Path, typer.Option("--config", help="the settings of this agent")] = Path(
        "node.toml"
    ),
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="set limits that the guard asks for")
    ] = False,
) -> None:
    """Serve the GPUs of this host to Interlock, reads only unless told otherwise."""
    from interlock_servers.devices.settings import AgentSettings

    try:
        settings = AgentSettings.model_validate(tomllib.loads(config.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{config}: {error}")
    except ValidationError as error:
        fail(
            f"{config}: "
            + "; ".join(
                f"{'.'.join(str(part) for part in item['loc']) or 'the file'}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            )
        )
    run(_serve(settings, allow_writes=allow_writes))


@record.command()
def gpu(
    out: Annotated[Path, typer.Option("--out", help="the file to write; never over another")],
    way: Annotated[str, typer.Option("--way", help="nvml or amdsmi")] = "nvml",
    redact: Annotated[
        bool, typer.Option("--redact", help="without serial numbers and uuids")
    ] = False,
) -> None:
    """Read every GPU of this machine once and keep the answers. Sets nothing."""
    run(_record(out, way, redact=redact))


async def _serve(settings: "AgentSettings", *, allow_writes: bool) -> int:
    from interlock_servers.devices.agent import NodeAgent
    from interlock_servers.devices.bmc import HttpBmc
    from interlock_servers.devices.device import GpuHost
    from interlock_servers.devices.machine import WAYS
    from interlock_servers.devices.redfish import RedfishHost
    from interlock_servers.devices.server import NodeServer

    clock = SystemClock()

    def open_host() -> GpuHost:
        if settings.bmc is not None:
            return RedfishHost(clock, HttpBmc(settings.bmc))
        return WAYS[settings.way](clock)

    agent = NodeAgent(settings, clock, open_host, takes_writes=allow_writes)
    async with agent, NodeServer(agent, clock) as server:
        answer = agent.answer()
        mode = "reads, and sets limits" if allow_writes else "reads only"
        console.print(f"node {settings.node_id} at {server.address}: {mode}", markup=False)
        found = answer.failure or f"{answer.says}: {len(answer.gpus)} GPUs"
        console.print(found, markup=False, soft_wrap=True)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break
    return 0


async def _record(out: Path, way: str, *, redact: bool) -> int:
    from interlock_servers.devices import amd_smi, nvml
    from interlock_servers.devices.recorded import LibraryRecorder, Way, redacted, save
    from interlock_servers.devices.recorded import record as record_host

    clock = SystemClock()
    if way == Way.NVML:
        recorder = LibraryRecorder(nvml.load_library(), Way.NVML)
        host: nvml.NvmlHost | amd_smi.AmdSmiHost = nvml.NvmlHost(clock, recorder)
    elif way == Way.AMD_SMI:
        recorder = LibraryRecorder(amd_smi.load_library(), Way.AMD_SMI)
        host = amd_smi.AmdSmiHost(clock, recorder)
    else:
        raise InvalidRequestError(f"--way is nvml or amdsmi, not {way!r}")
    with host:
        if not host.devices():
            raise NotFoundError(f"{host.says} shows no GPU on this machine")
        document = record_host(host, recorder.calls, Way(way), clock.now().astimezone(UTC))
        count = len(host.devices())
    if redact:
        document = redacted(document)
    save(document, out)
    console.print(f"{count} GPUs, {len(document['calls'])} answers in {out}", markup=False)
    if not redact:
        console.print("serial numbers and uuids are in it; --redact leaves them out")
    return 0


def show_machine(out: Console, clock: Clock) -> bool:
    """Say what GPUs this machine has; False where one is there and cannot be reached."""
    from interlock_servers.devices.machine import examine

    states = examine(clock)
    for state in states:
        mark = "works" if state.gpus else "none here" if state.works else "does not work"
        out.print(f"{state.name:<10} {mark}", markup=False)
        for line in state.says:
            out.print(f"           {line}", markup=False, soft_wrap=True)
    return all(state.works for state in states)

"""The command `interlock`: run, serve, watch, decide, stop, verify."""

from pathlib import Path
from typing import Annotated

import typer

from interlock_console import (
    authority,
    decisions,
    devices,
    federation,
    ledger,
    logs,
    policy,
    running,
)
from interlock_console.demo.command import Story, run_demo
from interlock_console.entry import (
    DEFAULT_FILE,
    ChangeId,
    Config,
    Why,
    console,
    fail,
    run,
    settings_in,
)
from interlock_console.settlement import settlement
from interlock_console.telemetry import telemetry
from interlock_servers.surface.toolsets import Narrow, named_in
from interlock_servers.transports.broker import Kind
from interlock_tools.clock import SystemClock

app = typer.Typer(
    name="interlock",
    help="The operations layer of AI factories: MCP servers behind a guard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
approvals = typer.Typer(help="What waits for people, and voting on it.", no_args_is_help=True)
app.add_typer(approvals, name="approvals")
app.add_typer(ledger.app, name="ledger")
app.add_typer(policy.app, name="policy")
authority.add_to(app)
federation.add_to(app)
app.command()(settlement)
devices.add_to(app)

Toolsets = Annotated[
    str | None, typer.Option("--toolsets", help="only these components, such as maxlps,flex")
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="no tool that changes anything")]
NoDestructive = Annotated[
    bool, typer.Option("--no-destructive", help="no tool that interrupts work")
]
FactoryFile = Annotated[
    Path | None, typer.Option("--factory", help="join the factory of this address file")
]


@app.command()
def demo(
    scenario: Annotated[Story, typer.Option(help="what happens")] = Story.GRID_CUT,
    approve_myself: Annotated[
        bool, typer.Option("--approve-myself", help="ask at this terminal; in real time")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="CSV of requests that drives the serving load")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="also write the report here")] = None,
    broker: Annotated[
        Kind | None, typer.Option(help="the MQTT broker; by default the first installed")
    ] = None,
) -> None:
    """A simulated hall, one story, every part real; exit status 1 if a promise was broken."""
    told = run_demo(
        console,
        scenario,
        approve_myself=approve_myself,
        trace=trace,
        report_file=json,
        broker=broker,
    )
    run(told, telemetry())


@app.command()
def up(
    config: Config = DEFAULT_FILE,
    toolsets: Toolsets = None,
    read_only: ReadOnly = False,
    no_destructive: NoDestructive = False,
) -> None:
    """Serve the configured components over HTTP until interrupted; print how to log in."""
    narrow = narrowed(toolsets, read_only, no_destructive)
    settings = settings_in(config)
    recording = telemetry(settings.telemetry, settings.site.site_id)
    run(running.serve_until_interrupted(console, settings, narrow), recording)


@app.command()
def serve(
    component: Annotated[
        str | None, typer.Argument(help="such as maxlps; all components where none is named")
    ] = None,
    stdio: Annotated[bool, typer.Option("--stdio", help="over stdin and stdout")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="the settings file")] = None,
    factory: FactoryFile = None,
    toolsets: Toolsets = None,
    read_only: ReadOnly = False,
    no_destructive: NoDestructive = False,
) -> None:
    """Serve one component, or all. Without settings or a factory to join, it brings one."""
    if not stdio:
        fail("only --stdio serves here; `interlock up` serves all over HTTP")
    settings = None if config is None else settings_in(config)
    narrow = narrowed(toolsets, read_only, no_destructive)
    recording = telemetry()
    if settings is not None:
        recording = telemetry(settings.telemetry, settings.site.site_id)
    run(running.serve_component(component, settings, factory, narrow), recording)


@app.command()
def plant(
    addresses: Annotated[Path, typer.Option(help="where to write the addresses")] = Path(
        "factory.json"
    ),
    rate: Annotated[float, typer.Option(min=0.1, max=100, help="simulated seconds a second")] = 1.0,
    site: Annotated[
        str, typer.Option(help="lab, hall, site100mw, or a file that describes a site")
    ] = "lab",
    scenario: Annotated[
        Path | None, typer.Option(help="a file that says what goes wrong, and when")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="also write settings that attach `up` to it")
    ] = None,
    broker: Annotated[Kind | None, typer.Option(help="the MQTT broker to start")] = None,
    broker_url: Annotated[
        str | None, typer.Option(help="a broker that runs already, mqtt://host:port")
    ] = None,
    agents: Annotated[
        bool, typer.Option("--agents", help="limit GPUs by agents of the nodes, not by DPS")
    ] = False,
    kubernetes: Annotated[
        bool, typer.Option(help="also a cluster, on which NVSentinel looks after the nodes")
    ] = False,
) -> None:
    """Run the simulated factory and its twins as a process of their own, until interrupted."""
    run(
        running.run_plant(
            console,
            addresses,
            settings,
            site=site,
            scenario=scenario,
            rate=rate,
            broker=broker,
            broker_url=broker_url,
            agents=agents,
            kubernetes=kubernetes,
        )
    )


@app.command()
def doctor(config: Config = DEFAULT_FILE) -> None:
    """Say what GPUs this machine has and what each component answers; changes nothing."""
    all_here = devices.show_machine(console, SystemClock())
    run(running.examine(console, settings_in(config), all_here=all_here))


@app.command()
def stop(why: Why, config: Config = DEFAULT_FILE) -> None:
    """Hold everything that has not begun. Anyone may."""
    run(decisions.set_stop(console, settings_in(config), stopped=True, why=why))


@app.command()
def resume(why: Why, config: Config = DEFAULT_FILE) -> None:
    """Let changes begin again."""
    run(decisions.set_stop(console, settings_in(config), stopped=False, why=why))


@approvals.command("list")
def list_waiting(config: Config = DEFAULT_FILE) -> None:
    """The changes that wait for people."""
    run(decisions.show_waiting(console, settings_in(config)))


@approvals.command()
def show(change_id: ChangeId, config: Config = DEFAULT_FILE) -> None:
    """One change with all its arguments: what a vote would approve."""
    run(decisions.show_change(console, settings_in(config), change_id))


@approvals.command()
def approve(
    change_id: ChangeId,
    digest: Annotated[
        str, typer.Option(help="the first characters of the digest that you were shown")
    ],
    target: Annotated[str | None, typer.Option(help="the target's name, where asked for")] = None,
    config: Config = DEFAULT_FILE,
) -> None:
    """Vote yes on exactly what you were shown."""
    run(decisions.vote(console, settings_in(config), change_id, True, digest, target))


@approvals.command()
def reject(
    change_id: ChangeId,
    digest: Annotated[
        str, typer.Option(help="the first characters of the digest that you were shown")
    ],
    config: Config = DEFAULT_FILE,
) -> None:
    """Vote no; the change ends."""
    run(decisions.vote(console, settings_in(config), change_id, False, digest, None))


def narrowed(toolsets: str | None, read_only: bool, no_destructive: bool) -> Narrow:
    """What these options leave of the tools."""
    named = None if toolsets is None else named_in(toolsets)
    return Narrow(toolsets=named, read_only=read_only, no_destructive=no_destructive)


def main() -> None:
    """The entry point; every expected failure is one sentence and exit status 2."""
    logs.set_up()
    app()

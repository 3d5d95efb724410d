"""The command `interlock`: run, serve, watch, decide, stop, verify."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from interlock_console import authority, decisions, logs, policy, running
from interlock_console.demo.command import run_demo
from interlock_console.settings import DEFAULT_FILE, InterlockSettings, load
from interlock_guardrails.ledger import verify
from interlock_servers.transports.broker import Kind
from interlock_tools.errors import FactoryError

app = typer.Typer(
    name="interlock",
    help="The operations layer of AI factories: MCP servers behind a guard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
approvals = typer.Typer(help="What waits for people, and voting on it.", no_args_is_help=True)
ledger = typer.Typer(help="The ledger: export it, verify an export.", no_args_is_help=True)
app.add_typer(approvals, name="approvals")
app.add_typer(ledger, name="ledger")
app.add_typer(policy.app, name="policy")
authority.add_to(app)

PIPED_WIDTH = 120  # where there is no terminal to ask
console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
trouble = Console(stderr=True, highlight=False)

Config = Annotated[Path, typer.Option("--config", help="the settings file")]
FactoryFile = Annotated[
    Path | None, typer.Option("--factory", help="join the factory of this address file")
]
ChangeId = Annotated[str, typer.Argument(help="such as chg-0123456789ab")]
Why = Annotated[str, typer.Option("--why", help="for the ledger")]


@app.command()
def demo(
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
    """A simulated hall, one grid cut, every part real; exit status 1 if a promise was broken."""
    _run(
        run_demo(
            console, approve_myself=approve_myself, trace=trace, report_file=json, broker=broker
        )
    )


@app.command()
def up(config: Config = DEFAULT_FILE) -> None:
    """Serve the configured components over HTTP until interrupted; print how to log in."""
    _run(running.serve_until_interrupted(console, _settings(config)))


@app.command()
def serve(
    component: Annotated[str, typer.Argument(help="exchange, maxlps or flex")],
    stdio: Annotated[bool, typer.Option("--stdio", help="over stdin and stdout")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="the settings file")] = None,
    factory: FactoryFile = None,
) -> None:
    """Serve one component. Without settings or a factory to join, it brings a simulated one."""
    if not stdio:
        _fail("only --stdio serves a single component; `interlock up` serves all over HTTP")
    settings = None if config is None else _settings(config)
    _run(running.serve_component(component, settings, factory))


@app.command()
def plant(
    addresses: Annotated[Path, typer.Option(help="where to write the addresses")] = Path(
        "factory.json"
    ),
    rate: Annotated[float, typer.Option(min=0.1, max=100, help="simulated seconds a second")] = 1.0,
    settings: Annotated[
        Path | None, typer.Option(help="also write settings that attach `up` to it")
    ] = None,
    broker: Annotated[Kind | None, typer.Option(help="the MQTT broker to start")] = None,
    broker_url: Annotated[
        str | None, typer.Option(help="a broker that runs already, mqtt://host:port")
    ] = None,
) -> None:
    """Run the simulated factory and its twins as a process of their own, until interrupted."""
    _run(
        running.run_plant(
            console, addresses, settings, rate=rate, broker=broker, broker_url=broker_url
        )
    )


@app.command()
def doctor(config: Config = DEFAULT_FILE) -> None:
    """Connect to each configured component and say what works; changes nothing."""
    _run(running.examine(console, _settings(config)))


@app.command()
def stop(why: Why, config: Config = DEFAULT_FILE) -> None:
    """Hold everything that has not begun. Anyone may."""
    _run(decisions.set_stop(console, _settings(config), stopped=True, why=why))


@app.command()
def resume(why: Why, config: Config = DEFAULT_FILE) -> None:
    """Let changes begin again."""
    _run(decisions.set_stop(console, _settings(config), stopped=False, why=why))


@approvals.command("list")
def list_waiting(config: Config = DEFAULT_FILE) -> None:
    """The changes that wait for people."""
    _run(decisions.show_waiting(console, _settings(config)))


@approvals.command()
def show(change_id: ChangeId, config: Config = DEFAULT_FILE) -> None:
    """One change with all its arguments: what a vote would approve."""
    _run(decisions.show_change(console, _settings(config), change_id))


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
    _run(decisions.vote(console, _settings(config), change_id, True, digest, target))


@approvals.command()
def reject(
    change_id: ChangeId,
    digest: Annotated[
        str, typer.Option(help="the first characters of the digest that you were shown")
    ],
    config: Config = DEFAULT_FILE,
) -> None:
    """Vote no; the change ends."""
    _run(decisions.vote(console, _settings(config), change_id, False, digest, None))


@ledger.command("export")
def export_ledger(file: Annotated[Path, typer.Argument()], config: Config = DEFAULT_FILE) -> None:
    """Write the ledger and its signed checkpoints, for an outsider to verify."""
    _run(decisions.export(console, _settings(config), file))


@ledger.command("verify")
def verify_ledger(
    export: Annotated[Path, typer.Argument(help="what `ledger export` wrote")],
    key: Annotated[str, typer.Option(help="the public key, or a file with it")],
    strict: Annotated[bool, typer.Option(help="also re-canonicalise every record")] = False,
) -> None:
    """Verify an export; needs nothing but the file and the public key."""
    arguments = [str(export), "--key", key, *(["--strict"] if strict else [])]
    raise typer.Exit(verify.main(arguments))


def main() -> None:
    """The entry point; every expected failure is one sentence and exit status 2."""
    logs.set_up()
    app()


def _settings(config: Path) -> InterlockSettings:
    try:
        return load(config)
    except FactoryError as error:
        _fail(str(error))


def _run(work: Coroutine[Any, Any, int]) -> None:
    try:
        status = asyncio.run(work)
    except KeyboardInterrupt:
        status = 130
    except FactoryError as error:
        _fail(str(error))
    except BaseExceptionGroup as group:
        expected, rest = group.split(FactoryError)
        if expected is None or rest is not None:
            raise
        _fail("; ".join(dict.fromkeys(_sentences(expected))))
    sys.exit(status)


def _sentences(group: BaseExceptionGroup[FactoryError]) -> list[str]:
    out: list[str] = []
    for error in group.exceptions:
        out += _sentences(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return out


def _fail(sentence: str) -> NoReturn:
    trouble.print(f"interlock: {sentence}", markup=False, soft_wrap=True)
    sys.exit(2)

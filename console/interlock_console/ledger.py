"""`interlock ledger`: export, verify, prove, rotate the key, back up, restore."""

from pathlib import Path
from typing import Annotated

import typer

from interlock_console import decisions, ledger_commands
from interlock_console.entry import DEFAULT_FILE, Config, console, run, settings_in
from interlock_guardrails.ledger import verify

app = typer.Typer(help="The ledger: export it, verify, prove, back up.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="the file to write")]


@app.command("export")
def export_ledger(file: File, config: Config = DEFAULT_FILE) -> None:
    """Write the ledger and its signed checkpoints, for an outsider to verify."""
    run(decisions.export(console, settings_in(config), file))


@app.command("verify")
def verify_ledger(
    key: Annotated[list[str], typer.Option(help="a public key, or a file with them")],
    export: Annotated[
        Path | None, typer.Argument(help="what `ledger export` wrote; not needed for a proof")
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="checkpoints that were kept elsewhere")
    ] = None,
    proof: Annotated[Path | None, typer.Option(help="what `ledger prove` wrote")] = None,
    strict: Annotated[bool, typer.Option(help="also re-canonicalise every record")] = False,
) -> None:
    """Verify an export or a proof; needs nothing but the files and the public key."""
    arguments = [] if export is None else [str(export)]
    for one in key:
        arguments += ["--key", one]
    for name, value in (("--checkpoints", checkpoints), ("--proof", proof)):
        arguments += [] if value is None else [name, str(value)]
    raise typer.Exit(verify.main([*arguments, *(["--strict"] if strict else [])]))


@app.command()
def prove(
    number: Annotated[int, typer.Argument(help="of the record, from 0 on")],
    file: File,
    config: Config = DEFAULT_FILE,
) -> None:
    """Write a proof that one record is in the signed log."""
    settings = settings_in(config)
    run(ledger_commands.prove(console, settings, number, file, settings.sinks))


@app.command("prove-since")
def prove_since(
    kept: Annotated[Path, typer.Argument(help="a checkpoint that somebody kept")],
    file: File,
    config: Config = DEFAULT_FILE,
) -> None:
    """Write a proof that the log only grew since a checkpoint that somebody kept."""
    settings = settings_in(config)
    run(ledger_commands.prove_since(console, settings, kept, file, settings.sinks))


@app.command("ocsf")
def export_ocsf(file: File, config: Config = DEFAULT_FILE) -> None:
    """Write every record as an OCSF event."""
    settings = settings_in(config)
    run(ledger_commands.export_ocsf(console, settings, file, settings.sinks))


@app.command()
def rotate(config: Config = DEFAULT_FILE) -> None:
    """Change the key of the ledger; running servers take it up by themselves."""
    settings = settings_in(config)
    run(ledger_commands.rotate(console, settings, settings.sinks))


@app.command("keys")
def show_keys(config: Config = DEFAULT_FILE) -> None:
    """Print the public keys of the ledger, oldest first."""
    run(ledger_commands.show_keys(console, settings_in(config)))


@app.command("backup")
def back_up(file: File, config: Config = DEFAULT_FILE) -> None:
    """Back up store and ledger while they run, and verify the copy."""
    settings = settings_in(config)
    run(ledger_commands.back_up(console, settings, file, settings.sinks))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="what `ledger backup` wrote")],
    accept_older: Annotated[
        bool, typer.Option("--accept-older", help="although a newer state was published")
    ] = False,
    config: Config = DEFAULT_FILE,
) -> None:
    """Restore a backup where no store is any more."""
    settings = settings_in(config)
    run(
        ledger_commands.restore(
            console, settings, file, accept_older=accept_older, sinks=settings.sinks
        )
    )


@app.command()
def overrule(config: Config = DEFAULT_FILE) -> None:
    """Say that this store is right although an outside checkpoint contradicts it; on record."""
    settings = settings_in(config)
    run(ledger_commands.overrule(console, settings, settings.sinks))
